"""OpenSimplex octave noise (AnoDDPM, Wyatt et al. 2022; also THOR, pDDPM, cDDPM), batched in torch.

After Kurt Spencer's OpenSimplex (public domain). A value is a sum over the lattice points around
it, each with the kernel (2 - distance^2)^4 and a gradient picked by a permutation table. In two
dimensions every point in reach is summed. In three the published generator leaves some of small
weight out; `_solid` lists the ones it takes. The geometry is shared by all items of a batch and
cached: a field is a sparse matrix times the gradients at the lattice points, and a seed only
changes the gradients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

_GRADIENTS_2D = [
    (x, y) for sy in (1, -1) for x, y in ((5, 2 * sy), (2, 5 * sy), (-5, 2 * sy), (-2, 5 * sy))
]
_GRADIENTS_3D = [
    (x * sx, y * sy, z * sz)
    for sz, sy, sx in product((1, -1), (1, -1), (-1, 1))
    for x, y, z in ((11, 4, 4), (4, 11, 4), (4, 4, 11))
]
# Lattice points, counted from the corner of a cell, whose kernel reaches into that cell (found by
# enumeration).
_AROUND_2D = [
    (i, j) for i, j in product(range(-1, 3), repeat=2) if (i, j) not in ((-1, -1), (2, 2))
]
_KEPT = 512 * 512  # pixels of the largest field whose geometry is kept (about 25 MB an octave)
_MULTIPLIER, _INCREMENT, _WORD = 6364136223846793005, 1442695040888963407, 2**64


def simplex(
    shape: Sequence[int],
    seeds: Tensor | Sequence[int],
    *,
    octaves: int = 6,
    persistence: float = 0.8,
    frequency: float = 64,
    z: float | None = None,
    standardise: bool = False,
) -> Tensor:
    """Noise fields (B, C, H, W) float32 of octaves of OpenSimplex noise.

    A field is the sum over octaves k of persistence^k * noise(x/f, y/f[, z/f]), f = frequency /
    2^k. Those of the published settings have a standard deviation of about 0.5 and various means.

    Args:
        shape: (B, C, H, W).
        seeds: Integers, (B,) (the channels share a field) or (B, C).
        octaves, persistence, frequency: See above.
        z: Plane of the three-dimensional noise; None is the two-dimensional one (pDDPM).
        standardise: Bring each field to mean 0 and standard deviation 1.

    Raises:
        ValueError: where the seeds do not fit the shape.
    """
    batch, channels, height, width = shape
    seeds = torch.as_tensor(seeds, dtype=torch.long)
    if seeds.shape not in ((batch,), (batch, channels)):
        raise ValueError(f"{tuple(seeds.shape)} seeds do not fit fields of shape {tuple(shape)}")
    table = torch.stack([permutation(int(seed)) for seed in seeds.flatten()])
    fields = torch.zeros(len(table), height * width, dtype=torch.float64)
    for k in range(octaves):
        geometry = _kept_reach if height * width <= _KEPT else _kept_reach.__wrapped__
        fields += persistence**k * _sum(*geometry(height, width, frequency / 2**k, z), table)
    if standardise:
        fields = (fields - fields.mean(1, keepdim=True)) / fields.std(1, keepdim=True)
    return (
        fields.reshape(batch, -1, height, width)
        .expand(batch, channels, height, width)
        .float()
        .contiguous()
    )


def values(place: Tensor, table: Tensor) -> Tensor:
    """Plain OpenSimplex noise (N, P) float64, about [-1, 1].

    Args:
        place: Coordinates (2 or 3, P).
        table: Permutation tables (N, 256).
    """
    return _sum(*_reach(place), table)


def _sum(points: Tensor, weights: Any, table: Tensor) -> Tensor:
    """Sum with weights (P, 2 or 3 x V) the gradients that tables (N, 256) pick for lattice points
    (2 or 3, V)."""
    index = torch.zeros(len(table), points.shape[1], dtype=torch.long)
    for axis in points:
        index = table.gather(1, (index + axis) & 255)
    gradients = torch.tensor(
        _GRADIENTS_2D if len(points) == 2 else _GRADIENTS_3D, dtype=torch.float64
    )
    index = (index & 15) >> 1 if len(points) == 2 else index % len(gradients)
    return torch.from_numpy(weights @ gradients[index].permute(2, 1, 0).flatten(0, 1).numpy()).T


@lru_cache(maxsize=8)
def _kept_reach(height: int, width: int, frequency: float, z: float | None) -> tuple[Tensor, Any]:
    y, x = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in (height, width)), indexing="ij"
    )
    axes = [x, y] if z is None else [x, y, torch.full_like(x, z)]
    return _reach(torch.stack([axis.flatten() for axis in axes]) / frequency)


def _reach(place: Tensor) -> tuple[Tensor, Any]:
    """The lattice points (2 or 3, V) in reach of places (2 or 3, P), and their weights.

    Weights are a sparse matrix (P, 2 or 3 x V): how much each component of each point's gradient
    adds at each place.
    """
    dims, count = place.shape
    stretch = (1 / math.sqrt(dims + 1) - 1) / dims
    squish = (math.sqrt(dims + 1) - 1) / dims
    skewed = place + place.sum(0) * stretch
    corner = skewed.floor()
    around = (
        [torch.tensor(o)[:, None] for o in _AROUND_2D] if dims == 2 else _solid(skewed - corner)
    )
    reached = []
    for offset in around:
        vertex = corner + offset
        delta = place - vertex - vertex.sum(0) * squish
        kernel = 2 - (delta**2).sum(0)
        near = (kernel > 0).nonzero()[:, 0]
        reached.append((near, vertex[:, near].long(), kernel[near] ** 4 * delta[:, near]))
    rows, vertices, parts = (torch.cat(pieces, dim=-1) for pieces in zip(*reached, strict=True))
    low = vertices.amin(1, keepdim=True)
    spans = (vertices - low).amax(1) + 1
    keys, inverse = np.unique(
        np.ravel_multi_index((vertices - low).numpy(), spans.tolist()), return_inverse=True
    )
    points = low + torch.from_numpy(np.stack(np.unravel_index(keys, spans.tolist())))
    columns = np.concatenate([inverse + d * len(keys) for d in range(dims)])
    parts = parts.flatten() / (47 if dims == 2 else 103)
    return points, csr_array(
        (parts.numpy(), (rows.repeat(dims).numpy(), columns)), shape=(count, dims * len(keys))
    )


def _solid(position: Tensor) -> list[Tensor]:
    """The lattice points, (3, P) each, that the published 3-D noise sums at positions (3, P).

    Positions lie in the unit cell: a tetrahedron at (0,0,0), an octahedron and a tetrahedron at
    (1,1,1). To the corners of the solid come two points beyond it, chosen by the two nearest
    corners.
    """
    total = position.sum(0)
    upper, tetrahedron = total >= 2, (total <= 1) | (total >= 2)
    unit = torch.eye(3, dtype=position.dtype)[:, :, None].expand(-1, -1, position.shape[1])
    nowhere = torch.full_like(position, 99)  # out of every kernel's reach

    # The tetrahedron at (1,1,1) mirrors the one at (0,0,0).
    x, y, z = torch.where(upper, 1 - position, position)
    keep_x, keep_y, keep_z = _largest_two(x, y, z)
    pair = torch.stack([keep_x, keep_y, keep_z]).to(position.dtype)
    scores = torch.stack([x, y, z])
    high = (scores * pair).amax(0)
    low = torch.where(pair > 0, scores, 9).amin(0)
    is_x = keep_x & (x == high)
    is_z = keep_z & (z == high) & ~is_x
    nearest = torch.stack([is_x, ~is_x & ~is_z, is_z]).to(position.dtype)
    by_origin = 1 - (x + y + z) > low
    extra = [
        torch.where(by_origin, nearest - nearest.roll(1, 0), pair),
        torch.where(by_origin, nearest - nearest.roll(2, 0), 2 * pair - 1),
    ]
    corners = [torch.zeros_like(position), *unit, nowhere, nowhere, *extra]
    corners = [torch.where(upper, 1 - v, v) for v in corners]

    # The octahedron: per axis the nearer of e_i and 1 - e_i, then the nearest two of those three.
    x, y, z = position
    sums = torch.stack([y + z, x + z, x + y])
    far, (x, y, z) = sums > 1, (sums - 1).abs()
    keep_y, keep_z, keep_x = _largest_two(y, z, x)
    two = torch.stack([keep_x, keep_y, keep_z])
    far_two, near_two, other = ((m).to(position.dtype) for m in (two & far, two & ~far, ~two))
    number = far_two.sum(0)
    extra = [
        torch.where(number == 2, 1.0, torch.where(number == 0, 0.0, 1 - 2 * far_two)),
        torch.where(number == 2, 2 * other, torch.where(number == 0, 1 - 2 * other, 2 * near_two)),
    ]
    octahedron = [1 - unit[0], *unit, 1 - unit[1], 1 - unit[2], *extra]
    return [torch.where(tetrahedron, a, b) for a, b in zip(corners, octahedron, strict=True)]


def _largest_two(first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which two of three are the largest; of equal ones the last is dropped, as published."""
    drop_third = third <= torch.minimum(first, second)
    drop_second = ~drop_third & (second <= first)
    return drop_third | drop_second, ~drop_second, ~drop_third


@lru_cache(maxsize=4096)
def permutation(seed: int) -> Tensor:
    """The shuffled table (256,) of an integer seed, by a 64-bit congruential generator."""
    state, source, table = seed, list(range(256)), [0] * 256
    for _ in range(3):
        state = _advance(state)
    for i in reversed(range(256)):
        state = _advance(state)
        r = (state + 31) % (i + 1)
        table[i], source[r] = source[r], source[i]
    return torch.tensor(table)


def _advance(state: int) -> int:
    state = (state * _MULTIPLIER + _INCREMENT) % _WORD
    return state - _WORD if state >= _WORD // 2 else state  # signed, as in the published code
