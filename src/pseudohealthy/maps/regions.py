"""Connected regions of a map."""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor


def largest_region_mass(maps: Tensor, inside: Tensor, threshold: float) -> Tensor:
    """Sum each map over its largest region above `threshold`, (B,); 0 where nothing is above.

    Regions are 8-connected, the largest is the one with most pixels. A bleed is one compact region;
    registration and sulci leave many small ones of the same height.

    Args:
        maps: (B, S, S), non-negative.
        inside: (B, S, S) bool, where to look.
        threshold: of the maps.
    """
    masses = []
    for plane, above in zip(maps, (maps > threshold) & inside.bool(), strict=True):
        labels, count = ndimage.label(above.cpu().numpy(), structure=[[1] * 3] * 3)
        if count == 0:
            masses.append(plane.new_zeros(()))
            continue
        sizes = torch.from_numpy(labels).flatten().bincount()
        masses.append(
            plane[torch.from_numpy(labels == int(sizes[1:].argmax()) + 1).to(plane.device)].sum()
        )
    return torch.stack(masses)
