"""`detect` over everything it is given: one row per input, whatever happens to it; memory for a few
scans at a time."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pseudohealthy import io, progress
from pseudohealthy.counts import many
from pseudohealthy.detection import finished
from pseudohealthy.detection.bids import Bids
from pseudohealthy.detection.detector import Detector
from pseudohealthy.detection.finding import Finding, split_kinds
from pseudohealthy.detection.interrupted import unforeseen
from pseudohealthy.detection.output_layout import places
from pseudohealthy.detection.outputs import KINDS
from pseudohealthy.detection.rows import Detections, blank
from pseudohealthy.errors import BAD_OUTPUT, INTERRUPTED, Fault
from pseudohealthy.io.hashing import sha256
from pseudohealthy.io.names import unname
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.progress import Progress, say, say_error
from pseudohealthy.signals import STOP

OVERLAP = ("cuda", "mps")  # on the CPU a thread beside the network slows it by as much as it saves


@dataclass(frozen=True)
class Job:
    """What is done with every input, whoever does it; request: its sha256, as in `finished`."""

    folder: Path
    request: str
    kinds: tuple[str, ...] = KINDS
    layout: str | Bids = "cases"
    assume_spacing: float | None = None
    # Case id -> reference (D, H, W) bool, where known.
    truths: Mapping[str, np.ndarray] = field(default_factory=dict)


def work(
    sources: Sequence[io.Source], detector: Detector, job: Job, result: Detections, bar: Progress
) -> None:
    """Restore and save every source here, one group after the other; what became of them goes into
    `result`.

    Beside a GPU, a thread writes the last group and reads the next one meanwhile: three groups are
    then in memory.
    """
    several = groups(sources, detector, job, result, bar)
    if detector.device.type not in OVERLAP:
        for pairs in several:
            store(restored(pairs, detector, result), job, result)
            bar.advance(len(pairs))
        return
    with ThreadPoolExecutor(1) as aside:
        reading = aside.submit(next, several, None)
        writing: Future[None] | None = None
        while group := reading.result():
            reading = aside.submit(next, several, None)
            findings = restored(group, detector, result)
            if writing:
                writing.result()
            writing = aside.submit(store, findings, job, result)
            bar.advance(len(group))
        if writing:
            writing.result()


def store(findings: Sequence[Finding], job: Job, result: Detections) -> None:
    """Write findings and their rows; one that cannot be saved is a failed row. Fault OUTPUT (exit
    6) ends everything."""
    for finding in findings:
        STOP.check()
        finding.hashes = {"input_sha256": finding.scan.sha256, "request_sha256": job.request}
        try:
            paths = finding.save(job.folder, job.kinds, job.layout, job.truths.get(finding.case_id))
            row = finding.row()
        except Exception as error:
            fail(result, finding.case_id, error, finding.scan.unnamed)
            continue
        result.keep(row, paths.get("panel"), paths.get("html"), finding.left_out)


def unfinished(
    sources: Sequence[io.Source], job: Job, result: Detections, bar: Progress
) -> list[io.Source]:
    """The sources still to do; the rows of the others are taken from their case.json."""
    todo = []
    for source in sources:
        said = None
        STOP.check()
        try:
            case = places(job.folder, source.case_id, job.layout).case
            if (case / "case.json").is_file():
                said = finished.finished(case, input_sha256(source), job.request)
        except (Fault, OSError):
            pass  # whatever is wrong with it is said when it is read
        if said is None:
            todo.append(source)
            continue
        result.take_over(said, case)
        bar.advance()
    if len(todo) < len(sources):
        say(
            f"{len(sources) - len(todo)} of {many(len(sources), 'case')}"
            f" {'is' if len(sources) - len(todo) == 1 else 'are'} finished already"
        )
    return todo


def input_sha256(source: io.Source) -> str:
    """Hash of what is read; the item of a file of many is named behind it."""
    return sha256(source.files) + ("" if source.item is None else f"#{source.item}")


def groups(
    sources: Sequence[io.Source], detector: Detector, job: Job, result: Detections, bar: Progress
) -> Iterator[list[tuple[Scan, Fitted]]]:
    """Readable inputs on the canvas, together until they fill a batch of planes; the others become
    failed rows."""
    pairs: list[tuple[Scan, Fitted]] = []
    for source in sources:
        STOP.check()
        try:
            scan = io.read(source, plane=detector.canvas.plane, assume_spacing=job.assume_spacing)
            scan.name = source.case_id
            split_kinds(job.kinds, scan)
            places(job.folder, source.case_id, job.layout, scan)
            scan.sha256 = input_sha256(source)
            pairs.append((scan, detector.fit(scan)))
        except Exception as error:
            fail(result, source.case_id, error, source.paths if source.origin else ())
            bar.advance()
        if sum(len(fitted.planes) for _, fitted in pairs) >= detector.batch:
            yield pairs
            pairs = []
    if pairs:
        yield pairs


def restored(
    pairs: list[tuple[Scan, Fitted]], detector: Detector, result: Detections
) -> list[Finding]:
    """Findings of a group; where the group fails, of each of its cases that does not."""
    try:
        return list(detector.restore(pairs))
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) and detector.batch > 1:
            detector.batch //= 2
            say(
                f"warning: not enough GPU memory; going on with a batch of {detector.batch} planes",
                error=True,
            )
            return restored(pairs, detector, result)
        if len(pairs) == 1:
            fail(result, pairs[0][0].name, error, pairs[0][0].unnamed)
            return []
        return [finding for pair in pairs for finding in restored([pair], detector, result)]


def fail(result: Detections, case_id: str, error: Exception, unnamed: Sequence[Path] = ()) -> None:
    """A failed row, and one line for the user; a bug that one case brings out must not cost the
    others. unnamed: files that what is said must not name."""
    STOP.check()  # a library may have turned the interruption into an error of its own
    unname(error, unnamed)
    fault = error if isinstance(error, Fault) else unforeseen(error)
    if fault.exit in (BAD_OUTPUT, INTERRUPTED):
        raise fault
    if progress.debug:
        traceback.print_exception(error)
    fault.case = case_id
    fault.__traceback__ = fault.__context__ = fault.__cause__ = (
        None  # they hold on to the arrays of the input
    )
    result.faults.append(fault)
    result.rows.append(
        blank(case_id) | {"status": "failed", "warnings": f"{fault.code}: {fault.message}"}
    )
    say_error(fault)
