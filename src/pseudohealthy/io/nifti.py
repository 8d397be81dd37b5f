"""NIfTI-1 and -2: read by content, refused rather than guessed, written back on the very grid they
came on.

Header and data are parsed here with nibabel's header classes, because a truncated file, a lying
header or a gzip bomb has to be noticed before memory is taken.
"""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np

from pseudohealthy.errors import RESOURCE, Fault
from pseudohealthy.io.atomic import atomic
from pseudohealthy.io.nifti_header import (
    NO_ORIENTATION,
    affine_of,
    dtype_of,
    read_header,
    scaling_of,
    shape_of,
    sheared,
)
from pseudohealthy.io.nifti_stream import fill, is_gzip, opened, take
from pseudohealthy.io.orientation import PLANES, turn_to
from pseudohealthy.io.scan import Scan, as_float, finite
from pseudohealthy.io.source import Source
from pseudohealthy.io.turn import Turn, acquired

# A volume above this size that shrank more than this is refused.
GZIP_RATIO, GZIP_FREE = (200, 256 * 2**20)
BLOCK = 2**24  # bytes that are reserved for voxels before any has been seen


@dataclass
class NiftiOrigin:
    """How the stored array became (D, H, W): out axis a is stored axis `axes[a]`, reversed where
    `flips[a]`."""

    header: Any
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    stored_shape: tuple[int, ...]
    plane: str


def read(
    path: Path, *, plane: str = "axial", max_voxels: int = 512_000_000, item: int | None = None
) -> Scan:
    """One 3-D (or 2-D) image in canonical order for `plane`; see PLANES. "native": last axis =
    planes, no flips.
    item: which volume of a 4-D series, from 0.

    Raises Fault: EMPTY_FILE, NOT_NIFTI, TRUNCATED, BAD_DIMS, BAD_SPACING, BAD_AFFINE, DTYPE, IS_4D,
    TOO_LARGE (exit 7), NONFINITE. Files without an orientation, with disagreeing or sheared forms
    are read with a warning.
    """
    if plane != "native" and plane not in PLANES:
        raise Fault(
            "PLANE", f"unknown plane '{plane}'", f"choose {', '.join(PLANES)} or native", exit=2
        )
    warnings: list[str] = []
    with opened(path) as stream:
        header, text = read_header(stream)
        if text:
            warnings.append(
                "HEADER_TEXT: descriptive header text is present; it is not copied to outputs"
            )
        shape = shape_of(header)
        if np.prod(shape, dtype=object) > max_voxels:
            size = " x ".join(map(str, shape))
            raise Fault(
                "TOO_LARGE",
                f"the header declares {size} voxels",
                f"the limit is {max_voxels}",
                exit=RESOURCE,
            )
        count = int(np.prod(shape[3:]))
        if item is not None and not (len(shape) == 4 and 0 <= item < count):
            raise Fault(
                "ITEM",
                f"volume {item} of {count if len(shape) > 3 else 1}",
                "counting starts at 0",
                exit=2,
            )
        if count > 1 and item is None:
            cure = (
                "name one volume as FILE#0, FILE#1, ..."
                if len(shape) == 4
                else "split it into volumes"
            )
            raise Fault("IS_4D", f"a series of volumes {' x '.join(map(str, shape))}", cure)
        dtype = dtype_of(header)
        affine = affine_of(header, shape, warnings)
        data = _data(path, stream, header, shape, dtype)
    if item is not None:
        data, shape = data[..., item], shape[:3]
    if is_gzip(path) != (path.suffix.lower() == ".gz"):
        warnings.append("SUFFIX: compression does not match the file name; read by content")
    slope, inter = scaling_of(header, warnings)
    voxels = data.astype(np.float64) * slope + inter if (slope, inter) != (1, 0) else data
    voxels = as_float(voxels, warnings).reshape((*shape, 1)[:3])
    voxels = finite(voxels, warnings)
    scan = arranged(voxels[None], affine, plane, warnings)
    scan.name = path.name.split(".")[0]
    scan.origin.header, scan.origin.stored_shape = header, shape
    low, high = float(header["cal_min"]), float(header["cal_max"])
    scan.display = (low, high) if np.isfinite([low, high]).all() and high > low else None
    return scan


def arranged(voxels: np.ndarray, affine: np.ndarray, plane: str, warnings: list[str]) -> Scan:
    """A scan of voxels (C, I, J, K) in the canonical order for `plane`, with a new header.

    Args:
        affine: index (i, j, k, 1) -> RAS+ mm.
    """
    shape = voxels.shape[1:]
    turn = (
        Turn((2, 0, 1), (False, False, False))
        if plane == "native"
        else turn_to(plane, affine, shape)
    )
    voxels = np.ascontiguousarray(turn.there(voxels))
    origin = NiftiOrigin(_new_header(affine), turn.axes, turn.flips, shape, plane)
    return Scan(
        voxels, affine @ turn.to_stored(shape), "array", "nifti", origin=origin, warnings=warnings
    )


def load(source: Source, *, plane: str, max_voxels: int, **_: Any) -> Scan:
    """The volume of a source, see `formats.Format`."""
    return read(source.paths[0], plane=plane, max_voxels=max_voxels, item=source.item)


def save(array: np.ndarray, scan: Scan, folder: Path, stem: str) -> Path:
    """Results of any scan that has a place in the patient, see `formats.Format`: with the header of
    a NIfTI input, else with a new one."""
    array, scan = acquired(array, scan)
    path = folder / f"{stem}.nii.gz"
    if isinstance(scan.origin, NiftiOrigin):
        return write(array, scan.origin, path, array.dtype)
    assert scan.affine is not None
    return write_on_affine(array, scan.affine, path, array.dtype)


def write(array: np.ndarray, origin: NiftiOrigin, path: Path, dtype: Any) -> Path:
    """(D, H, W) or (C, D, H, W) on the stored grid, with the stored header: shape, both forms,
    codes, units, zooms."""
    channels = array if array.ndim == 4 else array[None]
    channels = np.flip(channels, tuple(1 + a for a in range(3) if origin.flips[a]))
    stored = channels.transpose(0, *(1 + int(a) for a in np.argsort(origin.axes)))
    if len(stored) == 1:
        stored = stored.reshape(origin.stored_shape)
    else:
        stored = np.moveaxis(stored, 0, -1)
    header = origin.header.copy()
    for key in ("descrip", "aux_file", "db_name", "intent_name"):  # free text may name a patient
        if key in header:
            header[key] = b""
    header["cal_min"] = header["cal_max"] = 0
    header["intent_code"] = 0
    header.set_data_dtype(dtype)
    return _save(stored, header.get_best_affine(), header, path, dtype)


def write_on_affine(array: np.ndarray, affine: np.ndarray, path: Path, dtype: Any) -> Path:
    """(D, H, W) or (C, D, H, W) as a new NIfTI with i = columns, j = rows, k = planes, for DICOM
    and bare arrays."""
    stored = (array if array.ndim == 4 else array[None]).transpose(3, 2, 1, 0)
    stored = stored[..., 0] if stored.shape[3] == 1 else stored
    affine = affine[:, [2, 1, 0, 3]]
    header = _new_header(affine)
    header.set_data_dtype(dtype)
    header.set_data_shape(stored.shape)
    return _save(stored, affine, header, path, dtype)


def header_of(image: Any, warnings: list[str]) -> Any:
    """The header of an image of nibabel for outputs: its own where it is NIfTI's and agrees with
    the image's affine, which may have been changed since."""
    header = image.header.copy()
    if not isinstance(header, nib.Nifti1Header):
        header = _new_header(np.eye(4) if image.affine is None else image.affine)
    elif not (header["sform_code"] or header["qform_code"]):
        warnings.append(NO_ORIENTATION)
    elif image.affine is not None and not np.allclose(header.get_best_affine(), image.affine):
        header.set_sform(image.affine, code=2)
        header.set_qform(image.affine, code=0)
    return header


def _new_header(affine: np.ndarray) -> Any:
    header = nib.Nifti1Header()
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=0 if sheared(affine) else 1)
    header.set_xyzt_units("mm")
    return header


def _save(stored: np.ndarray, affine: np.ndarray, header: Any, path: Path, dtype: Any) -> Path:
    image = (nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image)(
        stored, affine, header
    )
    image.header.set_slope_inter(1, 0)
    with atomic(path) as tmp:
        nib.save(image, tmp)
    return path


def _data(
    path: Path, stream: BinaryIO, header: Any, shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    pair = header["magic"].tobytes()[:2] == b"ni"
    offset = float(header["vox_offset"])
    start = 0 if pair and not np.isfinite(offset) else int(offset) if np.isfinite(offset) else -1
    if not (0 if pair else header.sizeof_hdr) <= start <= GZIP_FREE:
        raise Fault("BAD_DIMS", f"the header puts the data at byte {offset:g}", "repair vox_offset")
    got = 0
    with contextlib.ExitStack() as stack:
        if pair:
            found = [
                path.with_name(path.name.split(".hdr")[0] + ending)
                for ending in (".img", ".img.gz")
            ]
            path = next((f for f in found if f.exists()), found[0])
            if not path.exists():
                raise Fault(
                    "NOT_NIFTI",
                    f"a header without its image file {path.name}",
                    "put both files side by side",
                )
            stream = stack.enter_context(opened(path))
        wanted, on_disk = int(np.prod(shape)) * dtype.itemsize, path.stat().st_size
        if not is_gzip(path):
            if on_disk < start + wanted:
                raise Fault(
                    "TRUNCATED",
                    f"{on_disk} bytes where the header needs {start + wanted}",
                    "copy it again",
                )
        elif wanted > GZIP_FREE and wanted > GZIP_RATIO * on_disk:
            raise Fault(
                "TOO_LARGE",
                f"{on_disk} bytes would inflate to {wanted}",
                "decompress it first",
                exit=RESOURCE,
            )
        with contextlib.suppress(EOFError):
            stream.seek(start, io.SEEK_SET)
        data = np.empty(min(wanted, BLOCK), np.uint8)
        # Grows with what is really there.
        while (got := got + fill(stream, data[got:])) == len(data) < wanted:
            data.resize(min(wanted, 2 * got), refcheck=False)
        if got < wanted:
            raise Fault(
                "TRUNCATED",
                f"{got} bytes of voxels where the header needs {wanted}",
                "copy it again",
            )
        take(stream, 1)  # reaching the end checks the gzip checksum
    return data.view(dtype).reshape(shape, order="F")
