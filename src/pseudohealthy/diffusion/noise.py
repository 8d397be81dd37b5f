"""Random numbers that belong to an item, so that a case gets the same noise in every batch."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .simplex import simplex

Key = str | int | tuple
BLOCK = 16  # numbers that torch makes at a time


class Draw:
    """Noise for a batch of items, each with its own stream.

    A stream is seeded by (seed, key, number of the draw). Values are made on the CPU and then
    moved, so they depend neither on batch size, order and device nor on other draws.

    Args:
        keys: One per item, for example (case_id, plane). Equal keys get equal noise, for published
            codes with one field for a whole batch.
        kind: Of `noise`: "gaussian", or "simplex" (octaves of OpenSimplex noise, one field per
            channel).
        settings: Those of the function `simplex`.

    Raises:
        ValueError: for an unknown kind, or a batch that has not as many items as keys.
    """

    def __init__(self, seed: int, keys: Sequence[Key], kind: str = "gaussian", **settings: Any):
        if kind not in _KINDS:
            raise ValueError(f"unknown noise {kind!r}; choose one of {', '.join(_KINDS)}")
        self.seed = seed
        self.keys = [_plain(key) for key in keys]
        self.kind = kind
        self.settings = settings
        self._tags: tuple[str, ...] = ()
        self._count = 0

    def __len__(self) -> int:
        return len(self.keys)

    def __call__(self, like: Tensor) -> Tensor:
        return self.noise(like)

    def noise(self, like: Tensor) -> Tensor:
        """The next field for every item, shaped and typed like `like` (B, ...), on its device."""
        if len(like) != len(self.keys):
            raise ValueError(f"this draw serves {len(self.keys)} items, the batch has {len(like)}")
        fields = _KINDS[self.kind](like.shape, self._generators(), **self.settings)
        return fields.to(like.device, like.dtype)

    def integers(self, low: int, high: int) -> Tensor:
        """One integer per item, (B,) long, low included, high excluded."""
        return torch.stack([torch.randint(low, high, (), generator=g) for g in self._generators()])

    def uniform(self) -> Tensor:
        """One number in [0, 1) per item, (B,) float32."""
        return torch.stack([torch.rand((), generator=g) for g in self._generators()])

    def fork(self, tag: str) -> Draw:
        """Independent streams for the same items, the same for every fork with one tag."""
        return self._like(self.keys, (*self._tags, tag))

    def repeat(self, copies: int) -> Draw:
        """Streams for copies of each item, in the order of ``Tensor.repeat_interleave(copies,
        0)``."""
        return self._like([(key, copy) for key in self.keys for copy in range(copies)], self._tags)

    def of_kind(self, kind: str, **settings: Any) -> Draw:
        """The same items and streams, with another kind of noise."""
        draw = Draw(self.seed, self.keys, kind, **settings)
        draw._tags = self._tags
        return draw

    def _like(self, keys: Sequence[Key], tags: tuple[str, ...]) -> Draw:
        draw = Draw(self.seed, keys, self.kind, **self.settings)
        draw._tags = tags
        return draw

    def _generators(self) -> list[torch.Generator]:
        self._count += 1
        return [_generator(self.seed, self._tags, key, self._count) for key in self.keys]


def _plain(key: Key) -> Key:
    """The key in Python's own types: a number from numpy must seed the same stream as Python's."""
    if isinstance(key, tuple):
        return tuple(_plain(part) for part in key)
    return str(key) if isinstance(key, str) else operator.index(key)


def _generator(*parts: object) -> torch.Generator:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _gaussian(shape: torch.Size, generators: list[torch.Generator]) -> Tensor:
    count = math.prod(shape[1:])
    fields = [_normal(count, generator) for generator in generators]
    return torch.from_numpy(np.stack(fields)).reshape(shape)


def _normal(count: int, generator: torch.Generator) -> np.ndarray:
    """The numbers of `torch.randn`, (count,) float32, the same bits on every processor.

    torch's own kernels differ in the last bits from one instruction set to the next. The uniform
    numbers do not, and of logarithm and cosine in float64 nothing is left to differ once they are
    rounded to float32.
    """
    if count < BLOCK:
        return (
            torch.randn(count, generator=generator, dtype=torch.float64).numpy().astype(np.float32)
        )
    uniform = torch.rand(count, generator=generator).numpy()
    full = count - count % BLOCK
    normal = np.empty(count, np.float32)
    normal[:full] = _box_muller(uniform[:full])
    if full < count:  # torch draws the last block anew, and so does this
        normal[-BLOCK:] = _box_muller(torch.rand(BLOCK, generator=generator).numpy())
    return normal


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    """Normal numbers (N,) of uniform ones in [0, 1), N a multiple of `BLOCK`.

    Half of each block gives the radius, half the angle, as in torch.
    """
    blocks = uniform.astype(np.float64).reshape(-1, 2, BLOCK // 2)
    radius = np.sqrt(-2 * np.log(1 - blocks[:, 0]))
    angle = 2 * math.pi * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()


def _simplex(shape: torch.Size, generators: list[torch.Generator], **settings: Any) -> Tensor:
    seeds = torch.stack(
        [torch.randint(-(2**62), 2**62, (shape[1],), generator=g) for g in generators]
    )
    return simplex(tuple(shape), seeds, **settings)


_KINDS: dict[str, Callable[..., Tensor]] = {"gaussian": _gaussian, "simplex": _simplex}
