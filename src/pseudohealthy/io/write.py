"""Volumes written back on the grid and in the format that they came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.formats import FORMATS
from pseudohealthy.io.scan import Scan
from pseudohealthy.lazy import lazy


def write_volume(
    array: np.ndarray,
    scan: Scan,
    folder: Path,
    stem: str,
    *,
    dtype: Any = None,
    nifti: bool = False,
) -> Path:
    """Write (D, H, W) or (C, D, H, W) on the scan's own grid and return the path, suffix included.

    What the scan's format has a writer for goes back in it, see `formats.Format`. NIfTI in: .nii.gz
    with the input's header and forms. DICOM and arrays with an affine: .nii.gz made from it.
    Pictures, idx and radiographs: .png for 8 and 16 bits, .tiff for floats and stacks; .npy in:
    .npy. dtype None: the picture's own depth, float32 for volumes. nifti: NIfTI whatever the
    format, of a scan that has a place in the patient. Boolean arrays are masks: 0 and 1, in
    pictures 0 and 255. Integers are rounded and clipped. Raises Fault OUTPUT (exit 6).
    """
    array = np.asarray(array)
    if array.shape[-3:] != scan.shape[1:] or array.ndim not in (3, 4):
        raise ValueError(f"array of shape {array.shape} for a scan of shape {scan.shape}")
    kind = "nifti" if nifti else _goes_back_as(scan)
    if array.dtype == bool or dtype is bool:
        array = (array != 0).astype(np.uint8) * np.uint8(255 if kind == "raster" else 1)
    else:
        own = np.float32 if FORMATS[kind].volume else _depth(scan, kind)
        array = _as_type(array, np.dtype(dtype or own))
    return lazy(FORMATS[kind].writer)(array, scan, Path(folder), stem)


def _goes_back_as(scan: Scan) -> str:
    """The format of results: the scan's own where it can hold them, else NIfTI or a picture."""
    placed, own = scan.affine is not None, FORMATS.get(scan.kind)
    if own and own.writer and (own.volume or not placed):
        return scan.kind
    return "nifti" if placed else "raster"


def _as_type(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu" and array.dtype != dtype:
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array), limits.min, limits.max)
    return array.astype(dtype)


def _depth(scan: Scan, kind: str) -> np.dtype:
    """The numpy type that this scan, which is no volume, is written in."""
    stored = getattr(scan.origin, "dtype", None)
    if stored is None:  # a radiograph: 16 bits where its values fit
        fits = scan.voxels.min() >= 0 and scan.voxels.max() < 2**16 and scan.kind == "dicom"
        return np.dtype(np.uint16 if fits else np.float32)
    if stored in (np.uint8, np.uint16) or (kind != "raster" and stored.kind != "b"):
        return stored
    return np.dtype(np.float32)
