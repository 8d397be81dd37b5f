"""The pictures of the tests: a grey blob, with or without a white square."""

from __future__ import annotations

import numpy as np

SIDE = 16


def picture(
    rng: np.random.Generator, *, bright: bool = False, side: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """A grey blob of varying place (side, side) uint8, and the mask of a white square on it when
    `bright`."""
    rows, columns = np.mgrid[:side, :side] / (side - 1) - rng.uniform(0.4, 0.6, (2, 1, 1))
    image = 140 * np.exp(-8 * (rows**2 + columns**2)) + rng.uniform(0, 12, (side, side))
    mask = np.zeros((side, side), bool)
    if bright:
        row, column = rng.integers(2, side - 6, 2)
        mask[row : row + 4, column : column + 4] = True
    return np.where(mask, 250, image).astype(np.uint8), mask
