"""Volumes written back on the grid and in the format that they came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.io.scan import Scan


def write_volume(array: np.ndarray, scan: Scan, folder: Path, stem: str, *, dtype: Any = None) -> Path:
    """Write (D, H, W) or (C, D, H, W) on the scan's own grid and return the path, suffix included.

    NIfTI in: .nii.gz with the input's header and forms. DICOM and arrays with an affine: .nii.gz
    made from it. Pictures, idx and radiographs: .png for 8 and 16 bits, .tiff for floats and
    stacks; .npy in: .npy. dtype None: the picture's own depth, float32 for volumes. Boolean arrays
    are masks: 0 and 1, in pictures 0 and 255. Integers are rounded and clipped. Raises Fault OUTPUT
    (exit 6).
    """
    array = np.asarray(array)
    if array.shape[-3:] != scan.shape[1:] or array.ndim not in (3, 4):
        raise ValueError(f"array of shape {array.shape} for a scan of shape {scan.shape}")
    folder = Path(folder)
    volume = scan.kind == "nifti" or scan.affine is not None
    if array.dtype == bool or dtype is bool:
        array = (array != 0).astype(np.uint8) * np.uint8(1 if volume or scan.kind == "array" else 255)
    else:
        array = _as_type(array, np.dtype(dtype or (np.float32 if volume else _depth(scan))))
    if volume:
        from pseudohealthy.io import nifti
        from pseudohealthy.io.turn import acquired

        array, scan = acquired(array, scan)

        path = folder / f"{stem}.nii.gz"
        if isinstance(scan.origin, nifti.NiftiOrigin):
            return nifti.write(array, scan.origin, path, array.dtype)
        assert scan.affine is not None
        return nifti.write_on_affine(array, scan.affine, path, array.dtype)
    from pseudohealthy.io import raster

    return raster.write(array, scan.origin, folder, stem, npy=scan.kind == "array")


def _as_type(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu" and array.dtype != dtype:
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array), limits.min, limits.max)
    return array.astype(dtype)


def _depth(scan: Scan) -> np.dtype:
    """The numpy type a picture of this scan is written in."""
    stored = getattr(scan.origin, "dtype", None)
    if stored is None:  # a radiograph: 16 bits where its values fit
        fits = scan.voxels.min() >= 0 and scan.voxels.max() < 2**16 and scan.kind == "dicom"
        return np.dtype(np.uint16 if fits else np.float32)
    if stored in (np.uint8, np.uint16) or (scan.kind == "array" and stored.kind != "b"):
        return stored
    return np.dtype(np.float32)
