"""The one loop that moves images along noise levels: downwards restores, upwards encodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from .denoiser import Estimate
from .schedule import Schedule

Edit = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]


def walk(start: int, stop: int, steps: int) -> list[int]:
    """Evenly spaced levels from start to stop, both included: `steps` moves, or fewer where levels would repeat."""
    if steps < 1:
        raise ValueError(f"a walk needs at least one step, got {steps}")
    steps = min(steps, abs(stop - start))
    return [start, *(start + math.floor((stop - start) * i / steps + 0.5) for i in range(1, steps + 1))]


@torch.no_grad()
def sample(
    denoise: Callable[..., Estimate],
    x: Tensor,
    levels: Sequence[int],
    *,
    eta: float = 0.0,
    order: int = 1,
    draw: Callable[[Tensor], Tensor] | None = None,
    edit: Edit | None = None,
    clip: bool = True,
    variance: Literal["posterior", "large", "learned"] = "posterior",
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    schedule: Schedule | None = None,
    **condition: Any,
) -> Tensor:
    """Move x (B, C, H, W) from ``levels[0]`` through every level to ``levels[-1]``; returns the last state.

    denoise: a `Denoiser`, or any callable (x, level, **condition) -> `Estimate` (then give its `schedule`).
    eta: 0 is DDIM (Song et al. 2021, equation 12), 1 ancestral DDPM (Ho et al. 2020). Noise is only ever added on
        the way down, never on the step to level 0; steps upwards are the deterministic DDIM encoding.
    order: 1, or 2 for two-step steps that also look at the estimate before: at equal calls the error of skipped levels
        is several times smaller, in both directions, and falls with the square of their number (see `ahead`). For eta 0.
    draw: fresh noise like its argument, for example a `Draw`; needed when eta > 0 and a level goes down.
    edit: (clean, noise, x, now) -> (clean, noise), applied to every estimate after clipping and not clipped again.
    clip: clamp the clean estimate to [-1, 1] and let the noise follow.
    variance: of the added noise when eta > 0: "posterior" (fixed-small), "large" (beta) or "learned" (`spread`).
    callback: called with (now, x, clean) before each step.
    Skipping levels with eta = 1 shrinks contrast even with a perfect denoiser; prefer eta = 0 there, and order = 2.
    """
    if order not in (1, 2) or (order == 2 and eta > 0):
        raise ValueError(f"order {order} with eta {eta:g}: choose 1, or 2 for steps without noise (eta 0)")
    before: tuple[int, Tensor, Tensor] | None = None
    table = schedule if schedule is not None else denoise.schedule  # type: ignore[attr-defined]
    for now, then in pairwise(levels):
        estimate = denoise(x, now, **condition)
        clean, noise = estimate.clean, estimate.noise
        a, s, b, r = (float(v) for v in (table.signal[now], table.sigma[now], table.signal[then], table.sigma[then]))
        if clip and now > 0:
            clean = clean.clamp(-1, 1)
            noise = (x - a * clean) / s
        if edit is not None:
            clean, noise = edit(clean, noise, x, now)
        if callback is not None:
            callback(now, x, clean)
        if order == 2:
            found = now, clean, noise
            if before is not None:
                clean, noise = ahead(table, before, found, then, x)
            before = found
        downwards = eta > 0 and 0 < then < now
        fresh = eta * r / s * math.sqrt(1 - (a / b) ** 2) if downwards else 0.0
        state = b * clean + math.sqrt(max(r**2 - fresh**2, 0.0)) * noise
        if downwards:
            if draw is None:
                raise ValueError("eta > 0 adds noise on the way down: give draw")
            state = state + _spread(variance, fresh, eta * math.sqrt(1 - (a / b) ** 2), estimate.spread) * draw(x)
        x = state
    return x


def ahead(
    table: Schedule, before: tuple[int, Tensor, Tensor], now: tuple[int, Tensor, Tensor], then: int, x: Tensor
) -> tuple[Tensor, Tensor]:
    """(clean, noise) of state x for a second-order step to level `then`, from (level, clean, noise) before and now.

    Downwards the clean image is extrapolated in the logarithm of signal to noise (DPM-Solver++(2M), Lu et al. 2022,
    algorithm 2), upwards the noise in the ratio of noise to signal (Adams-Bashforth), in which level 0 is not infinitely
    far away. The other of the two follows from x. The step to level 0 is of first order, as in the paper.
    """
    (was, clean0, noise0), (level, clean, noise) = before, now
    (a0, s0), (a, s), (b, r) = ((float(table.signal[i]), float(table.sigma[i])) for i in (was, level, then))
    if then > level:
        noise = noise + (r / b - s / a) / (s / a - s0 / a0) / 2 * (noise - noise0)
        return (x - s * noise) / a, noise
    if r > 0 and s0 > 0:
        weight = math.log(b * s / (r * a)) / math.log(a * s0 / (s * a0)) / 2
        clean = clean + weight * (clean - clean0)
    return clean, (x - a * clean) / s


def _spread(variance: str, small: float, large: float, v: Tensor | None) -> float | Tensor:
    """Standard deviation of the added noise, between the posterior's (`small`) and beta's (`large`)."""
    if variance == "posterior":
        return small
    if variance == "large":
        return large
    if variance != "learned":
        raise ValueError(f"unknown variance {variance!r}; choose posterior, large or learned")
    if v is None:
        raise ValueError("this denoiser has no learned variance; choose posterior or large")
    share = (v + 1) / 2  # Nichol & Dhariwal 2021, equation 15: interpolation of the logarithms
    return torch.exp(share * math.log(large) + (1 - share) * math.log(small))
