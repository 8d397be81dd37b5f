"""What is done to a native map or mask before it is judged: median, erosion, small regions.

The three steps of pDDPM and cDDPM (Behrendt et al. 2023, 2025) and of any protocol that wants them;
the median alone carries about a quarter of their BraTS Dice (cDDPM, Table 4), so every method,
controls included, gets the same ones.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def erode(mask: np.ndarray, steps: int) -> np.ndarray:
    """Take ``steps`` pixels off the rim of a mask (D, H, W) bool, plane by plane (4-neighbours).

    The border counts as rim.
    """

    mask = np.asarray(mask, dtype=bool)
    if steps <= 0:
        return mask
    cross = ndimage.generate_binary_structure(2, 1)[None]
    return ndimage.binary_erosion(mask, structure=cross, iterations=steps)


def median(volume: np.ndarray, size: int = 5) -> np.ndarray:
    """Return the median of each size^3 neighbourhood of a volume (D, H, W), reflected at the
    border.

    float32. Only the box around what is not 0 is filtered: elsewhere the median is 0 anyway.
    """
    volume = np.asarray(volume, dtype=np.float32)
    if size <= 1 or not volume.any():
        return volume.copy()
    box = ndimage.find_objects((volume != 0).astype(np.uint8))[0]
    box = tuple(slice(max(0, side.start - size), side.stop + size) for side in box)
    filtered = np.zeros_like(volume)
    filtered[box] = ndimage.median_filter(volume[box], size=size, mode="reflect")
    return filtered


def regions(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the regions of a mask, corners connecting (26 neighbours).

    Returns:
        The number of each voxel's region, 0 outside, (D, H, W) int32; and how many there are.
    """

    return ndimage.label(mask, structure=np.ones((3, 3, 3)))


def without_small(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Remove the regions of fewer than ``smallest`` voxels from a mask (D, H, W) bool."""
    labels, _ = regions(mask)
    keep = np.bincount(labels.ravel()) >= smallest
    keep[0] = False
    return keep[labels]
