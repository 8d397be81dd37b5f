"""Images of other Python libraries as scans: nibabel, MONAI, TorchIO, SimpleITK, Pillow, arrays.

None of them is imported. What carries an affine is arranged as its file would be, so that it gives
the same planes, and results go back onto its own grid.
"""

from __future__ import annotations

from typing import Any

from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.lazy import lazy

# Readers; what has a place in the patient needs nibabel
PILLOW, NIBABEL = "io.raster:from_pillow", "io.placed:from_nibabel"
ITK, AFFINE = "io.placed:from_itk", "io.placed:from_affine"
CURE = "give the path of its file or folder"


def scan_of(value: Any, *, plane: str = "axial") -> Scan:
    """The scan that a Python object holds.

    Args:
        value: an image of nibabel, a tensor or array with `.affine` such as MONAI's (C, I, J, K),
            an image of TorchIO or SimpleITK, a picture of Pillow, or what `Scan.from_array` takes.
        plane: as of `io.read`, for what has an affine.

    Raises Fault INPUT, SHAPE, DTYPE, IS_4D, NONFINITE, BAD_AFFINE.
    """
    library = type(value).__module__.split(".")[0]
    if library == "PIL" and hasattr(value, "getexif"):
        return lazy(PILLOW)(value)
    if library == "pydicom":
        raise Fault("INPUT", "a pydicom Dataset", CURE)
    if hasattr(value, "get_fdata"):
        return lazy(NIBABEL)(value, plane)
    if library == "SimpleITK":
        return lazy(ITK)(value, plane)
    if getattr(value, "affine", None) is not None:
        return lazy(AFFINE)(value, plane)
    return Scan.from_array(value)
