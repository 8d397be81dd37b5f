"""Map operators of THOR and its relatives, batched and per image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def dilate(maps: Tensor, side: int) -> Tensor:
    """Dilate (B, C, H, W) by a square of odd `side`; the border repeats the nearest pixel.

    A repeated border pixel is in the window whenever the pixel itself is, so leaving it out is the
    same. The maximum of a square is that of its columns' maxima: 2 `side` comparisons a pixel
    instead of its square.
    """
    rows = F.max_pool2d(maps, (side, 1), stride=1, padding=(side // 2, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, side // 2))


def close(maps: Tensor, side: int) -> Tensor:
    """Close gaps narrower than `side`: grey dilation, then erosion."""
    return -dilate(-dilate(maps, side), side)


def gaussian(images: Tensor, sigma: float, axes: tuple[int, ...] = (-2, -1)) -> Tensor:
    """Filter by a Gaussian along `axes`, truncated at 4 sigma.

    The borders mirror with the border pixel repeated.
    """
    dtype, images = images.dtype, images.double()
    for axis in axes:
        size = images.shape[axis]
        radius = int(4 * sigma + 0.5)
        offset = torch.arange(-radius, radius + 1, device=images.device)
        kernel = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
        kernel = kernel / kernel.sum()
        source = (torch.arange(size, device=images.device)[:, None] + offset) % (2 * size)
        source = torch.where(source < size, source, 2 * size - 1 - source)
        blur = torch.zeros(size, size, dtype=torch.float64, device=images.device)
        blur.scatter_add_(1, source, kernel.expand(size, -1))
        images = (images.movedim(axis, -1) @ blur.T).movedim(-1, axis)
    return images.to(dtype)


def harmonic_mean(maps: Tensor) -> Tensor:
    """Return the harmonic mean over the first axis of maps >= 0; zero where any of them is zero."""
    return len(maps) / (1 / maps).sum(0)


def peak_normalised(maps: Tensor) -> Tensor:
    """Divide maps (B, ...) >= 0 by the maximum of each image, to [0, 1]; an empty map stays
    empty."""
    peak = maps.flatten(1).amax(1).reshape(-1, *[1] * (maps.ndim - 1))
    return (maps / (peak + 1e-8)).clamp(0, 1)


def region(maps: Tensor, side: int) -> Tensor:
    """Return where to restore: maps (B, 1, H, W) in [0, 1], closed, then dilated (THOR's
    ``cd``)."""
    return dilate(close(maps, side), side)
