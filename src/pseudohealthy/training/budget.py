"""How long, how fast and in what precision to train: the recipe's section ``training``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pseudohealthy.errors import USAGE, Fault


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training settings.

    minutes: for everything, reading cases and setting the threshold included; the steps that fit are found out before
        the first one. 0: as many as `steps` says; where that is 0, too, as many as `epochs` needs. batch: images per step over all processes together.
    rate: learning rate, reached after `warmup` steps; then "constant" (so that a finished run can be extended) or
        "cosine" to zero at the last step. weight_decay, betas: AdamW.
    clip: largest gradient norm, 0 for none. ema: decay of the averaged weights that restore; 0 for none.
    precision: "auto" is bf16 where the processor computes in it, else fp32.
    augment: "none", "flip" (left-right), "affine" (flip, 10 degrees, 8 % shift, 8 % scale) or "strong" (bent and with
        another gamma as well).
    validate: steps between validations; 0 for ten per training. validation_planes: at most this many are looked at.
    seed: of weights, order, levels and noise.
    """

    steps: int = 0
    epochs: float = 1.0
    minutes: float = 0.0
    batch: int = 16
    rate: float = 1e-4
    warmup: int = 100
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = 1.0
    ema: float = 0.999
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    augment: Literal["none", "flip", "affine", "strong"] = "none"
    validate: int = 0
    validation_planes: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for wrong, found, cure in (
            (self.steps < 0 or self.epochs <= 0, f"steps {self.steps}, epochs {self.epochs:g}", "give positive numbers"),
            (not 0 <= self.minutes < math.inf, f"minutes {self.minutes:g}", "give a positive number, or 0 for no limit"),
            (self.batch < 1, f"batch {self.batch}", "give at least 1"),
            (not 0 < self.rate < math.inf, f"rate {self.rate:g}", "give a positive number"),
            (not 0 <= self.ema < 1, f"ema {self.ema:g}", "give 0 for none, or a number below 1 such as 0.999"),
            (self.clip < 0 or self.weight_decay < 0, f"clip {self.clip:g}, weight_decay {self.weight_decay:g}",
             "give 0 for none"),
            (self.warmup < 0 or self.validate < 0 or self.validation_planes < 1,
             f"warmup {self.warmup}, validate {self.validate}, validation_planes {self.validation_planes}",
             "give numbers that are not negative"),
        ):  # fmt: skip
            if wrong:
                raise Fault("RECIPE", f"training: {found}", cure, exit=USAGE)

    def total(self, planes: int) -> int:
        """Steps in all, given the number of training planes; `minutes` are for `Pace.settle`."""
        return self.steps or max(1, round(self.epochs * planes / self.batch))

    def every(self, total: int) -> int:
        """Steps from one validation to the next, given the steps in all."""
        return self.validate or max(1, math.ceil(total / 10))

    def rate_at(self, step: int, total: int) -> float:
        """Learning rate of 0-based `step`."""
        rate = self.rate * min(1.0, (step + 1) / max(1, self.warmup))
        if self.decay == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))
        return rate

    def ema_at(self, step: int) -> float:
        """Decay after 0-based `step`: grows to `ema`, so that short trainings are not averaged with their start."""
        return min(self.ema, (1 + step) / (10 + step))
