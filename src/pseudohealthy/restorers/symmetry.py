"""Residuals less what the two halves of a head share."""

from __future__ import annotations

import torch
from torch import Tensor

from pseudohealthy.maps.filters import smooth


def mid_line(images: Tensor) -> Tensor:
    """The mid-line of images as shifts: column w faces column S - 1 + shift - w.

    It is the horizontal shift, at most S / 2, at which the brightness correlates best with its
    mirror image (all rows together, by Fourier transform). On a windowed CT the skull decides,
    which a bleed hardly moves. Tilts are not estimated.

    Args:
        images: (B, C, S, S) in [-1, 1].

    Returns:
        (B,) long.
    """
    width = images.shape[-1]
    bright = (images.float().mean(1) + 1) / 2
    spectrum, mirror = (torch.fft.rfft(part, 2 * width) for part in (bright, bright.flip(-1)))
    correlation = torch.fft.irfft((spectrum * mirror.conj()).sum(1), 2 * width)
    half = width // 2
    return correlation.roll(half, -1)[:, : 2 * half + 1].argmax(-1) - half


def mirrored(fields: Tensor, shift: Tensor) -> Tensor:
    """Fields (B, C, S, S) mirrored at mid-lines with these shifts (B,); 0 beyond the image."""
    width = fields.shape[-1]
    across = width - 1 + shift[:, None] - torch.arange(width, device=fields.device)  # (B, S)
    valid = (across >= 0) & (across < width)
    index = across.clamp(0, width - 1)[:, None, None].expand(-1, *fields.shape[1:3], -1)
    return fields.gather(-1, index) * valid[:, None, None].to(fields.dtype)


def mirror_residual(residual: Tensor, images: Tensor, *, sigma: float) -> Tensor:
    """The signed residual less that of the other half of the head.

    Subtracts the residual across the mid-line where its sign is the same, and never past zero: a
    plain difference would show every lesion again, negative, on the healthy side. Lesions on both
    sides are lost; so are, as intended, calcified plexus, sinuses and skull.

    Args:
        residual: (B, C, S, S).
        images: (B, C, S, S), for the mid-line.
        sigma: Gaussian smoothing of the other half's residual, pixels.
    """
    across = smooth(mirrored(residual, mid_line(images)), sigma)
    remainder = (residual.abs() - across.abs()).clamp(min=0) * residual.sign()
    return torch.where(residual * across > 0, remainder, residual)
