"""Display copies for the case page: cropped, in few bits, as NIfTI inside base64.

What they lose is said in words. The anomaly map becomes one byte per voxel that loses nothing the
page asks for: code = how many of 255 thresholds the voxel exceeds. "Above the j-th threshold" is
then exactly ``code > j``, and the stored threshold is one of them.
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.preprocessing.levels import WINDOWS, window_range

if TYPE_CHECKING:
    from pseudohealthy.detection.finding import Finding

LEVELS = 255
# Slider positions below the threshold; maps that reach beyond 12.75 times it end there.
LEAST_STEPS = 20
HU_RANGE = (-1024, 3071)  # of a 12-bit scanner
MARGIN = 8  # voxels kept around the foreground
FACTORS = (1, 2, 3, 4, 6, 8, 12, 16)
PRESETS = ("brain", "subdural", "bone")


@dataclass
class Display:
    """Copies of the volumes of one case.

    Args:
        volumes: name -> base64 of a gzipped NIfTI-1 file.
        shape: (D, H, W) of the copies.
        origin: first (plane, row, column) kept.
        factor: native pixels per pixel shown, in the plane.
        affine: (4, 4), index (d, h, w, 1) of the copy -> RAS+ mm.
        notes: what was left out.
    """

    volumes: dict[str, str]
    shape: tuple[int, int, int]
    origin: tuple[int, int, int]
    factor: int
    affine: np.ndarray
    notes: list[str] = field(default_factory=list)

    @property
    def megabytes(self) -> float:
        """Size of all volumes in base64."""
        return sum(map(len, self.volumes.values())) / 1e6


def display(
    finding: Finding, truth: np.ndarray | None, window: tuple[float, float], room: float
) -> Display:
    """Copy input, twin, map (codes) and reference (D, H, W), as fine as the room allows.

    Args:
        finding: the case.
        truth: its reference, or None.
        window: (low, high) of the pictures.
        room: megabytes of base64.
    """
    notes = []
    scan = finding.scan
    if len(scan.voxels) > 1:
        notes.append(f"channel 1 of {len(scan.voxels)} is shown")
    rows, columns = _box(finding, truth)
    if (rows.stop - rows.start, columns.stop - columns.start) != scan.shape[2:]:
        notes.append("cropped to the foreground")
    place = (slice(None), rows, columns)
    image, healthy, encode = _encoder(finding, window, notes)
    codes = np.searchsorted(thresholds(finding), finding.map[place], side="left").astype(np.uint8)
    reference = (
        None
        if truth is None
        else (np.asarray(truth).reshape(finding.map.shape)[place] > 0).astype(np.uint8)
    )
    bytes_each = 3 + 2 * (scan.units == "HU")
    for factor in FACTORS:
        is_coarsest = factor == FACTORS[-1]
        # hopeless: gzip saves a factor of 2 to 5.
        if not is_coarsest and codes.size * bytes_each / factor**2 > 8e6 * room:
            continue
        affine = _affine(scan.affine, (0, rows.start, columns.start), factor)
        volumes = {
            "image": encode(_mean(image[place], factor), affine),
            "healthy": encode(_mean(healthy[place], factor), affine),
            "map": nifti64(_most(codes, factor), affine),
        }
        if reference is not None:
            volumes["truth"] = nifti64(_most(reference, factor), affine)
        if is_coarsest or sum(map(len, volumes.values())) <= 1e6 * room:
            break
    if factor > 1:
        notes.append(
            f"pictures at 1/{factor} of the resolution in the plane; volumes are counted in the"
            " full map"
        )
    depth, height, width = _most(codes, factor).shape
    return Display(
        volumes, (depth, height, width), (0, rows.start, columns.start), factor, affine, notes
    )


def thresholds(finding: Finding) -> np.ndarray:
    """Return (255,) thresholds rising from 0, evenly spaced, up to the map's maximum, as float64.

    The finding's own threshold is one of them.
    """
    peak, stored = float(finding.map.max()), finding.threshold
    if stored is None or stored <= 0:
        return np.arange(LEVELS) * ((peak if peak > 0 else 1.0) / (LEVELS - 1))
    below = int(np.clip((LEVELS - 1) * stored / max(peak, stored), LEAST_STEPS, LEVELS - 1))
    steps = np.arange(LEVELS) * (stored / below)
    steps[below] = stored
    return steps


def counts(finding: Finding) -> list[int]:
    """Count the voxels of the full map above each of `thresholds`."""
    ordered = np.sort(finding.map, axis=None)
    return (ordered.size - np.searchsorted(ordered, thresholds(finding), side="right")).tolist()


def presets(finding: Finding, start: tuple[float, float]) -> list[dict[str, Any]]:
    """Return windows by name, the first one ``start``.

    The others are brain, subdural and bone for HU, else percentiles of the foreground.
    """
    image = finding.scan.voxels[0]
    if finding.scan.units == "HU":
        further = {name: window_range(name) for name in PRESETS}
        further |= {
            f"{name} ({WINDOWS[name][0]:g}/{WINDOWS[name][1]:g})": further.pop(name)
            for name in PRESETS
        }
    else:
        inside = image[finding.foreground] if finding.foreground.any() else image
        further = {
            f"{low:g} to {high:g} %": tuple(np.percentile(inside, (low, high)).tolist())
            for low, high in ((1, 99), (5, 95), (0, 100))
        }
    file_window = finding.scan.display
    if file_window is not None and file_window != start:
        further["as the file says"] = file_window
    windows = {"as the picture": start, **further}
    return [
        {"name": name, "low": low, "high": high}
        for name, (low, high) in windows.items()
        if high > low
    ]


def nifti64(
    volume: np.ndarray, affine: np.ndarray, slope: float = 1.0, intercept: float = 0.0
) -> str:
    """Encode (D, H, W) uint8 or int16 as base64 of NIfTI-1, columns first.

    The header holds geometry and scaling, no text. ``affine`` is of index (d, h, w, 1) -> RAS+ mm.
    """
    from nibabel.nifti1 import Nifti1Header

    world = affine[:, [2, 1, 0, 3]]
    header = Nifti1Header(endianness="<")
    header.set_data_dtype(volume.dtype)
    header.set_data_shape(volume.shape[::-1])
    header.set_zooms(np.linalg.norm(world[:3, :3], axis=0))
    header.set_sform(world, code=1)
    header.set_slope_inter(slope, intercept)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352  # the header's 348 bytes and 4 that say there is no extension
    raw = (
        header.binaryblock
        + bytes(4)
        + np.ascontiguousarray(volume, volume.dtype.newbyteorder("<")).tobytes()
    )
    return base64.b64encode(gzip.compress(raw, 4, mtime=0)).decode()


def _encoder(
    finding: Finding, window: tuple[float, float], notes: list[str]
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return input, twin and the function that encodes them.

    It keeps whole HU, or 256 steps over what the windows can show.
    """
    image, healthy = finding.scan.voxels[0], np.asarray(finding.healthy)[0]
    if finding.scan.units == "HU":

        def whole(volume: np.ndarray, affine: np.ndarray) -> str:
            return nifti64(np.clip(np.rint(volume), *HU_RANGE).astype(np.int16), affine)

        return image, healthy, whole
    inside = image[finding.foreground] if finding.foreground.any() else image
    low, high = (float(v) for v in np.percentile(inside, (0.1, 99.9)))
    low, high = min(low, window[0]), max(high, window[1])
    if image.min() >= 0 and image.max() <= 255 and image.max() > 1:
        low, high = 0.0, 255.0  # an 8-bit picture is shown as it is
    else:
        notes.append("256 grey levels")
    step = (high - low) / 255 or 1.0

    def scaled(volume: np.ndarray, affine: np.ndarray) -> str:
        return nifti64(
            np.clip(np.rint((volume - low) / step), 0, 255).astype(np.uint8), affine, step, low
        )

    return image, healthy, scaled


def _box(finding: Finding, truth: np.ndarray | None) -> tuple[slice, slice]:
    """Return rows and columns with foreground, anything above 0, or reference, and a margin."""
    area = np.logical_or(finding.foreground, finding.map > 0).any(0)
    if truth is not None:
        area = area | (np.asarray(truth).reshape(finding.map.shape) > 0).any(0)
    bounds = []
    for axis, length in ((1, area.shape[0]), (0, area.shape[1])):
        hits = np.flatnonzero(area.any(axis))
        start, end = (0, length) if not hits.size else (int(hits[0]), int(hits[-1]) + 1)
        bounds.append(slice(max(0, start - MARGIN), min(length, end + MARGIN)))
    return bounds[0], bounds[1]


def _affine(affine: np.ndarray | None, origin: tuple[int, int, int], factor: int) -> np.ndarray:
    """Return the affine of the cropped and shrunk copy; without geometry unit steps, rows
    downwards."""
    if affine is None:
        affine = np.array([[0, 0, 1, 0], [0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    shift = np.eye(4)
    shift[:3, 3] = np.add(origin, (0, (factor - 1) / 2, (factor - 1) / 2))
    return np.asarray(affine, np.float64) @ shift @ np.diag([1.0, factor, factor, 1.0])


def _blocks(volume: np.ndarray, factor: int) -> np.ndarray:
    depth, height, width = volume.shape
    padded = np.pad(volume, ((0, 0), (0, -height % factor), (0, -width % factor)), mode="edge")
    return padded.reshape(depth, padded.shape[1] // factor, factor, -1, factor)


def _mean(volume: np.ndarray, factor: int) -> np.ndarray:
    return volume if factor == 1 else _blocks(volume, factor).mean((2, 4))


def _most(volume: np.ndarray, factor: int) -> np.ndarray:
    return volume if factor == 1 else _blocks(volume, factor).max((2, 4))
