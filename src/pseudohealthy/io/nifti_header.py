"""What a NIfTI header says of shape, type, place and scaling, and what is refused in it."""

from __future__ import annotations

import re
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from pseudohealthy.errors import Fault
from pseudohealthy.io.bounded import looks_like
from pseudohealthy.io.nifti_stream import take
from pseudohealthy.io.scan import invertible, of_a_patient, same_grid

TOOL = re.compile(
    rb"FSL|SPM|ANTs|ITK|nibabel|nilearn|FreeSurf|MATLAB|MRtrix|AFNI|NiftyReg|c3d|\bT[RE][:=]", re.I
)
UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}  # of xyzt_units; else mm


NO_ORIENTATION = "ORIENTATION_UNKNOWN: no sform and no qform; left and right cannot be told apart"


def read_header(stream: BinaryIO) -> tuple[Any, bool]:
    """The header, unchecked, and whether it carries text that might identify someone."""
    raw = take(stream, 544)
    sizes = [int.from_bytes(raw[:4], order) for order in ("little", "big")]
    if 348 in sizes and raw[344:348] in (b"n+1\0", b"ni1\0") and len(raw) >= 348:
        kind, length = nib.Nifti1Header, 348
    elif 540 in sizes and raw[4:7] in (b"n+2", b"ni2") and len(raw) >= 540:
        kind, length = nib.Nifti2Header, 540
    elif 348 in sizes or 540 in sizes:
        if len(raw) < 348:
            raise Fault("TRUNCATED", "the file ends inside its header", "copy or download it again")
        raise Fault(
            "NOT_NIFTI",
            "an Analyze file without a NIfTI magic",
            "convert it: its left and right are unknown",
        )
    else:
        raise Fault(
            "NOT_NIFTI", f"this is not a NIfTI file{looks_like(raw)}", "give a .nii or .nii.gz"
        )
    header = kind(raw[:length], check=False)
    offset = float(header["vox_offset"])
    extended = not offset < length + 4 and raw[length : length + 1] not in (b"", b"\0")
    text = [
        bytes(header[key].tobytes()).strip(b"\0 ")
        for key in ("descrip", "aux_file", "db_name")
        if key in header
    ]
    return header, extended or any(t and not TOOL.search(t) for t in text)


def shape_of(header: Any) -> tuple[int, ...]:
    dim = [int(n) for n in header["dim"]]
    shape = tuple(dim[1 : dim[0] + 1]) if 1 <= dim[0] <= 7 else ()
    if len(shape) < 2 or min(shape) < 1:
        raise Fault(
            "BAD_DIMS",
            f"the header declares dimensions {dim[: 1 + max(0, min(dim[0], 7))]}",
            "repair the header",
        )
    return shape


def dtype_of(header: Any) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except (KeyError, nib.spatialimages.HeaderDataError):
        dtype = None
    if dtype is None or dtype.kind not in "iuf" or dtype.itemsize == 0:
        raise Fault(
            "DTYPE",
            f"voxel type {dtype or int(header['datatype'])} is not a real number",
            "convert it",
        )
    return dtype


def affine_of(header: Any, shape: tuple[int, ...], warnings: list[str]) -> np.ndarray:
    """Index (i, j, k) -> RAS+ mm: sform first, then qform, then nibabel's fallback with a
    warning."""
    zooms = np.array(header["pixdim"][1:4], np.float64)[: len(shape)]
    if not np.isfinite(zooms).all() or (zooms == 0).any():
        raise Fault("BAD_SPACING", f"voxel sizes {zooms.tolist()} in the header", "repair pixdim")
    sform = header.get_sform(coded=True)[0]
    qform = _qform(header, warnings) if int(header["qform_code"]) > 0 else None
    affine = sform if sform is not None else qform
    if affine is None:
        warnings.append(NO_ORIENTATION)
        affine = header.get_base_affine()
    if not invertible(affine):
        raise Fault("BAD_AFFINE", "the affine is not finite or not invertible", "repair the header")
    grid = (*shape, 1)[:3]
    steps = np.linalg.norm(affine[:3, :3], axis=0)[: len(zooms)]
    disagree = not np.allclose(steps, np.abs(zooms), rtol=0.01)
    if sform is not None and qform is not None:
        disagree |= not np.isfinite(qform).all() or not same_grid(grid, sform, qform)
    if disagree:
        warnings.append(
            "FORMS_DISAGREE: sform, qform and pixdim do not describe one grid; the sform is used"
        )
    if sheared(affine):
        warnings.append(
            "NOT_ORTHONORMAL: the axes are not at right angles; ITK viewers will refuse the outputs"
        )
    return in_mm(header, affine, grid, warnings)


def _qform(header: Any, warnings: list[str]) -> np.ndarray:
    """The quaternion's affine as the standard's reference code makes it (nifti1_io.c,
    nifti_quatern_to_mat44). What it repairs is repaired in the header, too, which outputs copy.
    """
    b, c, d = (float(header[key]) for key in ("quatern_b", "quatern_c", "quatern_d"))
    longer = b * b + c * c + d * d
    if longer > 1 - 1e-7:  # half a turn: the real part is 0 but for rounding
        if longer > 1.01:
            warnings.append(f"QUATERNION: of length {np.sqrt(longer):.3g} instead of 1; shortened")
        b, c, d = (n / np.sqrt(longer) for n in (b, c, d))
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = b, c, d
    turn = nib.quaternions.quat2mat([np.sqrt(max(0.0, 1 - b * b - c * c - d * d)), b, c, d])
    header["pixdim"][1:4] = np.abs(header["pixdim"][1:4])
    steps = np.array(header["pixdim"][1:4], np.float64)
    steps[2] *= -1 if header["pixdim"][0] < 0 else 1
    where = [float(header[f"qoffset_{axis}"]) for axis in "xyz"]
    return nib.affines.from_matvec(turn * steps, where)


def in_mm(
    header: Any, affine: np.ndarray, grid: tuple[int, ...], warnings: list[str]
) -> np.ndarray:
    """The affine in mm. Headers say metres or micrometres, and many that do hold mm: what makes a
    patient of the image is believed."""
    name, unit = UNITS.get(int(header["xyzt_units"]) & 7, ("mm", 1.0))
    stated = np.diag([unit, unit, unit, 1]) @ affine
    if unit == 1 or of_a_patient(grid, stated) or not of_a_patient(grid, affine):
        return stated
    size = " x ".join(f"{n:.3g}" for n in np.linalg.norm(stated[:3, :3], axis=0))
    warnings.append(f"UNITS: the header says {name}, which makes voxels of {size} mm; taken as mm")
    return affine


def sheared(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3)


def scaling_of(header: Any, warnings: list[str]) -> tuple[float, float]:
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        if slope != 0 or inter != 0:
            warnings.append(
                f"SCALING: scl_slope {slope:g}, scl_inter {inter:g}; values are taken unscaled"
            )
        return 1.0, 0.0
    if not np.isfinite(inter):
        warnings.append(f"SCALING: scl_inter {inter:g} is ignored")
        inter = 0.0
    return slope, inter
