"""Filters within a plane."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Filter (B, C, H, W) by a separable Gaussian, reflected at the border, truncated at 3 sigma.

    Per image and channel, in the images' own precision, under autocast, too.
    """
    radius = min(int(3 * sigma + 0.5), min(images.shape[-2:]) - 1)
    if radius < 1:
        return images
    x = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = images.reshape(-1, 1, *images.shape[-2:])
    with torch.autocast(images.device.type, enabled=False):
        # On the CPU a convolution of one channel is several times slower than the sum that it is
        convolve = convolved if flat.is_cuda else weighted
        flat = convolve(F.pad(flat, [radius, radius, 0, 0], mode="reflect"), kernel, -1)
        flat = convolve(F.pad(flat, [0, 0, radius, radius], mode="reflect"), kernel, -2)
    return flat.reshape(images.shape)


def convolved(padded: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Return `weighted` of (N, 1, H, W) as a convolution, which is what GPUs are fast at."""
    return F.conv2d(padded, kernel.view(1, 1, 1, -1) if axis == -1 else kernel.view(1, 1, -1, 1))


def weighted(padded: Tensor, kernel: Tensor, axis: int) -> Tensor:
    """Sum the views along an axis, each shifted by one and weighted by its entry of a kernel.

    Args:
        padded: (N, 1, H, W).
        kernel: (K,), odd and symmetric.
        axis: -1 or -2.
    """
    size, middle = padded.shape[axis] - len(kernel) + 1, len(kernel) // 2
    total = kernel[middle] * padded.narrow(axis, middle, size)
    for index in range(middle):
        pair = padded.narrow(axis, index, size) + padded.narrow(axis, len(kernel) - 1 - index, size)
        total.addcmul_(pair, kernel[index])
    return total


def median(maps: Tensor, side: int) -> Tensor:
    """Filter (B, H, W) by a square median, reflected at the border."""
    if side <= 1:
        return maps
    pad = side // 2
    patches = F.pad(maps[:, None], [pad] * 4, mode="reflect").unfold(2, side, 1).unfold(3, side, 1)
    return patches.reshape(*maps.shape, side * side).median(-1).values
