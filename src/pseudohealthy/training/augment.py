"""Augmentation on tensors, keyed to the item like all other randomness."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw


def augment(
    images: Tensor,
    foreground: Tensor,
    kind: Literal["none", "flip", "affine", "strong"],
    draw: Draw,
) -> tuple[Tensor, Tensor]:
    """Move images and their foreground alike; what comes in from outside the image is -1.

    Args:
        images: (B, C, S, S) in [-1, 1].
        foreground: (B, S, S).
        kind: "flip": left-right, half of the items. "affine": also rotation +-10 degrees, shift
            +-8 % and scale +-8 %. "strong": also bent smoothly, points by 1 % of the side (spread)
            along a grid of 8 x 8, and brightness, as a share of the range, to the power e^(+-.3),
            one for all channels: for few patients, whose anatomy and contrast a network learns by
            heart.
    """
    if kind == "none":
        return images, foreground
    flip = draw.uniform() < 0.5
    if kind == "flip":
        flipped = flip.view(-1, 1, 1)
        return torch.where(flipped[:, None], images.flip(-1), images), torch.where(
            flipped, foreground.flip(-1), foreground
        )

    def signed(limit: float) -> Tensor:
        return (2 * draw.uniform() - 1) * limit

    angle, scale = signed(math.radians(10)), 1 + signed(0.08)
    mirror = 1 - 2 * flip.float()
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    matrices = torch.stack(
        [cos * mirror, -sin, signed(0.16), sin * mirror, cos, signed(0.16)], 1
    ).view(-1, 2, 3)
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    if kind == "strong":
        bend = draw.of_kind("gaussian").fork("bend").noise(images.new_zeros(len(images), 2, 8, 8))
        bend = F.interpolate(bend, size=images.shape[-2:], mode="bicubic", align_corners=False)
        grid = grid + 0.02 * bend.permute(0, 2, 3, 1)  # of a grid from -1 to 1
        power = torch.exp(signed(0.3)).view(-1, 1, 1, 1)
        images = 2 * ((images + 1) / 2).clamp(0, 1) ** power - 1
    moved = (
        F.grid_sample(images + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        - 1
    )
    visible = F.grid_sample(
        foreground[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False
    )
    return moved, visible[:, 0] > 0.5
