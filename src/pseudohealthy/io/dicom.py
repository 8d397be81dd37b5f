"""DICOM series: slices ordered by where they lie, in rescaled units; irregular series are refused by name.

Positions decide everything: never file names, InstanceNumber, SliceThickness or SpacingBetweenSlices.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.errors import RESOURCE, Fault
from pseudohealthy.io.pixels import (
    MAX_SIDE,
    check_matrix,
    dataset,
    padded,
    quiet,
    require_pixels,
    rescaled,
    stored_values,
    window,
    wrapped,
)
from pseudohealthy.io.series import ENHANCED, PROJECTIONS
from pseudohealthy.scan import Scan, finite

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# How far a slice may lie from the regular grid, as shares of the slice distance and in mm: headers are often rounded to
# 0.1 mm. A missing or doubled slice is off by far more.
REGULAR, ROUNDED, ROUNDED_MM = 0.1, 0.25, 0.1
DEFAULT_THICKNESS = 1.0
# What pydicom raises at header values of the wrong kind, which it parses when they are used.
DAMAGE = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError)


@dataclass
class DicomOrigin:
    """The files in the order of the planes (one file for a multi-frame image) and what was done on reading."""

    paths: tuple[Path, ...]
    modality: str
    inverted: bool = False  # grey levels of a MONOCHROME1 radiograph were turned round
    tilt: float = 0.0  # degrees between the stacking direction and the slice normal


@dataclass
class _Header:
    path: Path
    ds: Any
    position: np.ndarray  # mm, LPS
    along: float  # mm, projection on the normal


def read(
    paths: Sequence[Path],
    *,
    plane: str = "axial",
    max_voxels: int = 512_000_000,
    assume_spacing: float | None = None,
) -> Scan:
    """One series as acquired, planes ascending along the normal of the first slice; CT in HU.

    Raises Fault TRUNCATED_SLICE, BAD_DIMS, BAD_HEADER, NO_GEOMETRY, GAP, IRREGULAR, DUPLICATE_SLICE, COLOUR, CODEC,
    RESCALE, TOO_LARGE (exit 7). assume_spacing: mm between pixels where a slice does not say, with a warning. A gantry tilt is kept in the affine and warned about.
    """
    paths = list(paths)
    if not paths:
        raise Fault("NO_INPUT", "an empty DICOM series", "give its files")
    try:
        with quiet():
            first = dataset(paths[0], header_only=True)
            modality = str(first.get("Modality", ""))
            sop = first.get("SOPClassUID") or first.file_meta.get("MediaStorageSOPClassUID", "")
            if str(sop) in ENHANCED:
                scan = _enhanced(paths, modality, max_voxels)
            elif modality in PROJECTIONS:
                scan = _radiograph(paths, modality)
            else:
                scan = _series(paths, modality, max_voxels, assume_spacing)
    except DAMAGE as error:  # values of a header are parsed when they are used
        found = f"{paths[0].name} or a slice beside it has a header value of the wrong kind ({type(error).__name__})"
        raise Fault("BAD_HEADER", found, "export the series again") from None
    if scan.affine is not None and plane != "native":
        acquired = ("sagittal", "coronal", "axial")[int(np.abs(scan.affine[:3, 0]).argmax())]
        if acquired != plane and scan.shape[1] > 1:
            scan.warnings.append(f"PLANE: the planes were acquired {acquired}, not {plane}; they are used as acquired")
    return scan


def _series(paths: list[Path], modality: str, max_voxels: int, assume_spacing: float | None) -> Scan:
    warnings: list[str] = []
    headers = [(path, dataset(path, header_only=True)) for path in paths]
    bare = [ds for _, ds in headers if not ds.get("PixelSpacing")] if assume_spacing else []
    for ds in bare:
        ds.PixelSpacing = [assume_spacing, assume_spacing]
    if bare:
        warnings.append(
            f"ASSUMED n={len(bare)}: slices without PixelSpacing, taken as {assume_spacing:g} mm; volumes are a guess"
        )
    check_matrix(headers)
    rows, columns = int(headers[0][1].Rows), int(headers[0][1].Columns)
    if len(headers) * rows * columns > max_voxels:
        size = f"{len(headers)} x {rows} x {columns}"
        raise Fault("TOO_LARGE", f"a series of {size} voxels", f"the limit is {max_voxels}", exit=RESOURCE)
    slices, across, down, spacing = _located(headers)
    slices = _without_copies(slices, warnings)
    step, tilt = _step(slices, np.cross(across, down), warnings)
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = down * spacing[0]
    affine[:3, 2] = across * spacing[1]
    affine[:3, 3] = slices[0].position
    voxels, padding, repaired = np.empty(0, np.float32), np.zeros(0, bool), 0
    for index, one in enumerate(slices):
        ds = dataset(one.path)
        stored = stored_values(one.path, ds)
        if not index:  # only now, when a slice has as many pixels as its header says
            voxels = np.empty((1, len(slices), rows, columns), np.float32)
            padding = np.zeros(voxels.shape, bool)
        padding[0, index] = padded(ds, stored)
        voxels[0, index] = rescaled(ds, stored)
        repaired += wrapped(ds)
    middle = slices[len(slices) // 2].ds
    if padding.any() and not padding.all():
        voxels[padding] = voxels[~padding].min()
        warnings.append(f"PADDING n={int(padding.sum())}: padded pixels take the lowest real value")
    units = "HU" if modality == "CT" and str(middle.get("RescaleType") or "HU").upper() == "HU" else ""
    if units and middle.get("RescaleIntercept") is None:
        warnings.append("NO_RESCALE: CT without RescaleIntercept; stored values are taken as HU")
    elif repaired:
        warnings.append(
            f"HU_REPAIRED n={repaired}: 12-bit unsigned slices with an intercept near 0 are read as wrapped HU"
        )
    elif units and not middle.get("PixelRepresentation") and float(middle.RescaleIntercept) > -100:
        warnings.append("HU_SUSPECT: unsigned CT values with an intercept near 0; air may not be -1000")
    origin = DicomOrigin(tuple(s.path for s in slices), modality, tilt=tilt)
    voxels = finite(voxels, warnings)
    return Scan(voxels, LPS_TO_RAS @ affine, paths[0].stem, "dicom", units, origin, warnings, window(middle))


def _located(headers: list[tuple[Path, Any]]) -> tuple[list[_Header], np.ndarray, np.ndarray, np.ndarray]:
    """Slices sorted along the normal, unit vectors along a row and down a column (LPS), spacing (rows, columns)."""
    slices: list[_Header] = []
    across = down = spacing = np.zeros(0)
    for path, ds in headers:
        wanted = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
        values = {}
        for key, count in wanted.items():
            with contextlib.suppress(TypeError, ValueError):
                values[key] = np.array([float(v) for v in ds.get(key) or ()])
            if len(values.get(key, ())) != count or not np.isfinite(values[key]).all():
                raise Fault("NO_GEOMETRY", f"{path.name} has no usable {key}", "export the series with its geometry")
        a, d = values["ImageOrientationPatient"][:3], values["ImageOrientationPatient"][3:]
        lengths = np.linalg.norm(a), np.linalg.norm(d)
        if min(values["PixelSpacing"]) <= 0:
            raise Fault(
                "BAD_SPACING", f"{path.name} has PixelSpacing {values['PixelSpacing'].tolist()}", "export again"
            )
        if not np.allclose(lengths, 1, atol=1e-2) or abs(a @ d) > 1e-2:
            raise Fault("NO_GEOMETRY", f"{path.name}: ImageOrientationPatient is not orthonormal", "export it again")
        if not slices:
            across, down, spacing = a / lengths[0], d / lengths[1], values["PixelSpacing"]
        elif not np.allclose(a, across, atol=2e-3) or not np.allclose(d, down, atol=2e-3):
            raise Fault("MIXED_ORIENTATION", f"{path.name} has another orientation", "separate the localizers")
        elif not np.allclose(values["PixelSpacing"], spacing, rtol=1e-3):
            raise Fault(
                "IRREGULAR", f"{path.name} has another PixelSpacing than {headers[0][0].name}", "split the series"
            )
        position = values["ImagePositionPatient"]
        slices.append(_Header(path, ds, position, float(position @ np.cross(across, down))))
    return sorted(slices, key=lambda s: (s.along, s.path.name)), across, down, spacing


def _without_copies(slices: list[_Header], warnings: list[str]) -> list[_Header]:
    """Each position once: identical pixels are counted, different ones refused."""
    kept = slices[:1]
    copies = 0
    for one in slices[1:]:
        if np.linalg.norm(one.position - kept[-1].position) > 0.01:
            kept.append(one)
            continue
        planes = []
        for path in (kept[-1].path, one.path):
            ds = dataset(path)
            planes.append(rescaled(ds, stored_values(path, ds)))
        if not np.array_equal(planes[0], planes[1]):
            names = f"{kept[-1].path.name} and {one.path.name}"
            raise Fault("DUPLICATE_SLICE", f"{names} lie at one position with different pixels", "split the series")
        copies += 1
    if copies:
        warnings.append(f"DUPLICATE n={copies}: identical slices at one position are used once")
    return kept


def _step(slices: list[_Header], normal: np.ndarray, warnings: list[str]) -> tuple[np.ndarray, float]:
    """The vector (mm, LPS) from one slice to the next, and the tilt in degrees; Fault where there is no such vector."""
    if len(slices) == 1:
        ds = slices[0].ds
        thickness = next((float(v) for k in ("SpacingBetweenSlices", "SliceThickness") if (v := ds.get(k))), 0.0)
        if not thickness > 0:
            thickness = DEFAULT_THICKNESS
            warnings.append(f"THICKNESS: a single slice of unknown thickness is taken as {thickness:g} mm")
        return normal * thickness, 0.0
    positions = np.array([s.position for s in slices])
    along = np.array([s.along for s in slices])
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.linalg.norm(positions - (positions[0] + np.arange(len(slices))[:, None] * step), axis=1)
    between = float(step @ normal)
    if off.max() > max(REGULAR * between, min(ROUNDED * between, ROUNDED_MM)):
        multiples = gaps / usual
        whole = np.round(multiples)
        if (np.abs(multiples - whole) < 0.15).all() and whole.min() >= 1 and whole.max() > 1:
            at = int(np.argmax(whole))
            axis = "xyz"[int(np.abs(normal).argmax())]
            missing = positions[at] + (positions[at + 1] - positions[at]) / whole[at]
            where = f"{axis}={missing['xyz'.index(axis)]:.1f}"
            count = int((whole - 1).sum())
            found = f"{count} slice{'s' * (count > 1)} missing at {where} mm (slices are {usual:.3g} mm apart)"
            raise Fault("GAP", found, "add the missing slices or split the series")
        distances = f"{gaps.min():.3g} to {gaps.max():.3g} mm"
        raise Fault("IRREGULAR", f"slice distances vary from {distances}", "resample or split the series yourself")
    tilt = float(np.degrees(np.arccos(np.clip(between / np.linalg.norm(step), -1, 1))))
    if tilt > 0.1:
        warnings.append(f"TILT: gantry tilt of {tilt:.1f} degrees; kept as a sheared grid, not resampled")
    return step, tilt


def _radiograph(paths: list[Path], modality: str) -> Scan:
    """A projection image: no patient geometry; MONOCHROME1 is turned round so that bright is dense everywhere."""
    if len(paths) > 1:
        raise Fault("SEVERAL", f"{len(paths)} radiographs are not one volume", "give one file at a time")
    ds = dataset(paths[0])
    warnings: list[str] = []
    stored = stored_values(paths[0], ds)
    padding = padded(ds, stored)
    inverted = ds.get("PhotometricInterpretation") == "MONOCHROME1"
    if inverted:
        bits = int(ds.get("BitsStored") or 16)
        stored = (-1 if int(ds.get("PixelRepresentation") or 0) else 2**bits - 1) - stored.astype(np.int64)
        warnings.append("INVERTED: MONOCHROME1 radiograph, grey levels turned round once")
    voxels = rescaled(ds, stored).astype(np.float32)
    if padding.any() and not padding.all():
        voxels[padding] = voxels[~padding].min()
    origin = DicomOrigin((paths[0],), modality, inverted)
    voxels = finite(voxels[None, None], warnings)
    return Scan(voxels, None, paths[0].stem, "dicom", "", origin, warnings, None if inverted else window(ds))


def _enhanced(paths: list[Path], modality: str, max_voxels: int) -> Scan:
    """A multi-frame CT, MR or PET image; highdicom checks that its frames make one regular volume."""
    if len(paths) > 1:
        raise Fault("SEVERAL", f"{len(paths)} multi-frame images", "give one file at a time")
    ds = dataset(paths[0])
    rows, columns, frames = int(ds.get("Rows") or 0), int(ds.get("Columns") or 0), int(ds.get("NumberOfFrames") or 1)
    if max(rows, columns) > MAX_SIDE:
        raise Fault("BAD_DIMS", f"{paths[0].name} declares {rows} x {columns} pixels", "export it again")
    if rows * columns * frames > max_voxels:
        raise Fault("TOO_LARGE", f"{frames} x {rows} x {columns} voxels", f"the limit is {max_voxels}", exit=RESOURCE)
    require_pixels(paths[0], ds, rows * columns * frames)
    import highdicom

    try:
        volume = highdicom.Image.from_dataset(ds, copy=False).get_volume(
            dtype=np.float32, apply_real_world_transform=False, apply_voi_transform=False, apply_presentation_lut=False
        )
    except Exception as error:  # highdicom names what is irregular
        text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise Fault(
            "IRREGULAR", f"{paths[0].name} is not one regular volume ({text})", "split it into series"
        ) from None
    array, affine = np.asarray(volume.array, np.float32), np.array(volume.affine, np.float64)
    if np.cross(affine[:3, 2], affine[:3, 1]) @ affine[:3, 0] < 0:  # planes ascend along the normal, as in a series
        affine[:3, 3] += (len(array) - 1) * affine[:3, 0]
        affine[:3, 0] *= -1
        array = array[::-1]
    warnings: list[str] = []
    voxels = finite(np.array(array)[None], warnings)
    origin = DicomOrigin((paths[0],), modality)
    units = "HU" if modality == "CT" else ""
    return Scan(voxels, LPS_TO_RAS @ affine, paths[0].stem, "dicom", units, origin, warnings)
