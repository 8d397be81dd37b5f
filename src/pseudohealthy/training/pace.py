"""How long a training takes on this machine, and how many steps fit into a time.

What is not measured yet is worked out from one network call: a validation looks at so many planes,
the threshold restores so many. Once a validation has been timed, its time replaces the estimate.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.io.atomic import write_text
from pseudohealthy.progress import duration, say
from pseudohealthy.training import validation
from pseudohealthy.training.threshold import validation_cases

if TYPE_CHECKING:
    from pseudohealthy.training.trainer import Trainer

# Steps that are timed before the training says how long it takes; the first of all warms up
FIRST = 4
ROUND = (1, 2, 5, 10, 20, 30, 60, 120, 240, 480, 720, 1440)  # minutes that people would give
PICTURES = 1.5  # seconds that a validation spends on its plots
CONTROLS = 0.03  # seconds a plane of 128 px that the thresholds of all trivial controls take
KEPT = 0.05  # share of the minutes that is kept back: no machine runs at one speed
LOOKS = 0.25  # share of the minutes that validations may take at most


class Pace:
    """Seconds of a training's parts, measured as it goes.

    Args:
        begun: When its time began to count, by ``time.monotonic``.
    """

    def __init__(self, trainer: Trainer, begun: float):
        self.trainer, self.begun = trainer, begun
        self.steps: list[float] = []
        self.pauses: list[float] = []
        self.said = False
        self.call = seconds_per_call(trainer)

    @property
    def step(self) -> float:
        return statistics.median(self.steps[1:] or self.steps)

    def pause(self, every: int) -> float:
        """Seconds of one validation, its pictures and the saved state, `every` steps after the last
        one."""
        return statistics.fmean(self.pauses) if self.pauses else self.expected_pause(every)

    def expected_pause(self, every: int) -> float:
        store, model, budget = self.trainer.store, self.trainer.average, self.trainer.budget
        healthy, sick = (len(store.select("val", label)) for label in (HEALTHY, ANOMALOUS))
        per_label = validation.most_restored(budget, model, every) if healthy and sick else 0
        restored = min(per_label, healthy) + min(per_label, sick) + min(3, healthy) + min(3, sick)
        return PICTURES + self.call * (
            min(healthy, budget.validation_planes) + restored * model.network_calls()
        )

    def finishing(self, every: int) -> float:
        """Seconds of the thresholds of the method and of the trivial controls."""
        model = self.trainer.average
        planes = sum(map(len, validation_cases(self.trainer.store, model)))
        slower = self.pause(every) / self.expected_pause(every)
        controls = CONTROLS * (model.size / 128) ** 2
        calls = model.network_calls() * self.call * min(max(slower, 0.5), 3.0)
        return PICTURES + planes * (controls + calls)

    def left(self, total: int) -> float:
        """Seconds from here to the finished run of `total` steps."""
        step, every = self.trainer.step, self.trainer.budget.every(total)
        pauses = math.ceil(total / every) - step // every
        return (total - step) * self.step + pauses * self.pause(every) + self.finishing(every)

    def fits(self, seconds: float) -> tuple[int, int]:
        """Steps, at least one, that `seconds` are enough for, and the steps between validations."""
        fixed, every = self.trainer.budget.validate, max(1, round(seconds / self.step / 10))
        pause, remaining = self.pause(fixed or every), seconds - self.finishing(fixed or every)
        if fixed:
            return max(1, int(remaining / (self.step + pause / fixed))), fixed
        looks = min(10, max(1, int(LOOKS * seconds / pause)))
        steps = max(1, int((remaining - looks * pause) / self.step))
        return steps, math.ceil(steps / looks)

    def late(self, deadline: float) -> bool:
        """Whether one more step would finish the run after the deadline."""
        every = self.trainer.budget.every(self.trainer.total)
        return time.monotonic() + self.step + self.pause(every) + self.finishing(every) > deadline

    def tell(self, total: int) -> None:
        """Say, once and after the first steps, how many are coming, how long they take, and what a
        shorter time would do."""
        started = len(self.steps) >= FIRST or (len(self.steps) > 1 and sum(self.steps) > 5)
        if self.said or not (started or self.trainer.step == total):
            return
        self.said = True
        count = total - self.trainer.step + len(self.steps)
        seconds = self.left(total) + sum(self.steps)
        shorter = [minutes for minutes in ROUND if 180 * minutes <= seconds]
        text = f"{many(count, 'step')}, about {duration(seconds)} on this machine"
        if shorter:
            text += f"; --minutes {shorter[-1]} would do about {self.fits(60 * shorter[-1])[0]:,}"
        say(text)


def seconds_per_call(trainer: Trainer) -> float:
    """Seconds of a network call for one image without gradient, on a batch of validation planes."""
    rows = trainer.store.select("val", HEALTHY)
    rows = (rows if len(rows) else trainer.rows)[: trainer.budget.batch]
    batch, start = validation.validation_batch(trainer, rows), time.monotonic()
    with torch.no_grad():
        for part in trainer.losses:
            trainer.loss(trainer.average, batch, part)
    return (time.monotonic() - start) / len(rows)


def settle(trainer: Trainer, pace: Pace) -> None:
    """Turn the minutes of the budget into steps, by timing a few that are then undone.

    The steps stand in the run's recipe in place of the minutes, so that the run equals one of so
    many steps.
    """
    budget, world, start = trainer.budget, trainer.world, trainer.step
    deadline = pace.begun + 60 * budget.minutes
    rehearse(trainer, pace, 0.6 * 0.05 * 60 * budget.minutes)
    seconds = (1 - KEPT) * (deadline - time.monotonic())
    steps, every = (int(world.same(value)) for value in pace.fits(seconds))
    estimate = steps * pace.step + pace.pause(every) + pace.finishing(every)
    trainer.budget = replace(
        budget, steps=start + steps, minutes=0.0, validate=budget.validate or every
    )
    trainer.total = start + steps
    trainer.run.recipe.training |= {
        "steps": trainer.total,
        "minutes": 0.0,
        "validate": trainer.budget.validate,
    }
    if world.first:
        write_text(trainer.run.folder / "recipe.toml", trainer.run.recipe.toml())
        trainer.run.note(recipe_sha256=trainer.run.recipe_sha256, minutes=budget.minutes)
        say(told(steps, 60 * budget.minutes, estimate if estimate > seconds else 0.0))


def told(steps: int, seconds: float, overrun: float) -> str:
    """One line on what a training of some minutes does.

    Args:
        steps: Steps that it takes.
        seconds: Its time.
        overrun: Seconds to the end of the run where even one step takes longer than its time, else
            0.
    """
    if overrun and steps == 1:
        return (
            f"not one step fits into {duration(seconds)} on this machine, validation and threshold"
            f" included; one is taken, about {duration(overrun)} from here"
        )
    verb = "fits" if steps == 1 else "fit"
    return (
        f"{many(steps, 'step')} {verb} into {duration(seconds)} on this machine, "
        "validation and threshold included"
    )


def rehearse(trainer: Trainer, pace: Pace, seconds: float) -> None:
    """Time two to eight steps, for about `seconds`, and go back to the state before them."""
    before = {name: value.clone() for name, value in trainer.restorer.state_dict().items()}
    start = time.monotonic()
    while len(pace.steps) < 2 or (len(pace.steps) < 8 and time.monotonic() - start < seconds):
        step_start = time.monotonic()
        trainer.advance()
        pace.steps.append(time.monotonic() - step_start)
    trainer.rewind(before)
