"""`detect`: one row for every input, whatever happens to it."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
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
from pseudohealthy.io.source import Source
from pseudohealthy.io.table import harmless_cell
from pseudohealthy.processes import World
from pseudohealthy.progress import Progress, say, tell
from pseudohealthy.report.page import Cases, Report, write_report
from pseudohealthy.runs.changes import changes
from pseudohealthy.runs.run import Run, provenance
from pseudohealthy.signals import STOP
from pseudohealthy.workflows.request import verb

ENGINES = ("plain", "ray")


@dataclass(frozen=True)
class Detect:
    """Restore every input, write its finding into out/<case_id> and a row into out/findings.csv;
    the command ``detect``.

    Args:
        run: a run, or where it lies, or the name of a model that comes along.
        inputs: files and folders as `io.discover` takes them.
        out: the folder for everything.
        kinds: what is written of each case, see `detection.outputs`.
        threshold: a number, "stored" or "otsu".
        calls: network calls of a walk back instead of the recipe's.
        levels: the former name of `calls`.
        settings: of restoring and of the map instead of the run's, ``restorer.walk.draws=4``.
        device: "auto", "cpu" or "cuda".
        batch: planes restored at once; changes speed and memory only.
        overwrite: what an earlier detection wrote into its case folders is removed first.
        resume_finished: cases that the same request finished in `out` are not done again (see
            `detection.finished`).
        layout: "cases" or "bids".
        assume_spacing: mm between the pixels of a DICOM series that does not say, 0.01 to 10.
        engine: "plain", here, or "ray", on `workers` processes of a cluster (see
            `detection.ray_workers`).
        workers: at least 1, with engine "ray".
        precision: "auto" (bf16 where the processor computes in it), "fp32" or "bf16".
        names: of DICOM cases, by "series" or by "path".
        key: the file outside `out` that says which series is which file, by default OUT.key.csv
            beside it (see `detection.key`).
        strict_domain: an input unlike those the run was trained on fails, instead of being warned
            of.
        truths: case id -> reference (D, H, W) bool on the input's grid, where one is known: see
            `Finding.save`.

    Under torchrun every process takes its share of the inputs and the first one writes the tables.
    An input that cannot be read fails alone, with a row that says why. Raises `Fault` where nothing
    could begin.
    """

    run: Run | Path | str
    inputs: Sequence[Path | str]
    out: Path | str
    _: KW_ONLY
    kinds: Sequence[str] = KINDS
    threshold: float | str = "stored"
    calls: int | None = None
    levels: int | None = None
    settings: Sequence[str] = ()
    device: str = "auto"
    batch: int = 32
    overwrite: bool = False
    resume_finished: bool = False
    layout: str = "cases"
    assume_spacing: float | None = None
    engine: str = "plain"
    workers: int | None = None
    precision: str = "auto"
    names: str = "series"
    key: Path | str | None = None
    strict_domain: bool = False
    truths: Mapping[str, np.ndarray] | None = None

    def __call__(self) -> Detections:
        self.check()
        key_file = place_of_key(self.out, self.key)
        detector, world = self.detector()
        survey = io.survey(list(self.inputs), self.names)
        sources = survey.sources
        check_some(self.kinds, {source.kind for source in sources})
        hidden = {io.split_item(path)[0]: "INPUT" for path in self.inputs}
        hidden |= {Path(path): "INPUT" for path in self.inputs} | {key_file: "KEY"}
        record = {**detector.made(), **provenance(hidden)}
        result = Detections(Path(self.out), first=world.first)
        job = self.job(detector, sources)
        error = self.work(detector, world, job, sources, result, key_file)
        n_done = 0
        with STOP.held():
            result, error = interrupted.gathered(world, result, error)
            if world.first:
                if error is not None:
                    interrupted.add_finished(sources, job, result, world)
                finished.remove_failed(result.folder, result.rows)
                order = {source.case_id: i for i, source in enumerate(sources)}
                result.rows.sort(key=lambda row: order.get(row["case_id"], len(order)))
                n_done = len(result.rows)
                for name, reason in survey.left_out():
                    result.rows.append(blank(name) | {"status": "skipped", "warnings": reason})
                n_left = len(sources) - n_done if isinstance(error, KeyboardInterrupt) else 0
                write_results(result, record, detector.stored.get("case_scores") or (), n_left)
            if not isinstance(error, KeyboardInterrupt):
                interrupted.wait(world, error)
        if isinstance(error, KeyboardInterrupt):
            raise interrupted.ending(world, n_done, len(sources), self.kinds) from None
        if error is not None:
            raise error
        if world.first:
            if survey.beside:
                say(f"beside the inputs: {survey.aside()}")
                tell(beside=survey.aside())
            say_left_out(result)
            say(f"report: {result.folder / 'report.html'}")
        return result

    def check(self) -> None:
        """Refuse words that do not fit one another, before anything is read.

        Raises:
            Fault: exit 2.
        """
        check_kinds(self.kinds)
        if self.layout not in LAYOUTS:
            message, cure = f"there is no layout '{self.layout}'", f"one of: {', '.join(LAYOUTS)}"
            raise Fault("LAYOUT", message, cure, exit=USAGE)
        if self.resume_finished and "json" not in self.kinds:
            message = "only case.json says whether a case is finished"
            raise Fault("RESUME", message, "add json to --kinds", exit=USAGE)
        if self.resume_finished and self.overwrite:
            message = "--resume keeps what is finished, --overwrite removes it"
            raise Fault("USAGE", message, "give one of them", exit=USAGE)
        if self.assume_spacing is not None and not 0.01 <= self.assume_spacing <= 10:
            message = f"--assume-spacing {self.assume_spacing:g}"
            raise Fault("USAGE", message, "give mm between 0.01 and 10", exit=USAGE)
        if self.engine not in ENGINES:
            message = f"there is no engine '{self.engine}'"
            raise Fault("USAGE", message, f"one of: {', '.join(ENGINES)}", exit=USAGE)
        if self.workers is not None and (self.engine == "plain" or self.workers < 1):
            message = f"--workers {self.workers} with engine {self.engine}"
            raise Fault("USAGE", message, "give 1 or more, with --engine ray", exit=USAGE)

    def detector(self) -> tuple[Detector, World]:
        """Return what restores, and which of how many processes this is."""
        run = self.run if isinstance(self.run, Run) else Run.open(self.run)
        settings = changes(run.recipe, self.calls or self.levels, self.settings)
        if self.engine == "ray":
            ray_workers.require_ray()
        world = processes.join(self.device, objects=True)
        if self.engine != "plain" and world.size > 1:
            message = f"engine {self.engine} under torchrun"
            raise Fault("USAGE", message, "take one of them", exit=USAGE)
        detector = Detector(
            run,
            device=str(world.device),
            batch=self.batch,
            precision=self.precision,
            threshold=self.threshold,
            settings=settings,
            strict_domain=self.strict_domain,
        )
        if settings and self.threshold == "stored":
            say(f"note: threshold and healthy percentile were set without {', '.join(settings)}")
        return detector, world

    def job(self, detector: Detector, sources: Sequence[Source]) -> Job:
        """Return what every worker is told; its hash is what `resume_finished` compares."""
        extra: dict[str, Any] = (
            {} if self.assume_spacing is None else {"assume_spacing": self.assume_spacing}
        )
        extra |= {"strict_domain": True} if self.strict_domain else {}
        extra |= {"truths": finished.digests(self.truths)} if self.truths else {}
        request = finished.request_sha256(
            detector.made(),
            threshold=detector.choice,
            kinds=sorted(self.kinds),
            layout=self.layout,
            **extra,
        )
        layout = bids.read(sources) if self.layout == "bids" else self.layout
        if isinstance(layout, Bids) and self.resume_finished:
            bids.require_same(Path(self.out), layout)
        return Job(
            Path(self.out),
            request,
            tuple(self.kinds),
            layout,
            self.assume_spacing,
            self.truths or {},
        )

    def work(
        self,
        detector: Detector,
        world: World,
        job: Job,
        sources: Sequence[Source],
        result: Detections,
        key: Path,
    ) -> BaseException | None:
        """Do this process's share of the sources.

        Returns:
            What stopped it, when every finished case has its row.
        """
        share, begun = sources[world.rank :: world.size], False
        try:
            with STOP.held():
                world.once(lambda: self.begin(sources, key))
                begun = True
            STOP.check()
            with Progress("detecting", len(share)) as bar:
                todo = unfinished(share, job, result, bar) if self.resume_finished else share
                if self.engine == "ray":
                    ray_workers.work(todo, detector, job, result, bar, self.workers)
                else:
                    work(todo, detector, job, result, bar)
        except BaseException as error:  # also when interrupted
            if not begun:
                raise
            return error
        return None

    def begin(self, sources: Sequence[Source], key: Path) -> None:
        """Prepare the folder, without what is to go, and the key beside it."""
        folder = prepare_folder(self.out, overwrite=self.overwrite or self.resume_finished)
        if self.overwrite or self.resume_finished:
            finished.remove_temporary(folder)
        if self.overwrite and not self.resume_finished:
            finished.remove_cases(folder)
        if extend_key(key, sources):
            say(f"key: {key} says which series is which file")


detect = STOP(verb(Detect))


MOST_SHOWN = 5000  # rows of report.html; a browser opens them in seconds, and findings.csv has all


def write_results(
    result: Detections, record: dict[str, Any], validation_scores: Sequence[float], n_left: int = 0
) -> None:
    """Write findings.csv, findings.json and report.html.

    Args:
        result: the findings.
        record: how they were made.
        validation_scores: of healthy cases, drawn behind those of the rows.
        n_left: inputs that an interruption left undone.
    """
    with (
        atomic(result.folder / "findings.csv") as path,
        open(path, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in result.rows:
            writer.writerow(
                {
                    k: harmless_cell(v) if isinstance(v, str) else ("" if v is None else v)
                    for k, v in row.items()
                }
            )
    finished_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    content = {"made": record, "findings": result.rows, "finished": finished_at}
    write_json(result.folder / "findings.json", content | ({"not_done": n_left} if n_left else {}))
    counts = {
        s: sum(row["status"] == s for row in result.rows)
        for s in ("ok", "warn", "failed", "skipped")
    }
    summary = {k: v for k, v in (counts | {"interrupted, not done": n_left}).items() if v}
    cases = Cases(
        result.rows,
        panels=result.panels,
        pages=result.pages,
        most=MOST_SHOWN,
        validation_scores=validation_scores,
    )
    title = f"Findings of {record['run']}"
    write_report(result.folder, Report(title, summary=summary, cases=cases, provenance=record))
