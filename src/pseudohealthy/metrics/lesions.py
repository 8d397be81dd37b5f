"""Lesions as regions, not voxels: which were found, what was found beside them, and by size."""

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
    """Regions of one case.

    Args:
        sizes: (L,), size class of each true lesion.
        detected: (L,), whether a voxel of it was found.
        overlap: (L,), its intersection over union with the found regions that touch it.
        false_sizes: (F,), size class of each found region without a true voxel.
    """

    sizes: np.ndarray
    detected: np.ndarray
    overlap: np.ndarray
    false_sizes: np.ndarray


def compare_regions(mask: np.ndarray, truth: np.ndarray, voxel_ml: float | None = None) -> Regions:
    """Compare the regions of two masks (D, H, W) bool."""
    true_labels, lesions = regions(truth)
    labels, count = regions(mask)
    true_voxels = np.bincount(true_labels.ravel(), minlength=lesions + 1)[1:]
    mask_voxels = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    overlap = (true_labels > 0) & (labels > 0)
    pairs, voxels = np.unique(
        np.stack([true_labels[overlap], labels[overlap]]), axis=1, return_counts=True
    )
    hit, union = np.zeros(lesions), true_voxels.astype(np.float64)
    np.add.at(hit, pairs[0] - 1, voxels)
    np.add.at(union, pairs[0] - 1, mask_voxels[pairs[1] - 1] - voxels)
    false = np.ones(count, dtype=bool)
    false[pairs[1] - 1] = False
    plane = truth.shape[-2] * truth.shape[-1]
    return Regions(
        size_classes(true_voxels, voxel_ml, plane),
        hit > 0,
        hit / union,
        size_classes(mask_voxels[false], voxel_ml, plane),
    )


def size_classes(voxels: np.ndarray, voxel_ml: float | None, plane: int) -> np.ndarray:
    """Return the index into `SIZES` for regions of so many ``voxels``.

    Args:
        voxels: of each region.
        voxel_ml: volume of a voxel, where it is known.
        plane: pixels of a plane, which scale THOR's bands where it is not.
    """
    size = np.asarray(voxels, dtype=np.float64)
    if voxel_ml is not None:
        return np.searchsorted(np.asarray(BANDS_ML), size * voxel_ml, side="right")
    return np.searchsorted(
        np.asarray(BANDS_PIXELS, dtype=np.float64), size * THOR_PLANE / plane, side="left"
    )


def region_weights(truth: np.ndarray) -> np.ndarray:
    """Return 1 / voxels of its region for each true voxel of (D, H, W) in C order.

    Every lesion weighs 1 in all.
    """
    labels, count = regions(truth)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    return 1.0 / voxels[labels[np.asarray(truth, dtype=bool)]]
