"""Where the slices of a DICOM volume lie: one regular grid, or a refusal that says what is wrong
with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import Fault
from pseudohealthy.io.dicom_header import number, numbers, parallel
from pseudohealthy.io.dicom_pixels import rescaled

# How far a slice may lie from the regular grid, as shares of the slice distance and in mm: headers
# are often rounded to 0.1 mm. A missing or doubled slice is off by far more.
REGULAR, ROUNDED, ROUNDED_MM = 0.1, 0.25, 0.1
DEFAULT_THICKNESS = 1.0  # mm
COPY = 0.01  # mm; slices nearer to each other than this lie at one position


@dataclass
class Slice:
    """A slice or frame before it is placed. ds: its header, a pydicom data set or a mapping with
    the same keywords."""

    path: Path
    ds: Any
    frame: int | None = None
    position: np.ndarray = field(default_factory=lambda: np.zeros(3))  # mm, LPS
    along: float = 0.0  # mm, projection on the normal

    @property
    def name(self) -> str:
        return self.path.name if self.frame is None else f"{self.path.name} frame {self.frame + 1}"


def located(slices: list[Slice]) -> tuple[list[Slice], np.ndarray, np.ndarray, np.ndarray]:
    """Slices sorted along the normal, unit vectors along a row and down a column (LPS), spacing
    (rows, columns).

    Raises Fault NO_GEOMETRY, BAD_SPACING, MIXED_ORIENTATION, IRREGULAR.
    """
    orientation = spacing = np.zeros(0)
    for one in slices:
        values = {}
        for key, count in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
            ("PixelSpacing", 2),
        ):
            told = numbers(one.ds, key, count)
            if told is None:
                raise Fault(
                    "NO_GEOMETRY",
                    f"{one.name} has no usable {key}",
                    "export the series with its geometry",
                )
            values[key] = told
        axes, size = values["ImageOrientationPatient"], values["PixelSpacing"]
        if min(size) <= 0:
            raise Fault(
                "BAD_SPACING", f"{one.name} has PixelSpacing {size.tolist()}", "export again"
            )
        lengths = np.linalg.norm(axes[:3]), np.linalg.norm(axes[3:])
        if not np.allclose(lengths, 1, atol=1e-2) or abs(axes[:3] @ axes[3:]) > 1e-2:
            raise Fault(
                "NO_GEOMETRY",
                f"{one.name}: ImageOrientationPatient is not orthonormal",
                "export it again",
            )
        if not len(orientation):
            orientation, spacing = axes, size
        elif not parallel(axes, orientation):
            raise Fault(
                "MIXED_ORIENTATION",
                f"{one.name} has another orientation",
                "separate the localizers",
            )
        elif not np.allclose(size, spacing, rtol=1e-3):
            found = f"{one.name} has another PixelSpacing than {slices[0].name}"
            raise Fault("IRREGULAR", found, "split the series")
        one.position = values["ImagePositionPatient"]
    across, down = (v / np.linalg.norm(v) for v in (orientation[:3], orientation[3:]))
    for one in slices:
        one.along = float(one.position @ np.cross(across, down))
    return sorted(slices, key=lambda s: (s.along, s.path.name, s.frame or 0)), across, down, spacing


def without_copies(
    slices: list[Slice], load: Callable[[Slice], tuple[Any, np.ndarray]], warnings: list[str]
) -> list[Slice]:
    """Each position once: identical pixels are counted, different ones refused (NO_GEOMETRY,
    DUPLICATE_SLICE)."""
    kept = slices[:1]
    copies = 0
    for one in slices[1:]:
        if np.linalg.norm(one.position - kept[-1].position) > COPY:
            kept.append(one)
            continue
        planes = [rescaled(*load(each)) for each in (kept[-1], one)]
        if not np.array_equal(planes[0], planes[1]):
            raise _doubled(slices, kept[-1], one)
        copies += 1
    if copies:
        warnings.append(f"DUPLICATE n={copies}: identical slices at one position are used once")
    return kept


def _doubled(slices: list[Slice], a: Slice, b: Slice) -> Fault:
    positions = np.array([s.position for s in slices])
    if np.ptp(positions, axis=0).max() <= COPY and (len(slices) > 2 or not positions.any()):
        where = ", ".join(f"{v:g}" for v in positions[0])
        found = f"all {many(len(slices), 'slice')} lie at one position ({where})"
        return Fault("NO_GEOMETRY", found, "export the series with its geometry")
    found = (
        f"{a.name} and {b.name} lie at one position with different pixels, and no attribute tells"
        " their volumes apart"
    )
    return Fault(
        "DUPLICATE_SLICE", found, "remove one of them, or put each volume into a folder of its own"
    )


def regular_step(slices: list[Slice], normal: np.ndarray, warnings: list[str]) -> np.ndarray:
    """The vector (mm, LPS) from one slice to the next. Raises Fault GAP, IRREGULAR."""
    if len(slices) == 1:
        told = (
            abs(number(slices[0].ds, key) or 0.0)
            for key in ("SpacingBetweenSlices", "SliceThickness")
        )
        thickness = next((v for v in told if v), 0.0)
        if not thickness > 0:
            thickness = DEFAULT_THICKNESS
            warnings.append(
                f"THICKNESS: a single slice of unknown thickness is taken as {thickness:g} mm"
            )
        return normal * thickness
    positions = np.array([s.position for s in slices])
    along = np.array([s.along for s in slices])
    gaps = np.diff(along)
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    off = np.linalg.norm(
        positions - (positions[0] + np.arange(len(slices))[:, None] * step), axis=1
    )
    between = float(step @ normal)
    if off.max() > max(REGULAR * between, min(ROUNDED * between, ROUNDED_MM)):
        raise _irregular(positions, gaps, normal)
    tilt = float(np.degrees(np.arccos(np.clip(between / np.linalg.norm(step), -1, 1))))
    if tilt > 0.1:
        warnings.append(
            f"TILT: gantry tilt of {tilt:.1f} degrees; kept as a sheared grid, not resampled"
        )
    return step


def _irregular(positions: np.ndarray, gaps: np.ndarray, normal: np.ndarray) -> Fault:
    usual = float(np.median(gaps))
    multiples = gaps / usual
    whole = np.round(multiples)
    if (np.abs(multiples - whole) < 0.15).all() and whole.min() >= 1 and whole.max() > 1:
        at = int(np.argmax(whole))
        axis = "xyz"[int(np.abs(normal).argmax())]
        missing = positions[at] + (positions[at + 1] - positions[at]) / whole[at]
        where = f"{axis}={missing['xyz'.index(axis)]:.1f}"
        count = int((whole - 1).sum())
        found = f"{many(count, 'slice')} missing at {where} mm (slices are {usual:.3g} mm apart)"
        return Fault("GAP", found, "add the missing slices or split the series")
    distances = f"{gaps.min():.3g} to {gaps.max():.3g} mm"
    return Fault(
        "IRREGULAR",
        f"slice distances vary from {distances}",
        "resample or split the series yourself",
    )
