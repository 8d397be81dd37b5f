"""Which planes of a volume are trained on and judged, and how many: the third direction of the canvas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.resampling import triangle

if TYPE_CHECKING:
    import torch

    from pseudohealthy.canvas import Fitted

SLICES_IN = ("planes", "share", "mm")


def chosen(slices: tuple[float, ...], unit: str, inside: np.ndarray, spacing: float | None) -> np.ndarray:
    """Bool (D,): the planes whose centre lies in ``slices`` (first, last), both included; all where it is empty.

    unit: "planes" (position in the order read, from 0), "share" (of the volume's extent, 0..1; at least the plane nearest
    to the middle of the range) or "mm" (from the middle of the foreground ``inside`` (D, H, W), planes ``spacing`` apart).
    A single plane was chosen by whoever stored it. Raises Fault SLICES (exit 2) where no plane is left.
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
        raise Fault("SLICES", f"none of {count} planes lies in canvas.slices {first:g} to {last:g} ({unit})",
                    "set canvas.slices for such volumes, or leave this one out", exit=USAGE)  # fmt: skip
    return keep


def merged(
    fitted: Fitted, labels: list[int | None], step: float, spacing: float | None
) -> tuple[Fitted, list[int | None], np.ndarray]:
    """The chosen planes for training, their labels and their positions in the volume.

    Thinner planes than ``step`` mm (0: any) are merged to planes about ``step`` apart by antialiased linear weights, as
    in-plane; thicker ones stay as acquired, since interpolation would invent what lies between. A merged plane is
    anomalous, and its mask is on, where any of its parts is.
    """
    import torch

    from pseudohealthy.canvas import Fitted

    rows = np.arange(len(fitted.planes)) if fitted.chosen is None else np.flatnonzero(fitted.chosen)
    count = round(len(rows) * spacing / step) if step and spacing else len(rows)
    mask = None if fitted.mask is None else fitted.mask[rows]
    planes, foreground, labels = fitted.planes[rows], fitted.foreground[rows], [labels[row] for row in rows]
    if not 0 < count < len(rows):
        return Fitted(planes, foreground, fitted.placement, mask), labels, rows
    weights = triangle(len(rows), count).astype(np.float32)

    def weighted(values: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.tensordot(weights, values.float().numpy(), axes=1))

    parts = [[labels[i] for i in np.flatnonzero(row > 1e-6)] for row in weights]
    return (
        Fitted(
            weighted(planes),
            weighted(foreground) >= 0.5,
            fitted.placement,
            None if mask is None else weighted(mask) > 1e-6,
        ),
        [1 if 1 in some else None if None in some else 0 for some in parts],
        rows[weights.argmax(axis=1)],
    )
