"""`detect` over everything it is given: one row per input, whatever happens to it; memory for a few scans at a time."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pseudohealthy import io, processes, progress
from pseudohealthy.detection import bids, finished, interrupted, ray_workers
from pseudohealthy.detection.bids import Bids
from pseudohealthy.detection.detector import Detector
from pseudohealthy.detection.finding import KINDS, Finding, check_kinds, check_some, split_kinds
from pseudohealthy.detection.interrupted import unforeseen
from pseudohealthy.detection.key import extend as extend_key
from pseudohealthy.detection.key import place as place_of_key
from pseudohealthy.detection.output_layout import LAYOUTS, places
from pseudohealthy.detection.rows import Detections, blank, say_left_out, write_results
from pseudohealthy.errors import BAD_OUTPUT, INTERRUPTED, USAGE, Fault
from pseudohealthy.io.hashing import sha256
from pseudohealthy.io.names import unname
from pseudohealthy.io.output_folder import prepare_folder
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Fitted
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers.changes import changes
from pseudohealthy.runs.run import Run, provenance
from pseudohealthy.signals import STOP

ENGINES = ("plain", "ray")
OVERLAP = ("cuda", "mps")  # on the CPU a thread beside the network slows it by as much as it saves


@dataclass(frozen=True)
class Job:
    """What is done with every input, whoever does it; request: its sha256, as in `resume`."""

    folder: Path
    request: str
    kinds: tuple[str, ...] = KINDS
    layout: str | Bids = "cases"
    assume_spacing: float | None = None
    truths: Mapping[str, np.ndarray] = field(default_factory=dict)  # case id -> reference (D, H, W) bool, where known


@STOP
def detect(
    run: Run | Path | str,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    kinds: Sequence[str] = KINDS,
    threshold: float | str = "stored",
    calls: int | None = None,
    levels: int | None = None,
    settings: Sequence[str] = (),
    device: str = "auto",
    batch: int = 32,
    overwrite: bool = False,
    resume_finished: bool = False,
    layout: str = "cases",
    assume_spacing: float | None = None,
    engine: str = "plain",
    workers: int | None = None,
    precision: str = "auto",
    names: str = "series",
    key: Path | str | None = None,
    strict_domain: bool = False,
    truths: Mapping[str, np.ndarray] | None = None,
) -> Detections:
    """Restore every input, write its finding into out/<case_id> and a row into out/findings.csv; the command ``detect``.

    inputs: files and folders as `io.discover` takes them. calls: network calls of a walk back instead of the recipe's;
    levels is its former name. settings: of restoring and of the map instead of the run's, ``restorer.draws=4``.
    resume_finished: cases that the same request finished in `out` are not done again (see `resume`). overwrite: what an
    earlier detection wrote into its case folders is removed first. layout: "cases" or "bids". Under torchrun every
    process takes its share of the inputs and the first one writes the tables. assume_spacing: mm between the pixels of a
    DICOM series that does not say. engine: "plain", here, or "ray", on `workers` processes of a cluster (see `engines`).
    precision: "auto" (bf16 where the processor computes in it), "fp32" or "bf16".
    names: of DICOM cases, by "series" or by "path"; key: the file outside `out` that says which series is which file, by
    default OUT.key.csv beside it (see `detection.key`).
    strict_domain: an input unlike those the run was trained on fails, instead of being warned of.
    truths: case id -> reference (D, H, W) bool on the input's grid, where one is known: see `Finding.save`.
    An input that cannot be read fails alone, with a row that says why. Raises `Fault` where nothing could begin.
    """
    check_kinds(kinds)
    if layout not in LAYOUTS:
        raise Fault("LAYOUT", f"there is no layout '{layout}'", f"one of: {', '.join(LAYOUTS)}", exit=USAGE)
    if resume_finished and "json" not in kinds:
        raise Fault("RESUME", "only case.json says whether a case is finished", "add json to --kinds", exit=USAGE)
    if resume_finished and overwrite:
        what = "--resume keeps what is finished, --overwrite removes it"
        raise Fault("USAGE", what, "give one of them", exit=USAGE)
    if assume_spacing is not None and not 0.01 <= assume_spacing <= 10:
        raise Fault("USAGE", f"--assume-spacing {assume_spacing:g}", "give mm between 0.01 and 10", exit=USAGE)
    if engine not in ENGINES:
        raise Fault("USAGE", f"there is no engine '{engine}'", f"one of: {', '.join(ENGINES)}", exit=USAGE)
    if workers is not None and (engine == "plain" or workers < 1):
        raise Fault(
            "USAGE", f"--workers {workers} with engine {engine}", "give 1 or more, with --engine ray", exit=USAGE
        )
    key_file = place_of_key(out, key)
    run = run if isinstance(run, Run) else Run.open(run)
    settings = changes(run.recipe, calls or levels, settings)
    if engine == "ray":
        ray_workers.require_ray()
    world = processes.join(device, objects=True)
    if engine != "plain" and world.size > 1:
        raise Fault("USAGE", f"engine {engine} under torchrun", "take one of them", exit=USAGE)
    detector = Detector(
        run, device=str(world.device), batch=batch, precision=precision, threshold=threshold, settings=settings,
        strict_domain=strict_domain,
    )  # fmt: skip
    if settings and threshold == "stored":
        say(f"note: threshold and healthy percentile were set without {', '.join(settings)}")
    found = io.survey(list(inputs), names)
    sources = found.sources
    check_some(kinds, {source.kind for source in sources})
    request = finished.request_sha256(detector.made(), threshold=detector.choice, kinds=sorted(kinds), layout=layout,
                                    **({} if assume_spacing is None else {"assume_spacing": assume_spacing}),
                                    **({"strict_domain": True} if strict_domain else {}),
                                    **({"truths": finished.digests(truths)} if truths else {}))  # fmt: skip

    def begin() -> None:
        folder = prepare_folder(out, overwrite=overwrite or resume_finished)
        if overwrite or resume_finished:
            finished.remove_temporary(folder)
        if overwrite and not resume_finished:
            finished.remove_cases(folder)
        if extend_key(key_file, sources):
            say(f"key: {key_file} says which series is which file")

    hidden = {io.split_item(path)[0]: "INPUT" for path in inputs} | {Path(path): "INPUT" for path in inputs}
    made = {**detector.made(), **provenance(hidden | {key_file: "KEY"})}
    result = Detections(Path(out), first=world.first)
    laid_out = bids.read(sources) if layout == "bids" else layout
    if isinstance(laid_out, Bids) and resume_finished:
        bids.require_same(Path(out), laid_out)
    job = Job(result.folder, request, tuple(kinds), laid_out, assume_spacing, truths or {})
    mine = sources[world.rank :: world.size]
    stopped: BaseException | None = None
    begun = False
    try:
        with STOP.held():
            world.once(begin)
            begun = True
        STOP.check()
        with Progress("detecting", len(mine)) as bar:
            todo = unfinished(mine, job, result, bar) if resume_finished else mine
            if engine == "ray":
                ray_workers.work(todo, detector, job, result, bar, workers)
            else:
                work(todo, detector, job, result, bar)
    except BaseException as error:  # also when interrupted: every finished case has its row
        if not begun:
            raise
        stopped = error
    with STOP.held():
        result, stopped = interrupted.gathered(world, result, stopped)
        if world.first:
            if stopped is not None:
                interrupted.add_finished(sources, job, result, world)
            finished.remove_failed(result.folder, result.rows)
            order = {source.case_id: i for i, source in enumerate(sources)}
            result.rows.sort(key=lambda row: order.get(row["case_id"], len(order)))
            done = len(result.rows)
            for name, reason in found.left_out():
                result.rows.append(blank(name) | {"status": "skipped", "warnings": reason})
            left = len(sources) - done if isinstance(stopped, KeyboardInterrupt) else 0
            scores = detector.stored.get("case_scores") or ()
            write_results(result, made, scores, left)
        if not isinstance(stopped, KeyboardInterrupt):
            interrupted.wait(world, stopped)
    if isinstance(stopped, KeyboardInterrupt):
        done = done if world.first else 0
        raise interrupted.ending(world, done, len(sources), kinds) from None
    if stopped is not None:
        raise stopped
    if world.first and found.beside:
        say(f"beside the inputs: {found.aside()}")
    if world.first:
        say_left_out(result)
        say(f"report: {result.folder / 'report.html'}")
    return result


def work(sources: Sequence[io.Source], detector: Detector, job: Job, result: Detections, bar: Progress) -> None:
    """Restore and save every source here, one group after the other; what became of them goes into `result`.

    Beside a GPU, a thread writes the last group and reads the next one meanwhile: three groups are then in memory.
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
    """Write findings and their rows; one that cannot be saved is a failed row. Fault OUTPUT (exit 6) ends everything."""
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


def unfinished(sources: Sequence[io.Source], job: Job, result: Detections, bar: Progress) -> list[io.Source]:
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
        say(f"{len(sources) - len(todo)} of {len(sources)} cases are finished already")
    return todo


def input_sha256(source: io.Source) -> str:
    """Hash of what is read; the item of a file of many is named behind it."""
    return sha256(source.paths) + ("" if source.item is None else f"#{source.item}")


def groups(
    sources: Sequence[io.Source], detector: Detector, job: Job, result: Detections, bar: Progress
) -> Iterator[list[tuple[Scan, Fitted]]]:
    """Readable inputs on the canvas, together until they fill a batch of planes; the others become failed rows."""
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


def restored(pairs: list[tuple[Scan, Fitted]], detector: Detector, result: Detections) -> list[Finding]:
    """Findings of a group; where the group fails, of each of its cases that does not."""
    try:
        return list(detector.restore(pairs))
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError) and detector.batch > 1:
            detector.batch //= 2
            say(f"warning: not enough GPU memory; going on with a batch of {detector.batch} planes", error=True)
            return restored(pairs, detector, result)
        if len(pairs) == 1:
            fail(result, pairs[0][0].name, error, pairs[0][0].unnamed)
            return []
        return [finding for pair in pairs for finding in restored([pair], detector, result)]


def fail(result: Detections, case_id: str, error: Exception, unnamed: Sequence[Path] = ()) -> None:
    """A failed row, and one line for the user; a bug that one case brings out must not cost the others. unnamed: files that
    what is said must not name."""
    STOP.check()  # a library may have turned the interruption into an error of its own
    unname(error, unnamed)
    fault = error if isinstance(error, Fault) else unforeseen(error)
    if fault.exit in (BAD_OUTPUT, INTERRUPTED):
        raise fault
    if progress.debug:
        traceback.print_exception(error)
    fault.case = case_id
    fault.__traceback__ = fault.__context__ = fault.__cause__ = None  # they hold on to the arrays of the input
    result.faults.append(fault)
    result.rows.append(blank(case_id) | {"status": "failed", "warnings": f"{fault.code}: {fault.message}"})
    say(str(fault), error=True)
