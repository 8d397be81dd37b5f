"""Images of other Python libraries that have a place in the patient, as scans; see `objects`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from pseudohealthy.errors import Fault
from pseudohealthy.io import nifti, nifti_header
from pseudohealthy.io.objects import CURE
from pseudohealthy.io.scan import Scan, as_float, finite, matrix, numbers


def from_nibabel(image: Any, plane: str) -> Scan:
    """An image of nibabel: its scaled values, its affine, and its header for outputs."""
    if not hasattr(image, "affine"):
        raise Fault("INPUT", f"a {type(image).__name__} of nibabel, which is no volume", CURE)
    warnings: list[str] = []
    shape = image.shape
    if len(shape) < 2 or np.prod(shape[3:]) != 1:
        size = " x ".join(map(str, shape))
        raise Fault("IS_4D", f"an image of shape {size}", "give one volume: image.slicer[..., 0]")
    stored = numbers(image.dataobj, warnings).reshape((*shape, 1)[:3])
    voxels = finite(as_float(stored, warnings), warnings)
    header = nifti.header_of(image, warnings)
    affine = matrix(header.get_best_affine() if image.affine is None else image.affine)
    affine = nifti_header.in_mm(header, affine, voxels.shape, warnings)
    scan = nifti.arranged(voxels[None], affine, plane, warnings)
    scan.origin.header, scan.origin.stored_shape = header, shape
    return scan


def from_affine(value: Any, plane: str) -> Scan:
    """Voxels (C, I, J, K), (I, J, K) or (I, J) with an affine of the index (i, j, k)."""
    warnings: list[str] = []
    affine = matrix(numbers(value.affine, warnings))
    array = value if hasattr(value, "detach") or isinstance(value, np.ndarray) else value.data
    array = numbers(array, warnings)
    if not 2 <= array.ndim <= 4 or 0 in array.shape:
        what = f"an image with an affine, of shape {array.shape}"
        raise Fault("SHAPE", what, "give one case: (C, I, J, K), (I, J, K) or (I, J)")
    while array.ndim < 3:
        array = array[..., None]
    voxels = finite(as_float(array, warnings), warnings)
    voxels = voxels if voxels.ndim == 4 else voxels[None]
    return nifti.arranged(voxels, affine, plane, warnings)


def from_itk(image: Any, plane: str) -> Scan:
    """An image of SimpleITK, whose world is LPS."""
    warnings: list[str] = []
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        size = f"{image.GetDimension()}-D, {image.GetNumberOfComponentsPerPixel()} numbers a voxel"
        raise Fault("SHAPE", f"an image of SimpleITK, {size}", "give one 3-D volume of one channel")
    array = numbers(sys.modules["SimpleITK"].GetArrayFromImage(image), warnings)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    voxels = finite(as_float(array.transpose(2, 1, 0), warnings), warnings)
    return nifti.arranged(voxels[None], np.diag([-1.0, -1, 1, 1]) @ affine, plane, warnings)
