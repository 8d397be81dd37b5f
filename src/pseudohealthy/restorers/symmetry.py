"""Ways to read a residual that need more than one pixel: its largest region, and what the two
halves of a head share."""

from __future__ import annotations

import torch
from torch import Tensor

from pseudohealthy.maps.filters import smooth


def mid_line(images: Tensor) -> Tensor:
    """Where images (B, C, S, S) in [-1, 1] are their own mirror: shifts (B,) long, column w facing
    S - 1 + shift - w.

    The horizontal shift, at most S / 2, at which the brightness correlates best with its mirror
    image (all rows together, by Fourier transform). On a windowed CT the skull decides, which a
    bleed hardly moves. A tilt is not sought.
    """
    width = images.shape[-1]
    bright = (images.float().mean(1) + 1) / 2
    own, mirror = (torch.fft.rfft(part, 2 * width) for part in (bright, bright.flip(-1)))
    correlation = torch.fft.irfft((own * mirror.conj()).sum(1), 2 * width)
    half = width // 2
    return correlation.roll(half, -1)[:, : 2 * half + 1].argmax(-1) - half


def mirrored(fields: Tensor, shift: Tensor) -> Tensor:
    """Fields (B, C, S, S) as seen across the mid-line given by shifts (B,); 0 where there is
    nothing across."""
    width = fields.shape[-1]
    across = width - 1 + shift[:, None] - torch.arange(width, device=fields.device)  # (B, S)
    known = (across >= 0) & (across < width)
    index = across.clamp(0, width - 1)[:, None, None].expand(-1, *fields.shape[1:3], -1)
    return fields.gather(-1, index) * known[:, None, None].to(fields.dtype)


def mirror_residual(residual: Tensor, images: Tensor, *, sigma: float) -> Tensor:
    """The signed residual (B, C, S, S) less what the other half of the head has as well.

    Subtracts the residual across the mid-line of `images` (B, C, S, S), smoothed by `sigma` pixels,
    where its sign is the same, and never past zero: a plain difference would show every lesion
    again, negative, on the healthy side. Both-sided lesions are lost; so are calcified plexus,
    sinuses and skull, which is the point.
    """
    across = smooth(mirrored(residual, mid_line(images)), sigma)
    left = (residual.abs() - across.abs()).clamp(min=0) * residual.sign()
    return torch.where(residual * across > 0, left, residual)
