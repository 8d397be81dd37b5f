"""The one loop that moves images along noise levels, and the three steps it can take.

Downwards restores, upwards encodes. Letters: x is the state; (a, s) are `signal` and `sigma` of the
level where it is (`now`), (b, r) of the level to which it goes (`then`).
"""

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
# (table, x, estimate, now, then) -> the next state.
Step = Callable[[Schedule, Tensor, Estimate, int, int], Tensor]
Variance = Literal["posterior", "large", "learned"]


def walk(start: int, stop: int, steps: int) -> list[int]:
    """Evenly spaced noise levels from start to stop, both included.

    Args:
        start, stop: Noise levels.
        steps: Moves between them; fewer where levels would repeat.
    """
    if steps < 1:
        raise ValueError(f"a walk needs at least one step, got {steps}")
    steps = min(steps, abs(stop - start))
    return [
        start,
        *(start + math.floor((stop - start) * i / steps + 0.5) for i in range(1, steps + 1)),
    ]


def ddim(table: Schedule, x: Tensor, estimate: Estimate, now: int, then: int) -> Tensor:
    """The deterministic step, down or up (Song et al. 2021, DDIM, equation 12 with sigma = 0)."""
    b, r = coefficients(table, then)
    return b * estimate.clean + r * estimate.noise


def ancestral(
    draw: Callable[[Tensor], Tensor], eta: float = 1.0, variance: Variance = "posterior"
) -> Step:
    """The step that adds fresh noise on the way down.

    DDIM, equations 12 and 16; with eta 1 it is Ho et al. 2020. The step to level 0 and steps
    upwards add none.

    Args:
        draw: Fresh noise like its argument, for example a `Draw`.
        eta: Share of the posterior's spread that is fresh; 0 is `ddim`.
        variance: Of the fresh noise: the posterior's, beta ("large"), or between them as the
            network says ("learned").
    """

    def step(table: Schedule, x: Tensor, estimate: Estimate, now: int, then: int) -> Tensor:
        if not 0 < then < now:
            return ddim(table, x, estimate, now, then)
        (a, s), (b, r) = coefficients(table, now), coefficients(table, then)
        fresh = eta * r / s * math.sqrt(1 - (a / b) ** 2)
        mean = b * estimate.clean + math.sqrt(max(r**2 - fresh**2, 0.0)) * estimate.noise
        return mean + spread(
            variance, fresh, eta * math.sqrt(1 - (a / b) ** 2), estimate.spread
        ) * draw(x)

    return step


def second_order() -> Step:
    """The step that also uses the estimate before, for a smaller error at equal network calls.

    Downwards the clean image is extrapolated in the logarithm of signal to noise (DPM-Solver++(2M),
    Lu et al. 2022, algorithm 2), upwards the noise in the ratio of noise to signal
    (Adams-Bashforth), in which level 0 is not infinitely far away. The other of the two follows
    from x. The first step, and the one to level 0, is `ddim`'s, as in the paper. A step remembers
    its walk: make a new one for each.
    """
    before: list[tuple[int, Estimate]] = []

    def step(table: Schedule, x: Tensor, estimate: Estimate, now: int, then: int) -> Tensor:
        ahead = extrapolated(table, x, before[-1], (now, estimate), then) if before else estimate
        before[:] = [(now, estimate)]
        return ddim(table, x, ahead, now, then)

    return step


def extrapolated(
    table: Schedule, x: Tensor, before: tuple[int, Estimate], now: tuple[int, Estimate], then: int
) -> Estimate:
    """The estimate of state x for a second-order step to level `then`.

    Args:
        before, now: Level and estimate of the last state and of this one.
        then: The level to which x goes.
    """
    (level0, estimate0), (level, estimate) = before, now
    (a0, s0), (a, s), (b, r) = (coefficients(table, t) for t in (level0, level, then))
    if then > level:
        noise = estimate.noise + (r / b - s / a) / (s / a - s0 / a0) / 2 * (
            estimate.noise - estimate0.noise
        )
        return Estimate((x - s * noise) / a, noise)
    clean = estimate.clean
    if r > 0 and s0 > 0:
        weight = math.log(b * s / (r * a)) / math.log(a * s0 / (s * a0)) / 2
        clean = clean + weight * (clean - estimate0.clean)
    return Estimate(clean, (x - a * clean) / s)


@torch.no_grad()
def sample(
    denoise: Callable[..., Estimate],
    x: Tensor,
    levels: Sequence[int],
    *,
    step: Step = ddim,
    edit: Edit | None = None,
    clip: bool = True,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    schedule: Schedule | None = None,
    **condition: Any,
) -> Tensor:
    """Move a state along noise levels, and return the last state.

    Skipping levels with `ancestral` shrinks contrast even with a perfect denoiser; prefer
    `second_order` there.

    Args:
        x: State (B, C, H, W) at ``levels[0]``.
        levels: Noise levels, downwards or upwards.
        denoise: a `Denoiser`, or any callable (x, level, **condition) -> `Estimate` (then give its
            `schedule`).
        step: `ddim`, ``ancestral(draw)`` or ``second_order()``.
        edit: (clean, noise, x, now) -> (clean, noise), applied to every estimate after clipping,
            not clipped again.
        clip: Clamp the clean estimate to [-1, 1] and let the noise follow.
        callback: Called with (now, x, clean) before each step.
    """
    table = schedule if schedule is not None else denoise.schedule  # type: ignore[attr-defined]
    for now, then in pairwise(levels):
        estimate = denoise(x, now, **condition)
        clean, noise = estimate.clean, estimate.noise
        if clip and now > 0:
            a, s = coefficients(table, now)
            clean = clean.clamp(-1, 1)
            noise = (x - a * clean) / s
        if edit is not None:
            clean, noise = edit(clean, noise, x, now)
        if callback is not None:
            callback(now, x, clean)
        x = step(table, x, Estimate(clean, noise, estimate.spread), now, then)
    return x


def coefficients(table: Schedule, level: int) -> tuple[float, float]:
    """`signal` and `sigma` at a noise level."""
    return float(table.signal[level]), float(table.sigma[level])


def spread(variance: Variance, small: float, large: float, v: Tensor | None) -> float | Tensor:
    """Standard deviation of the fresh noise.

    Args:
        variance: "posterior" is `small`, "large" is `large`, "learned" lies between.
        small, large: Those of the posterior and of beta.
        v: Raw variance channels, for "learned".
    """
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
