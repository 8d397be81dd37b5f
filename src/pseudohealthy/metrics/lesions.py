"""Lesions as regions, not voxels: which were found, what was found beside them, and by size.

A region is a set of connected voxels (26 neighbours; 8 in a plane). Voxel figures are ruled by
large lesions; these are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pseudohealthy.maps.volume_filters import regions

SIZES = ("small", "medium", "large")
BANDS_ML = (0.1, 1.0)  # upper ends of small and medium, where the volume of a voxel is known
# THOR (Bercea et al. 2024): quartiles of ATLAS lesions, pixels of a plane of 128 x 128.
BANDS_PIXELS = (71, 570)
THOR_PLANE = 128 * 128


@dataclass(frozen=True)
class Regions:
    """Of one case: size class of each true lesion (L,), whether a voxel of it was found (L,), its
    overlap (L,) with the found regions that touch it (intersection over union), and the size class
    of each found region (F,) without a true voxel."""

    sizes: np.ndarray
    detected: np.ndarray
    overlap: np.ndarray
    false_sizes: np.ndarray


def compare_regions(found: np.ndarray, truth: np.ndarray, voxel_ml: float | None = None) -> Regions:
    """Regions of two masks (D, H, W) bool."""
    true, lesions = regions(truth)
    called, calls = regions(found)
    true_voxels = np.bincount(true.ravel(), minlength=lesions + 1)[1:]
    called_voxels = np.bincount(called.ravel(), minlength=calls + 1)[1:]
    both = (true > 0) & (called > 0)
    pairs, shared = np.unique(np.stack([true[both], called[both]]), axis=1, return_counts=True)
    hit, union = np.zeros(lesions), true_voxels.astype(np.float64)
    np.add.at(hit, pairs[0] - 1, shared)
    np.add.at(union, pairs[0] - 1, called_voxels[pairs[1] - 1] - shared)
    false = np.ones(calls, dtype=bool)
    false[pairs[1] - 1] = False
    plane = truth.shape[-2] * truth.shape[-1]
    return Regions(
        size_classes(true_voxels, voxel_ml, plane),
        hit > 0,
        hit / union,
        size_classes(called_voxels[false], voxel_ml, plane),
    )


def size_classes(voxels: np.ndarray, voxel_ml: float | None, plane: int) -> np.ndarray:
    """Index into `SIZES` for regions of so many ``voxels``; plane: pixels of a plane, which scale
    THOR's bands where the volume of a voxel is unknown."""
    size = np.asarray(voxels, dtype=np.float64)
    if voxel_ml is not None:
        return np.searchsorted(np.asarray(BANDS_ML), size * voxel_ml, side="right")
    return np.searchsorted(
        np.asarray(BANDS_PIXELS, dtype=np.float64), size * THOR_PLANE / plane, side="left"
    )


def region_weights(truth: np.ndarray) -> np.ndarray:
    """1 / voxels of its region for each true voxel of (D, H, W) in C order: every lesion weighs 1
    in all."""
    labels, count = regions(truth)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    return 1.0 / voxels[labels[np.asarray(truth, dtype=bool)]]
