"""Which planes of a volume are trained on and judged, and how many: the third direction of the
canvas."""

from __future__ import annotations

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault

SLICES_IN = ("planes", "share", "mm")


def chosen(
    slices: tuple[float, ...], unit: str, inside: np.ndarray, spacing: float | None
) -> np.ndarray:
    """Bool (D,): the planes whose centre lies in ``slices`` (first, last), both included; all where
    it is empty.

    unit: "planes" (position in the order read, from 0), "share" (of the volume's extent, 0..1; at
    least the plane nearest to the middle of the range) or "mm" (from the middle of the foreground
    ``inside`` (D, H, W), planes ``spacing`` apart). A single plane was chosen by whoever stored it.
    Raises Fault SLICES (exit 2) where no plane is left.
    """
    count = len(inside)
    busy = np.flatnonzero(inside.any(axis=(1, 2)))
    if not slices or count == 1 or (unit == "mm" and (spacing is None or not busy.size)):
        return np.ones(count, dtype=bool)
    first, last = slices
    at = np.arange(count, dtype=np.float64)
    if unit == "share":
        at = (at + 0.5) / count
    elif unit == "mm":
        assert spacing is not None
        at = (at - (busy[0] + busy[-1]) / 2) * spacing
    keep = (at >= first - 1e-6) & (at <= last + 1e-6)
    if not keep.any() and unit == "share":
        keep[np.abs(at - (first + last) / 2).argmin()] = True
    if not keep.any():
        raise Fault(
            "SLICES",
            f"none of {many(count, 'plane')} lies in canvas.slices {first:g} to {last:g} ({unit})",
            "set canvas.slices for such volumes, or leave this one out",
            exit=USAGE,
        )
    return keep
