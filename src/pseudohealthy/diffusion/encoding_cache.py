"""A cache of encoded images, from which other settings of a sweep continue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

MOST = 2**30  # bytes of states in memory: 16,000 planes of 128 x 128


class Encodings:
    """Caches encoded images (B, C, H, W) by their content, noise levels and way of encoding.

    A walk begins where the longest cached walk with the same first levels ended, with the same
    result.

    Args:
        most: Bytes of the cache; new states beyond them are not kept.
    """

    def __init__(self, most: int = MOST):
        self.most, self.size = most, 0
        self.kept: dict[Hashable, dict[tuple[int, ...], Tensor]] = {}

    def encode(
        self,
        x: Tensor,
        levels: Sequence[int],
        move: Callable[[Tensor, Sequence[int]], Tensor],
        *,
        how: Hashable = None,
        remembers: bool = False,
    ) -> Tensor:
        """The result of ``move(x, levels)``, of which cached levels are skipped.

        Args:
            x: Images (B, C, H, W).
            levels: Noise levels, upwards.
            move: Encodes images along levels.
            how: Everything else that the result depends on.
            remembers: A step uses earlier ones (sampler order 2), so that only whole walks may be
                taken from the cache.
        """
        path, states = tuple(levels), self.kept.setdefault((how, content(x)), {})
        usable = [
            prefix
            for prefix in states
            if prefix == path or (not remembers and prefix == path[: len(prefix)])
        ]
        prefix = max(usable, key=len, default=path[:1])
        if prefix == path and prefix in states:
            return states[prefix].to(x.device)
        start = states[prefix].to(x.device) if prefix in states else x
        state = move(start, path[len(prefix) - 1 :])
        if self.size + state.nbytes <= self.most:
            states[path] = state.cpu()
            self.size += state.nbytes
        return state


def content(x: Tensor) -> bytes:
    """A digest of values, type and shape."""
    plain = x.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{plain.dtype} {tuple(plain.shape)}".encode(), digest_size=16)
    digest.update(plain.view(torch.uint8).numpy().data)
    return digest.digest()
