"""Resampling along one axis as a matrix (targets, sources), with pixel centres aligned."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def centres(sources: int, targets: int) -> np.ndarray:
    """Target pixel centres in source pixel coordinates."""
    return (np.arange(targets) + 0.5) * sources / targets - 0.5


def triangle(sources: int, targets: int) -> np.ndarray:
    """Bilinear weights (targets, sources), widened to the target's pixel where that is larger."""
    support = max(1.0, sources / targets)
    distance = np.clip(centres(sources, targets), 0, sources - 1)[:, None] - np.arange(sources)
    weights = np.maximum(0.0, 1 - np.abs(distance) / support)
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=64)
def forward(side: int, size: int) -> np.ndarray:
    return triangle(side, size).astype(np.float32)


@lru_cache(maxsize=64)
def linear(side: int, size: int) -> np.ndarray:
    return triangle(size, side).astype(np.float32)


@lru_cache(maxsize=64)
def inverse(side: int, size: int) -> np.ndarray:
    """Matrix (side, size) that goes back: exact for an image enlarged at least twice, else linear.

    Least squares, which are well conditioned from there on.
    """
    return (
        np.linalg.pinv(triangle(side, size)).astype(np.float32)
        if size >= 2 * side
        else linear(side, size)
    )


@lru_cache(maxsize=64)
def nearest(side: int, size: int) -> np.ndarray:
    nearest = np.clip(np.rint(centres(size, side)), 0, size - 1).astype(int)
    return np.eye(size, dtype=np.float32)[nearest]


@lru_cache(maxsize=64)
def coverage(side: int, size: int) -> np.ndarray:
    """Share of each model pixel that lies in each native pixel, (size, side)."""
    edges, native = np.arange(size + 1) * side / size, np.arange(side)
    overlap = np.minimum(edges[1:, None], native + 1) - np.maximum(edges[:-1, None], native)
    return (np.maximum(0, overlap) * size / side).astype(np.float32)
