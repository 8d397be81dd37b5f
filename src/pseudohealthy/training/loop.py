"""One training loop for every method: `for part in restorer.parts(): restorer.loss(batch, part)`.

Order of planes, augmentation, noise levels and noise are functions of (seed, step, position in the
global batch), so a run resumed after a kill equals the uninterrupted one bit for bit on CPU, and
two processes equal one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import INTERRUPTED, Fault
from pseudohealthy.processes import World
from pseudohealthy.progress import Progress, say
from pseudohealthy.runs.run import Run, now
from pseudohealthy.signals import Signals
from pseudohealthy.training import finish, memory, plane_store, trackers, validation
from pseudohealthy.training.hooks import Hooks
from pseudohealthy.training.pace import Pace, settle
from pseudohealthy.training.trainer import Trainer

LATE = "the time is nearly up"  # the machine has become slower than its first steps were
ASKED = "a function of the program that trains asked for it"
NO_HOOKS = Hooks()


def fit(
    run: Run,
    store: plane_store.PlaneStore,
    world: World,
    *,
    sink: str = "none",
    begun: float | None = None,
    hooks: Hooks = NO_HOOKS,
) -> Run:
    """Train to the end of the budget, validating and saving on the way, and finish the run.

    Args:
        run: The run, new or to be resumed.
        sink: Tracker that gets a copy of the history, see `trackers.open_sink`.
        begun: When the time of the budget began to count, by ``time.monotonic``.
        hooks: Functions of the program that trains.

    Returns:
        The run as it lies on disk afterwards.
    """
    trainer = Trainer(run, store, world)
    if (run.folder / "resume.safetensors").is_file():
        trainer.load()
        say(f"resumed at step {trainer.step} of {trainer.total}")
    if trainer.restorer.parts():
        memory.require(trainer)
        steps(
            trainer,
            begun or time.monotonic(),
            trackers.open_sink(sink, run.folder) if world.first else trackers.Sink(),
            hooks,
        )
    if world.first:
        if not trainer.restorer.parts():
            announce(trainer, 0)
            trainer.save()
        with ending(run):
            finish.finish(trainer)
    world.wait()
    return Run.open(run.folder)


@contextlib.contextmanager
def ending(run: Run) -> Iterator[None]:
    """Turn a stop while the threshold is set into a Fault: the weights are saved, and --resume sets
    it again."""
    try:
        yield
    except KeyboardInterrupt:
        run.note(status="interrupted", stopped=now())
        message = "stopped while the threshold was set; the weights are saved"
        raise Fault(
            "INTERRUPTED", message, f"go on with: {run.going_on}", exit=INTERRUPTED
        ) from None


def announce(trainer: Trainer, total: int) -> None:
    """Say in run.json and on the screen what is trained."""
    run, world = trainer.run, trainer.world
    parameters = sum(p.numel() for p in trainer.restorer.parameters())
    run.note(
        status="running",
        steps=total,
        planes=len(trainer.rows),
        parameters=parameters,
        precision=str(trainer.precision).removeprefix("torch."),
        device=world.device.type,
        processes=world.size,
    )
    amount = f"{many(total, 'step')} of {trainer.budget.batch}"
    say(
        f"{run.recipe.name}: {parameters:,} parameters, {many(len(trainer.rows), 'plane')},"
        f" {amount}"
    )


def steps(trainer: Trainer, begun: float, tracker: trackers.Sink, hooks: Hooks) -> None:
    """Take all steps of the budget, or as many as its minutes allow."""
    world, pace, deadline = trainer.world, Pace(trainer, begun), math.inf
    if trainer.budget.minutes:
        deadline = begun + 60 * trainer.budget.minutes
        settle(trainer, pace)
    if world.first:
        announce(trainer, trainer.total)
    total, every, running = trainer.total, trainer.budget.every(trainer.total), []
    with Signals() as stop, Progress("training", total, start=trainer.step) as bar:
        while trainer.step < total:
            started = time.monotonic()
            with memory.told(trainer):
                values = trainer.advance()
            pace.steps.append(time.monotonic() - started)
            running.append(values | {"step_seconds": pace.steps[-1]})
            bar.advance(note=" ".join(f"{k} {v:.4f}" for k, v in values.items()))
            interrupted = world.any(stop.seen)
            if deadline < math.inf and world.any(pace.late(deadline)) and trainer.step < total:
                total = early(trainer, total, LATE)
            if hooks.on_step and world.any(hooks.step(trainer.step, values, world.first)):
                total = early(trainer, total, ASKED)
            if world.first:
                pace.tell(total) if deadline == math.inf else None
            if trainer.step % every == 0 or trainer.step == total or interrupted:
                paused = time.monotonic()
                entry = look(trainer, running, tracker, begun, interrupted)
                pace.pauses.append(time.monotonic() - paused)
                running = []
                asked = hooks.validation(entry, world.first and not interrupted)
                if hooks.on_validation and world.any(asked) and trainer.step < total:
                    total = early(trainer, total, ASKED)
            if interrupted:
                if world.first:
                    trainer.run.note(status="interrupted", step=trainer.step, stopped=now())
                raise Fault(
                    "INTERRUPTED",
                    f"stopped at step {trainer.step}, state saved",
                    f"go on with: {trainer.run.going_on}",
                    exit=INTERRUPTED,
                )
    tracker.close()


def early(trainer: Trainer, total: int, why: str) -> int:
    """Make this step the last one."""
    if trainer.world.first:
        trainer.run.note(steps=trainer.step, steps_settled=total)
        say(f"{why}: this is the last step, {trainer.step:,} of {total:,}")
    return trainer.step


def look(
    trainer: Trainer,
    running: list[dict[str, float]],
    tracker: trackers.Sink,
    begun: float,
    interrupted: bool,
) -> dict[str, Any]:
    """Validate, unless interrupted, and save; return the entry of the history."""
    budget, world = trainer.budget, trainer.world
    entry: dict[str, Any] = {
        "step": trainer.step,
        "epoch": round(trainer.step * budget.batch / len(trainer.rows), 3),
        "rate": budget.rate_at(trainer.step - 1, trainer.total),
        "seconds": round(time.monotonic() - begun, 2),
        "step_seconds": round(float(np.median([r["step_seconds"] for r in running])), 4),
        **{f"loss_{part}": float(np.mean([r[part] for r in running])) for part in trainer.losses},
    }
    if world.first and not interrupted:
        entry |= validation.validate(trainer, entry)
        validation.keep_best(trainer, entry)
    if not interrupted:
        trainer.history.append(entry)
        tracker.write(entry)
    trainer.save()
    world.wait()
    return entry
