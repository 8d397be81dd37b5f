"""Channels of one plane side by side in one picture, so that no sequence goes unseen."""

from __future__ import annotations

import math

import numpy as np


def tiled(plane: np.ndarray) -> np.ndarray:
    """Channels (C, H, W) in reading order as one picture (rows * H, columns * W), as square as can
    be; one is itself.

    Places that stay empty have the lowest value.
    """
    plane = np.asarray(plane)
    count, height, width = plane.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    filled = np.full((rows * columns, height, width), plane.min(), plane.dtype)
    filled[:count] = plane
    return (
        filled.reshape(rows, columns, height, width)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width)
    )
