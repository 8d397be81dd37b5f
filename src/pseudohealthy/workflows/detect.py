"""`detect`: one row for every input, whatever happens to it."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy import io, processes
from pseudohealthy.detection import bids, finished, interrupted, ray_workers
from pseudohealthy.detection.bids import Bids
from pseudohealthy.detection.detector import Detector
from pseudohealthy.detection.finding import COLUMNS
from pseudohealthy.detection.key import extend as extend_key
from pseudohealthy.detection.key import place as place_of_key
from pseudohealthy.detection.output_layout import LAYOUTS
from pseudohealthy.detection.outputs import KINDS, check_kinds, check_some
from pseudohealthy.detection.rows import Detections, blank, say_left_out
from pseudohealthy.detection.worker import Job, unfinished, work
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.atomic import atomic, write_json
from pseudohealthy.io.output_folder import prepare_folder
from pseudohealthy.io.table import harmless_cell
from pseudohealthy.progress import Progress, say
from pseudohealthy.report.page import write_report
from pseudohealthy.runs.changes import changes
from pseudohealthy.runs.run import Run, provenance
from pseudohealthy.signals import STOP

ENGINES = ("plain", "ray")


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
    """Restore every input, write its finding into out/<case_id> and a row into out/findings.csv;
    the command ``detect``.

    inputs: files and folders as `io.discover` takes them. calls: network calls of a walk back
    instead of the recipe's; levels is its former name. settings: of restoring and of the map
    instead of the run's, ``restorer.walk.draws=4``.
    resume_finished: cases that the same request finished in `out` are not done again (see
    `detection.finished`). overwrite: what an earlier detection wrote into its case folders is
    removed first. layout: "cases" or "bids". Under torchrun every process takes its share of the
    inputs and the first one writes the tables. assume_spacing: mm between the pixels of a DICOM
    series that does not say. engine: "plain", here, or "ray", on `workers` processes of a cluster
    (see `detection.ray_workers`).
    precision: "auto" (bf16 where the processor computes in it), "fp32" or "bf16".
    names: of DICOM cases, by "series" or by "path"; key: the file outside `out` that says which
    series is which file, by default OUT.key.csv beside it (see `detection.key`).
    strict_domain: an input unlike those the run was trained on fails, instead of being warned of.
    truths: case id -> reference (D, H, W) bool on the input's grid, where one is known: see
    `Finding.save`. An input that cannot be read fails alone, with a row that says why. Raises
    `Fault` where nothing could begin.
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


MOST_SHOWN = 5000  # rows of report.html; a browser opens them in seconds, and findings.csv has all


def write_results(result: Detections, made: dict[str, Any], validation_scores: Sequence[float], left: int = 0) -> None:
    """findings.csv, findings.json and report.html. left: inputs that an interruption left
    undone."""
    with atomic(result.folder / "findings.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in result.rows:
            writer.writerow(
                {k: harmless_cell(v) if isinstance(v, str) else ("" if v is None else v) for k, v in row.items()}
            )
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    said = {"made": made, "findings": result.rows, "finished": when}
    write_json(result.folder / "findings.json", said | ({"not_done": left} if left else {}))
    counts = {s: sum(row["status"] == s for row in result.rows) for s in ("ok", "warn", "failed", "skipped")}
    summary = {k: v for k, v in (counts | {"interrupted, not done": left}).items() if v}
    write_report(
        result.folder,
        title=f"Findings of {made['run']}",
        rows=result.rows,
        summary=summary,
        panels=result.panels,
        pages=result.pages,
        most=MOST_SHOWN,
        validation_scores=validation_scores,
        provenance=made,
    )
