"""Noise schedules: how much image and how much noise a state holds at each noise level.

    x_t = signal[t] * x_0 + sigma[t] * eps,        signal[t]^2 + sigma[t]^2 = 1

Level 0 is the clean image; levels 1..T are noisy. Published tables are 0-based with index 0 already
noisy, so level = published index + 1: `Schedule.level` is the one place that says so.

Linear: Ho et al. 2020, "Denoising diffusion probabilistic models". Cosine: Nichol & Dhariwal 2021,
equation 17.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

BETAS = (1e-4, 0.02)  # first and last beta of the linear schedule (Ho et al. 2020, section 4)


class Schedule:
    """Tables of a variance-preserving diffusion by noise level, float64 (steps + 1,) on the CPU.

    Args:
        kind: "linear" or "cosine".
        steps: Noise levels T.
        betas: First and last beta of "linear", rescaled by 1000 / steps.
        offset: The s of the cosine paper.
        floor: Lower clip of the cosine betas; 0 is the published formula, 1e-4 that of the patched
            CT code.

    Raises:
        ValueError: for an unknown kind or fewer than one level.
    """

    def __init__(
        self,
        kind: Literal["linear", "cosine"] = "linear",
        steps: int = 1000,
        *,
        betas: tuple[float, float] = BETAS,
        offset: float = 0.008,
        floor: float = 0.0,
    ):
        if steps < 1:
            raise ValueError(f"a schedule needs at least one step, got {steps}")
        if kind == "linear":
            beta = np.linspace(*betas, steps) * (1000 / steps)
            beta = np.minimum(beta, 0.999)  # short schedules would otherwise pass 1
        elif kind == "cosine":
            angle = (np.arange(steps + 1) / steps + offset) / (1 + offset) * math.pi / 2
            remaining = np.cos(angle) ** 2
            beta = np.clip(1 - remaining[1:] / remaining[:-1], floor, 0.999)
        else:
            raise ValueError(f"unknown schedule {kind!r}; choose linear or cosine")
        self.steps = steps
        self._fill(beta)

    def _fill(self, beta: np.ndarray) -> None:
        alpha_bar = np.concatenate([[1.0], np.cumprod(1 - beta)])
        before, after = alpha_bar[:-1], alpha_bar[1:]
        variance = beta * (1 - before) / (1 - after)
        self.beta = _table(beta)
        self.alpha_bar = torch.from_numpy(alpha_bar)
        self.signal, self.sigma = self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()
        # q(x_{t-1} | x_t, x_0) = N(posterior_clean x_0 + posterior_state x_t, posterior_variance),
        # Ho et al. (7)
        self.posterior_variance = _table(variance)
        self.posterior_clean = _table(np.sqrt(before) * beta / (1 - after))
        self.posterior_state = _table(np.sqrt(1 - beta) * (1 - before) / (1 - after))
        # The variance at level 1 is 0 and has no logarithm: the next one stands in, as in the
        # published code.
        floored = np.concatenate([variance[1:2] if len(variance) > 1 else beta[:1], variance[1:]])
        self.posterior_log_variance = _table(np.log(floored))

    @staticmethod
    def level(published_index: int) -> int:
        """Noise level of a 0-based published index."""
        return published_index + 1

    def gather(self, table: Tensor, t: int | Tensor, like: Tensor) -> Tensor:
        """A table's values at noise levels, typed like a tensor and shaped to broadcast to it.

        Args:
            table: (steps + 1,).
            t: Noise level, an int or (B,) long.
            like: (B, ...).
        """
        index = torch.as_tensor(t, device=like.device)
        return table.to(like.device)[index].to(like.dtype).reshape(-1, *[1] * (like.ndim - 1))

    def at(self, t: int | Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """`signal` and `sigma` at noise level t, see `gather`."""
        return self.gather(self.signal, t, like), self.gather(self.sigma, t, like)


def _table(values: np.ndarray) -> Tensor:
    """Levels 1..T behind a zero for level 0, where the quantity is not defined."""
    return torch.from_numpy(np.concatenate([[0.0], values]))
