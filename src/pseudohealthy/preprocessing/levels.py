"""Which grey levels of a scan become -1 and +1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.errors import NO_INPUT, USAGE, Fault

if TYPE_CHECKING:
    from pseudohealthy.io.scan import Scan
    from pseudohealthy.preprocessing.canvas import Canvas

# centre, width in HU
WINDOWS: dict[str, tuple[float, float]] = {
    "brain": (40, 80),
    "subdural": (80, 200),
    "bone": (600, 2800),
    "stroke": (40, 40),
}
# Range of grey levels; beyond, float32 arithmetic gives 0 and infinity.
SMALLEST, LARGEST = (1e-30, 1e30)
HIGHEST_HU = 100_000  # of a window's centre and width


def wrong(key: str, value: Any, cure: str) -> Fault:
    """The fault of a canvas setting that contradicts another one or itself."""
    return Fault("RECIPE", f"canvas.{key} = {value}", cure, exit=USAGE)


def window_range(window: str) -> tuple[float, float]:
    """Lowest and highest HU of a window, by name or as "centre/width"."""
    try:
        centre, width = WINDOWS[window] if window in WINDOWS else map(float, window.split("/"))
    except ValueError:
        centre, width = 0.0, 0.0
    if not (abs(centre) <= HIGHEST_HU and 0 < width <= HIGHEST_HU):
        raise wrong("windows", [window], f"use centre/width in HU, or one of {', '.join(WINDOWS)}")
    return centre - width / 2, centre + width / 2


def levels(
    canvas: Canvas, scan: Scan, voxels: np.ndarray, inside: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest value of each channel, in the scan's units.

    Args:
        canvas: States how grey levels are computed.
        scan: For its origin and name.
        voxels: (C, D, H, W).
        inside: (D, H, W) bool, the foreground.

    Raises:
        Fault: WINDOW, CONSTANT_IMAGE or RANGE.
    """
    if canvas.windows_a_picture(scan):
        if len(canvas.windows) > 1:
            message = f"a picture has no HU, so it has no {len(canvas.windows)} windows"
            raise Fault(
                "WINDOW", message, "give the DICOM series, or a run of one window", case=scan.name
            )
        pairs = [(0.0, float(np.iinfo(scan.origin.dtype).max))]
    elif canvas.normalise == "window":
        pairs = [window_range(window) for window in canvas.windows]
    elif canvas.normalise in ("range", "unit"):
        pairs = [(0.0, 1.0) if canvas.normalise == "unit" else canvas.value_range] * len(voxels)
    else:
        pairs = []
        for values in voxels:
            reference = values[inside] if inside.sum() >= 16 else values.ravel()
            if canvas.normalise == "deviations":
                mean = float(values.mean(dtype=np.float64))
                spread = float(values.std(dtype=np.float64))
                low, high = (mean + factor * spread for factor in canvas.deviations)
            else:
                low, high = (float(level) for level in np.percentile(reference, canvas.percentiles))
            if canvas.normalise == "upper":
                low = min(0.0, float(values.min()))
                high = max(low, high)
            if low == high:  # nearly two-valued images: their own range
                low, high = float(values.min()), float(values.max())
            if low == high:
                raise Fault(
                    "CONSTANT_IMAGE",
                    f"every value is {low:g}",
                    "leave this image out",
                    exit=NO_INPUT,
                    case=scan.name,
                )
            pairs.append((low, high))
    for low, high in pairs:
        if not SMALLEST < high - low < LARGEST:
            message = f"grey levels from {low:.3g} to {high:.3g}"
            raise Fault(
                "RANGE",
                message,
                "bring the image to usual units first",
                exit=NO_INPUT,
                case=scan.name,
            )
    return tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
