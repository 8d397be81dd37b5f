"""Augmentation on tensors, keyed to the item like all other randomness."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw


def augment(
    images: Tensor, foreground: Tensor, kind: Literal["none", "flip", "affine"], draw: Draw
) -> tuple[Tensor, Tensor]:
    """Images (B, C, S, S) in [-1, 1] and foreground (B, S, S), moved alike; what comes in from outside is -1.

    "flip": left-right, half of the items. "affine": also rotation +-10 degrees, shift +-8 % and scale +-8 %.
    """
    if kind == "none":
        return images, foreground
    flip = draw.uniform() < 0.5
    if kind == "flip":
        at = flip.view(-1, 1, 1)
        return torch.where(at[:, None], images.flip(-1), images), torch.where(at, foreground.flip(-1), foreground)

    def signed(most: float) -> Tensor:
        return (2 * draw.uniform() - 1) * most

    angle, scale = signed(math.radians(10)), 1 + signed(0.08)
    mirror = 1 - 2 * flip.float()
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = torch.stack([cos * mirror, -sin, signed(0.16), sin * mirror, cos, signed(0.16)], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    moved = F.grid_sample(images + 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False) - 1
    inside = F.grid_sample(foreground[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved, inside[:, 0] > 0.5
