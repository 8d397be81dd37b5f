"""How long, how fast and in what precision to train: the recipe's section ``training``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pseudohealthy.marks import Range
from pseudohealthy.settings import check_fields

Steps = Annotated[int, Range(0, 1_000_000_000)]
Epochs = Annotated[float, Range(0, 1_000_000, open="low")]
Batch = Annotated[int, Range(1, 65_536)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
Decay = Annotated[float, Range(0, 1, open="high")]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Training settings.

    minutes: for everything, reading cases and setting the threshold included; the steps that fit
        are found out before the first one. 0: as many as `steps` says; where that is 0, too, as
        many as `epochs` needs. batch: images per step over all processes together.
    rate: learning rate, reached after `warmup` steps; then "constant" (so that a finished run can
        be extended) or "cosine" to zero at the last step. weight_decay, betas: AdamW.
    clip: largest gradient norm, 0 for none. ema: decay of the averaged weights that restore; 0 for
    none.
    precision: "auto" is bf16 where the processor computes in it, else fp32.
    augment: "none", "flip" (left-right), "affine" (flip, 10 degrees, 8 % shift, 8 % scale) or
        "strong" (bent and with another gamma as well).
    validate: steps between validations; 0 for ten per training. validation_planes: at most this
    many are looked at.
    eval_samples: planes of each label that a validation restores for its ROC-AUC, whatever they
        cost; 0: as many as a fifth of the training's time allows, at most half of
        `validation_planes`. Where fewer exist all are taken.
    seed: of weights, order, levels and noise.
    """

    steps: Steps = 0
    epochs: Epochs = 1.0
    minutes: Annotated[float, Range(0, 100_000)] = 0.0
    batch: Batch = 16
    rate: Annotated[float, Range(0, 1, open="low")] = 1e-4
    warmup: Steps = 100
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: Annotated[float, Range(0, 1)] = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    clip: Annotated[float, Range(0, 1_000_000)] = 1.0
    ema: Decay = 0.999
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    augment: Literal["none", "flip", "affine", "strong"] = "none"
    validate: Steps = 0
    validation_planes: Annotated[int, Range(1, 1_000_000)] = 256
    eval_samples: Annotated[int, Range(0, 1_000_000)] = 0
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_fields(self, "training.{}".format)

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
        """Decay after 0-based `step`: grows to `ema`, so that short trainings are not averaged with
        their start."""
        return min(self.ema, (1 + step) / (10 + step))
