"""Which pixels show the patient: the region that percentiles, crops and evaluation masks are taken from.

"auto": brighter than a small share of the image's robust range, its large components, holes filled, per volume; made
for MR with and without skull, digits and radiographs. "head-ct": above -200 HU, largest object, filled (values in HU).
"nonzero": any channel differs from 0. "all": everything.
"""

from __future__ import annotations

import numpy as np

METHODS = ("auto", "nonzero", "all", "head-ct")
LEVEL = 0.1  # of the way from the background to the bright tissue (99th percentile of what is not background)
SMALLEST = 0.05  # of the largest component: smaller ones are specks


def foreground(voxels: np.ndarray, method: str = "auto") -> np.ndarray:
    """(C, D, H, W) -> bool (D, H, W)."""
    if method == "all":
        return np.ones(voxels.shape[1:], dtype=bool)
    if method == "nonzero":
        return (voxels != 0).any(axis=0)
    from scipy import ndimage

    if method == "head-ct":
        solid = ndimage.binary_opening(voxels[0] > -200, structure=np.ones((1, 3, 3)))
        return _filled(_components(solid, smallest=1.0))
    bright = np.zeros(voxels.shape[1:], dtype=bool)
    for values in voxels:
        bright |= _bright(values)
    if not bright.any():
        return np.ones_like(bright)
    return _filled(_components(bright, SMALLEST))


def _bright(values: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(values, (0, 1, 1)) if min(values.shape[1:]) >= 64 else values
    border = np.concatenate([edge.ravel() for edge in (values[:, [0, -1]], values[:, :, [0, -1]])])
    ground, lowest, highest = float(np.median(border)), float(values.min()), float(values.max())
    if ground - lowest > LEVEL * (highest - lowest) and (border == ground).mean() > 0.95:
        apart = np.abs(smooth - ground)  # z-scored inside the head, or a white frame: the background is not the darkest
        return apart > LEVEL / 5 * float(np.percentile(apart, 99))
    floor = float(smooth.min())
    above = smooth[smooth > floor]
    if above.size == 0:
        return np.zeros(values.shape, dtype=bool)
    return smooth > floor + LEVEL * (float(np.percentile(above, 99)) - floor)


def _components(solid: np.ndarray, smallest: float) -> np.ndarray:
    from scipy import ndimage

    labels, count = ndimage.label(solid, structure=np.ones((3, 3, 3)))
    if count <= 1:
        return solid
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= smallest * sizes.max())[labels] & solid


def _filled(solid: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.stack([ndimage.binary_fill_holes(plane) for plane in solid])
