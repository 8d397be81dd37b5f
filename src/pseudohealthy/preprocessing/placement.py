"""Where a scan lies on the canvas, and the scan on it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.preprocessing import resampling

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Placement:
    """Where a scan lies on the canvas; JSON-able.

    ``top`` and ``left`` of the square are native pixels; < 0 is padding.
    """

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
        """First row, end row, first column and end column of the native plane's part on the
        canvas."""
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
    """A scan on the canvas.

    Args:
        planes: (D, C, S, S) float32 in [-1, 1].
        foreground: (D, S, S) bool.
        placement: Where the scan lies.
        mask: (D, S, S) bool.
        chosen: Which planes the canvas' ``slices`` name, (D,) bool.
    """

    planes: torch.Tensor
    foreground: torch.Tensor
    placement: Placement
    mask: torch.Tensor | None = None
    chosen: np.ndarray | None = None


def onto(planes: np.ndarray, place: Placement, coverage: bool = False) -> np.ndarray:
    """Resample native planes (D, H, W) onto the canvas (D, S, S); the padding counts as 0."""
    r0, r1, c0, c1 = place.box
    inner = planes[:, r0:r1, c0:c1]
    rows, columns = slice(r0 - place.top, r1 - place.top), slice(c0 - place.left, c1 - place.left)
    if place.sides == (place.size, place.size):
        result = np.zeros((len(planes), place.size, place.size), dtype=np.float32)
        result[:, rows, columns] = inner
        return result
    vertical, horizontal = (
        (resampling.coverage if coverage else resampling.forward)(side, place.size)
        for side in place.sides
    )
    return vertical[:, rows] @ inner @ horizontal[:, columns].T


def back(planes: np.ndarray, place: Placement, matrix_of: Any, fill: float) -> np.ndarray:
    """Resample planes (..., S, S) back to (..., H, W).

    Args:
        planes: (..., S, S).
        place: Where the scan lies on the canvas.
        matrix_of: A function of ``resampling`` that goes back.
        fill: Value outside the square.
    """
    r0, r1, c0, c1 = place.box
    rows, columns = slice(r0 - place.top, r1 - place.top), slice(c0 - place.left, c1 - place.left)
    result = np.full((*planes.shape[:-2], *place.shape[2:]), fill, dtype=np.float32)
    if place.sides == (place.size, place.size):
        result[..., r0:r1, c0:c1] = planes[..., rows, columns]
    else:
        vertical, horizontal = (matrix_of(side, place.size) for side in place.sides)
        result[..., r0:r1, c0:c1] = vertical[rows] @ planes @ horizontal[columns].T
    return result
