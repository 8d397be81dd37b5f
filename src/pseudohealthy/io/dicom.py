"""DICOM volumes: slices ordered by where they lie, in rescaled units; irregular ones are refused by
name.

Positions decide everything: never file names, InstanceNumber, SliceThickness or
SpacingBetweenSlices. The frames of an enhanced image are slices like any others
(`io.dicom_frames`), placed by `io.dicom_grid`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.errors import BytesLengthException

from pseudohealthy.counts import many
from pseudohealthy.errors import RESOURCE, USAGE, Fault
from pseudohealthy.io.dicom_frames import frame_heads, is_enhanced
from pseudohealthy.io.dicom_grid import REGULAR, Slice, located, regular_step, without_copies
from pseudohealthy.io.dicom_head import PROJECTIONS
from pseudohealthy.io.dicom_header import Head, is_mosaic
from pseudohealthy.io.dicom_parts import labels, volumes
from pseudohealthy.io.dicom_pixels import (
    MAX_SIDE,
    check_matrix,
    dataset,
    decoded,
    padded,
    quiet,
    require_pixels,
    rescaled,
    stored_values,
    window,
    wrapped,
)
from pseudohealthy.io.orientation import turned
from pseudohealthy.io.origins import DicomOrigin
from pseudohealthy.io.scan import Scan, finite
from pseudohealthy.io.source import Source

__all__ = ["LPS_TO_RAS", "REGULAR", "read"]

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# What pydicom raises at header values of the wrong kind, which it parses when they are used.
DAMAGE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError)


def load(source: Source, *, mask: bool, **how: Any) -> Scan:
    """The volume of a source, see `formats.Format`."""
    return read(source.paths, item=source.item, **how)


def read(
    paths: Sequence[Path],
    *,
    plane: str = "axial",
    max_voxels: int = 512_000_000,
    assume_spacing: float | None = None,
    item: int | None = None,
) -> Scan:
    """One volume, its planes cut along the patient's axes as of a NIfTI file; CT in HU.

    Args:
        plane: see `io.orientation.PLANES`; "native": as acquired, ascending along the normal of
            the first slice.
        assume_spacing: mm between pixels where a slice does not say, with a warning.
        item: which volume of a multi-frame image, from 0, in the order in which `series.group`
            lists them.

    A gantry tilt is kept in the affine and warned about. Raises Fault TRUNCATED_SLICE, BAD_DIMS,
    BAD_HEADER, NO_GEOMETRY, GAP, IRREGULAR, DUPLICATE_SLICE, COLOUR, CODEC, RESCALE, MOSAIC,
    TOO_LARGE (exit 7), SEVERAL (exit 2).
    """
    paths = list(paths)
    if not paths:
        raise Fault("NO_INPUT", "an empty DICOM series", "give its files")
    try:
        with quiet():
            first = dataset(paths[0], header_only=True)
            modality = str(first.get("Modality", ""))
            if is_mosaic(first):
                found = (
                    f"{paths[0].name} holds the slices of a volume as tiles of one picture (mosaic)"
                )
                raise Fault(
                    "MOSAIC", found, "convert the series with dcm2niix and give the NIfTI file"
                )
            if is_enhanced(first):
                scan = _enhanced(paths, modality, max_voxels, item)
            elif modality in PROJECTIONS:
                scan = _radiograph(paths, modality)
            else:
                scan = _series(paths, modality, max_voxels, assume_spacing)
    except (
        *DAMAGE,
        BytesLengthException,
    ) as error:  # values of a header are parsed when they are used
        found = (
            f"{paths[0].name} or a slice beside it has a header value of the wrong kind"
            f" ({type(error).__name__})"
        )
        raise Fault("BAD_HEADER", found, "export the series again") from None
    if scan.affine is None or plane == "native":
        return scan
    way = ("sagittal", "coronal", "axial")[int(np.abs(scan.affine[:3, 0]).argmax())]
    if way != plane and scan.shape[1] > 1:
        cut = f"they are cut {plane}, as of a NIfTI file, and results are written as acquired"
        scan.warnings.append(f"PLANE: the planes were acquired {way}, not {plane}; {cut}")
    return turned(scan, plane)


def _series(
    paths: list[Path], modality: str, max_voxels: int, assume_spacing: float | None
) -> Scan:
    warnings: list[str] = []
    headers = [(path, dataset(path, header_only=True)) for path in paths]
    bare = [ds for _, ds in headers if not ds.get("PixelSpacing")] if assume_spacing else []
    for ds in bare:
        ds.PixelSpacing = [assume_spacing, assume_spacing]
    if bare:
        warnings.append(
            f"ASSUMED n={len(bare)}: slices without PixelSpacing, taken as {assume_spacing:g} mm;"
            " volumes are a guess"
        )
    check_matrix(headers)
    rows, columns = int(headers[0][1].Rows), int(headers[0][1].Columns)
    if len(headers) * rows * columns > max_voxels:
        size = f"{len(headers)} x {rows} x {columns}"
        raise Fault(
            "TOO_LARGE", f"a series of {size} voxels", f"the limit is {max_voxels}", exit=RESOURCE
        )
    commas = sorted({key for _, ds in headers for key in getattr(ds, "decimal_commas", ())})
    if commas:
        warnings.append(f"DECIMAL_COMMA: {', '.join(commas)} with a decimal comma, read as a point")

    def load(one: Slice) -> tuple[Any, np.ndarray]:
        ds = dataset(one.path)
        return ds, stored_values(one.path, ds)

    slices = [Slice(path, ds) for path, ds in headers]
    scan, slices = _volume(slices, load, (rows, columns), warnings)
    middle = slices[len(slices) // 2].ds
    scan.display = window(middle)
    scan.name = paths[0].stem
    return scan


def _volume(
    slices: list[Slice],
    load: Callable[[Slice], tuple[Any, np.ndarray]],
    matrix: tuple[int, int],
    warnings: list[str],
) -> tuple[Scan, list[Slice]]:
    """Slices as a scan, and in the order of its planes. load: a slice's header and stored values
    (rows, columns)."""
    slices, across, down, spacing = located(slices)
    slices = without_copies(slices, load, warnings)
    step = regular_step(slices, np.cross(across, down), warnings)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = down * spacing[0]
    affine[:3, 2] = across * spacing[1]
    affine[:3, 3] = slices[0].position
    voxels, padding, repaired = np.empty(0, np.float32), np.zeros(0, bool), 0
    for index, one in enumerate(slices):
        ds, stored = load(one)
        if not index:  # only now, when a slice has as many pixels as its header says
            voxels = np.empty((1, len(slices), *matrix), np.float32)
            padding = np.zeros(voxels.shape, bool)
        padding[0, index] = padded(ds, stored)
        voxels[0, index] = rescaled(ds, stored)
        repaired += wrapped(ds)
    middle = slices[len(slices) // 2].ds
    if padding.any() and not padding.all():
        voxels[padding] = voxels[~padding].min()
        warnings.append(f"PADDING n={int(padding.sum())}: padded pixels take the lowest real value")
    modality = str(middle.get("Modality") or "")
    units = _units(middle, modality, repaired, warnings)
    origin = DicomOrigin(tuple(s.path for s in slices), modality)
    voxels = finite(voxels, warnings)
    return (
        Scan(voxels, LPS_TO_RAS @ affine, slices[0].path.stem, "dicom", units, origin, warnings),
        slices,
    )


def _units(ds: Any, modality: str, repaired: int, warnings: list[str]) -> str:
    """HU or "", with a warning where Hounsfield units are taken on trust."""
    units = "HU" if modality == "CT" and str(ds.get("RescaleType") or "HU").upper() == "HU" else ""
    if units and ds.get("RescaleIntercept") is None:
        warnings.append("NO_RESCALE: CT without RescaleIntercept; stored values are taken as HU")
    elif repaired:
        warnings.append(
            f"HU_REPAIRED n={repaired}: 12-bit unsigned slices with an intercept near 0 are read as"
            " wrapped HU"
        )
    elif units and not ds.get("PixelRepresentation") and float(ds.get("RescaleIntercept")) > -100:
        warnings.append(
            "HU_SUSPECT: unsigned CT values with an intercept near 0; air may not be -1000"
        )
    return units


def _radiograph(paths: list[Path], modality: str) -> Scan:
    """A projection image: no patient geometry; MONOCHROME1 is turned round so that bright is dense
    everywhere."""
    if len(paths) > 1:
        raise Fault(
            "SEVERAL", f"{len(paths)} radiographs are not one volume", "give one file at a time"
        )
    ds = dataset(paths[0])
    warnings: list[str] = []
    stored = stored_values(paths[0], ds)
    padding = padded(ds, stored)
    inverted = ds.get("PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        bits = int(ds.get("BitsStored") or 16)
        stored = (-1 if int(ds.get("PixelRepresentation") or 0) else 2**bits - 1) - stored.astype(
            np.int64
        )
        warnings.append("INVERTED: MONOCHROME1 radiograph, grey levels turned round once")
    voxels = rescaled(ds, stored).astype(np.float32)
    if padding.any() and not padding.all():
        voxels[padding] = voxels[~padding].min()
    origin = DicomOrigin((paths[0],), modality)
    voxels = finite(voxels[None, None], warnings)
    return Scan(
        voxels, None, paths[0].stem, "dicom", "", origin, warnings, None if inverted else window(ds)
    )


def _enhanced(paths: list[Path], modality: str, max_voxels: int, item: int | None) -> Scan:
    """One volume of a multi-frame CT, MR or PET image, or of several that hold a frame each."""
    warnings: list[str] = []
    sets = {path: dataset(path) for path in paths}
    first = sets[paths[0]]
    rows, columns = int(first.get("Rows") or 0), int(first.get("Columns") or 0)
    if max(rows, columns) > MAX_SIDE:
        raise Fault(
            "BAD_DIMS", f"{paths[0].name} declares {rows} x {columns} pixels", "export it again"
        )
    check_matrix(list(sets.items()))
    total = sum(int(ds.get("NumberOfFrames") or 1) for ds in sets.values())
    if rows * columns * total > max_voxels:
        raise Fault(
            "TOO_LARGE",
            f"{total} x {rows} x {columns} voxels",
            f"the limit is {max_voxels}",
            exit=RESOURCE,
        )
    heads: list[Head] = []
    told: dict[Head, dict[Any, Any]] = {}
    for path, ds in sets.items():
        require_pixels(path, ds, rows * columns * int(ds.get("NumberOfFrames") or 1))
        more, frames = frame_heads(path, ds)
        heads += more
        told.update(zip(more, frames, strict=True))
        described = len(ds.get("PerFrameFunctionalGroupsSequence") or [])
        if described > len(frames):
            warnings.append(
                f"FRAMES: {path.name} counts {len(frames)} frames and describes {described}"
            )
    chosen = _chosen(heads, item, paths[0])

    def load(one: Slice) -> tuple[Any, np.ndarray]:
        return one.ds, decoded(one.path, sets[one.path], one.frame)

    slices = [Slice(head.path, told[head], head.frame) for head in chosen]
    scan, slices = _volume(slices, load, (rows, columns), warnings)
    if len(paths) == 1:
        scan.origin.paths = (paths[0],)
        scan.origin.frames = tuple((one.frame or 0) + 1 for one in slices)
    return scan


def _chosen(heads: list[Head], item: int | None, path: Path) -> list[Head]:
    parts = volumes(heads)
    if item is None and len(parts) > 1:
        names = ", ".join(labels(parts)[:5]) + (", ..." if len(parts) > 5 else "")
        found = f"{path.name} holds {many(len(parts), 'volume')}: {names}"
        raise Fault("SEVERAL", found, f"name one as {path.name}#0 to #{len(parts) - 1}", exit=USAGE)
    if item is not None and not 0 <= item < len(parts):
        raise Fault("ITEM", f"volume {item} of {len(parts)}", "counting starts at 0", exit=USAGE)
    return parts[item or 0]
