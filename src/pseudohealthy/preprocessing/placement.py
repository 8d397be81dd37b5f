"""Where a scan lies on the canvas, and what the canvas makes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.preprocessing import resampling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Placement:
    """Where a scan lies on the canvas; JSON-able. ``top`` and ``left`` of the square: native
    pixels, < 0 is padding."""

    shape: tuple[int, int, int, int]  # native (C, D, H, W)
    top: int
    left: int
    side: int  # rows
    size: int
    low: tuple[float, ...]  # native value of -1 and +1, per model channel
    high: tuple[float, ...]
    across: int = 0  # columns, where pixels are not square; 0: as many as rows

    @property
    def sides(self) -> tuple[int, int]:
        return self.side, self.across or self.side

    @property
    def scale(self) -> float:
        """Model pixels per native pixel."""
        return self.size / self.side

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The part of the native plane on the canvas: first row, end row, first column, end
        column."""
        _, _, height, width = self.shape
        rows, columns = self.sides
        return (
            max(0, self.top),
            min(height, self.top + rows),
            max(0, self.left),
            min(width, self.left + columns),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Placement:
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**plain)


@dataclass
class Fitted:
    """A scan on the canvas: planes (D, C, S, S) float32 in [-1, 1], foreground and mask (D, S, S)
    bool, and which planes the canvas' ``slices`` name, (D,) bool."""

    planes: torch.Tensor
    foreground: torch.Tensor
    placement: Placement
    mask: torch.Tensor | None = None
    chosen: np.ndarray | None = None


def onto(planes: np.ndarray, place: Placement, coverage: bool = False) -> np.ndarray:
    """(D, H, W) -> (D, S, S); the padding counts as 0."""
    r0, r1, c0, c1 = place.box
    inner = planes[:, r0:r1, c0:c1]
    rows, columns = slice(r0 - place.top, r1 - place.top), slice(c0 - place.left, c1 - place.left)
    if place.sides == (place.size, place.size):
        out = np.zeros((len(planes), place.size, place.size), dtype=np.float32)
        out[:, rows, columns] = inner
        return out
    down, along = (
        (resampling.coverage if coverage else resampling.forward)(side, place.size)
        for side in place.sides
    )
    return down[:, rows] @ inner @ along[:, columns].T


def back(planes: np.ndarray, place: Placement, matrix_of: Any, fill: float) -> np.ndarray:
    """(..., S, S) -> (..., H, W)."""
    r0, r1, c0, c1 = place.box
    rows, columns = slice(r0 - place.top, r1 - place.top), slice(c0 - place.left, c1 - place.left)
    out = np.full((*planes.shape[:-2], *place.shape[2:]), fill, dtype=np.float32)
    if place.sides == (place.size, place.size):
        out[..., r0:r1, c0:c1] = planes[..., rows, columns]
    else:
        down, along = (matrix_of(side, place.size) for side in place.sides)
        out[..., r0:r1, c0:c1] = down[rows] @ planes @ along[columns].T
    return out
