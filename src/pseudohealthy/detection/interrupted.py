"""What `detect` keeps when it ends early: the rows of every process, and one line that says how to
go on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from pseudohealthy.detection import finished
from pseudohealthy.detection.output_layout import places
from pseudohealthy.errors import INTERNAL, INTERRUPTED, RESOURCE, Fault
from pseudohealthy.registry import at_fault, broken
from pseudohealthy.signals import STOP

if TYPE_CHECKING:
    from pseudohealthy.detection.rows import Detections
    from pseudohealthy.detection.worker import Job
    from pseudohealthy.io import Source
    from pseudohealthy.processes import World

GRACE = 1.0  # seconds in which the other processes end what they write


def gathered(
    world: World, result: Detections, stopped: BaseException | None
) -> tuple[Detections, BaseException | None]:
    """The rows of all processes and what stopped the first of them that did not finish, in the
    first process.

    Who was interrupted waits for nobody: the others may be gone.
    """
    if world.size == 1 or isinstance(stopped, KeyboardInterrupt):
        return result, stopped
    fault = stopped if isinstance(stopped, Fault) or stopped is None else unforeseen(stopped)
    try:
        parts = world.gather((result, fault))
    except RuntimeError:  # a process is gone; its finished cases are found in their folders
        found, cure = "another process ended early", "see what it said; --resume goes on"
        lost = KeyboardInterrupt() if STOP.seen else Fault("ENGINE", found, cure, exit=RESOURCE)
        return result, lost
    whole = type(result)(result.folder, first=world.first)
    for part, _ in parts:  # all of them in the first process, none in the others
        whole.add(part)
    return whole, next((fault for _, fault in parts if fault is not None), None)


def wait(world: World, stopped: BaseException | None) -> None:
    """Until every process is here: one that ends early would take the others down."""
    try:
        world.wait()
    except RuntimeError:
        if stopped is None:  # else it is the process that is gone
            raise


def add_finished(sources: Sequence[Source], job: Job, result: Detections, world: World) -> None:
    """Rows of cases that other processes, or an earlier run of the same request, have finished."""
    if world.size > 1:
        time.sleep(GRACE)
    known = {row["case_id"] for row in result.rows}
    for source in sources:
        if source.case_id in known:
            continue
        with contextlib.suppress(Fault):
            case = places(job.folder, source.case_id, job.layout).case
            said = finished.described(case, job.request)
            if said is not None:
                result.take_over(said, case)
    if world.size == 1:
        finished.remove_temporary(job.folder)


def ending(world: World, done: int, count: int, kinds: Sequence[str]) -> BaseException:
    """What ends the program: one line from the first process, nothing from the others."""
    if not world.first:
        return SystemExit(INTERRUPTED)
    again = "--resume goes on" if "json" in kinds else "--overwrite begins anew"
    return KeyboardInterrupt(
        f"stopped; {done} of {count} cases are done and stand in findings.csv; the same command"
        f" with {again}"
    )


def unforeseen(error: BaseException) -> Fault:
    """What is no finding about the input: memory, or a bug."""
    text = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return Fault(
            "OUT_OF_MEMORY",
            "not enough memory for this input",
            "use a machine with more",
            exit=RESOURCE,
        )
    if origin := at_fault(error):
        return broken(origin.name, error)
    cure = "a bug: run this input with --debug and report it"
    return Fault("INTERNAL", f"{type(error).__name__}: {text}", cure, exit=INTERNAL)
