"""Random numbers that belong to an item, not to a batch: the same case gets the same noise however it is batched."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .simplex import simplex

Key = str | int | tuple


class Draw:
    """Noise for a batch of items, each with a stream of its own seeded by (seed, key, number of the draw).

    keys: one per item, for example (case_id, plane). Equal keys get equal noise, which is how the published codes'
        one field for a whole batch is asked for. Values are made on the CPU and then moved, so they depend neither
        on batch size, order and device nor on what else was drawn elsewhere.
    kind: of `noise`: "gaussian", or "simplex" (octaves of OpenSimplex noise, one field per channel; the settings are
        those of the function `simplex`).
    Raises ValueError for an unknown kind, or a batch that has not as many items as keys.
    """

    def __init__(self, seed: int, keys: Sequence[Key], kind: str = "gaussian", **settings: Any):
        if kind not in _KINDS:
            raise ValueError(f"unknown noise {kind!r}; choose one of {', '.join(_KINDS)}")
        self.seed, self.keys, self.kind, self.settings = seed, [_plain(key) for key in keys], kind, settings
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
        """An independent stream for the same items; forking twice with one tag gives the same stream."""
        return self._like(self.keys, (*self._tags, tag))

    def repeat(self, copies: int) -> Draw:
        """Streams for `copies` copies of each item, ordered like ``Tensor.repeat_interleave(copies, 0)``."""
        return self._like([(key, copy) for key in self.keys for copy in range(copies)], self._tags)

    def of_kind(self, kind: str, **settings: Any) -> Draw:
        """The same items and stream, giving another kind of noise."""
        other = Draw(self.seed, self.keys, kind, **settings)
        other._tags = self._tags
        return other

    def _like(self, keys: Sequence[Key], tags: tuple[str, ...]) -> Draw:
        other = Draw(self.seed, keys, self.kind, **self.settings)
        other._tags = tags
        return other

    def _generators(self) -> list[torch.Generator]:
        self._count += 1
        return [_generator(self.seed, self._tags, key, self._count) for key in self.keys]


def _plain(key: Key) -> Key:
    """The key in Python's own types: a number from numpy must not seed another stream than the same number."""
    if isinstance(key, tuple):
        return tuple(_plain(part) for part in key)
    return str(key) if isinstance(key, str) else operator.index(key)


def _generator(*parts: object) -> torch.Generator:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _gaussian(shape: torch.Size, generators: list[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(shape[1:], generator=g) for g in generators])


def _simplex(shape: torch.Size, generators: list[torch.Generator], **settings: Any) -> Tensor:
    seeds = torch.stack([torch.randint(-(2**62), 2**62, (shape[1],), generator=g) for g in generators])
    return simplex(tuple(shape), seeds, **settings)


_KINDS: dict[str, Callable[..., Tensor]] = {"gaussian": _gaussian, "simplex": _simplex}
