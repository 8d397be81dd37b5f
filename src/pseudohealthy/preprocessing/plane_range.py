"""Which planes of a volume are trained on and judged: the third direction of the canvas."""

from __future__ import annotations

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault

SLICES_IN = ("planes", "share", "mm")


def chosen(
    slices: tuple[float, ...], unit: str, inside: np.ndarray, spacing: float | None
) -> np.ndarray:
    """The planes of a volume whose centre lies in a range, (D,) bool.

    A single plane always does, since whoever stored it chose it.

    Args:
        slices: First and last, both included; empty for all planes.
        unit: Of the range: "planes" (position in the order read, from 0), "share" (of the volume's
            extent, 0..1; at least the plane nearest to the middle of the range) or "mm" (from the
            middle of the foreground).
        inside: The foreground (D, H, W).
        spacing: Distance of the planes in mm, or None.

    Raises:
        Fault: SLICES (exit 2) where no plane lies in the range.
    """
    count = len(inside)
    occupied = np.flatnonzero(inside.any(axis=(1, 2)))
    if not slices or count == 1 or (unit == "mm" and (spacing is None or not occupied.size)):
        return np.ones(count, dtype=bool)
    first, last = slices
    position = np.arange(count, dtype=np.float64)
    if unit == "share":
        position = (position + 0.5) / count
    elif unit == "mm":
        assert spacing is not None
        position = (position - (occupied[0] + occupied[-1]) / 2) * spacing
    keep = (position >= first - 1e-6) & (position <= last + 1e-6)
    if not keep.any() and unit == "share":
        keep[np.abs(position - (first + last) / 2).argmin()] = True
    if not keep.any():
        raise Fault(
            "SLICES",
            f"none of {many(count, 'plane')} lies in canvas.slices {first:g} to {last:g} ({unit})",
            "set canvas.slices for such volumes, or leave this one out",
            exit=USAGE,
        )
    return keep
