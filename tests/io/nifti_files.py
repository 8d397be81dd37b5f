"""NIfTI files as tests need them: saved with given forms, edited in bytes."""

from __future__ import annotations

import struct
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (20, 22, 24)


def save(path: Path, data: np.ndarray, affine=None, *, edit=None, sform=2, qform=1) -> Path:
    image = nib.Nifti1Image(data, np.diag([1, 2, 3, 1.0]) if affine is None else affine)
    image.header.set_sform(image.affine, sform)
    image.header.set_qform(image.affine, qform)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    if edit:
        raw = bytearray(path.read_bytes())
        edit(raw)
        path.write_bytes(raw)
    return path


def put(offset: int, layout: str, *values):
    return lambda raw: struct.pack_into("<" + layout, raw, offset, *values)


def oblique() -> np.ndarray:
    a, b = np.radians(12), np.radians(-7)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn * [1.0, 1.2, 2.5]
    affine[:3, 3] = -10, 20, 30
    return affine
