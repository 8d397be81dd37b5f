"""`detect` over everything it is given: one row per input, whatever happens to it; memory for a few scans at a time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pseudohealthy import io, progress
from pseudohealthy.canvas import Fitted
from pseudohealthy.detector import Detector
from pseudohealthy.errors import BAD_OUTPUT, INTERNAL, INTERRUPTED, RESOURCE, SOME_FAILED, Fault
from pseudohealthy.finding import KINDS, Finding
from pseudohealthy.io.atomic import atomic, write_json
from pseudohealthy.progress import Progress, say
from pseudohealthy.run import Run, prepare_folder, provenance
from pseudohealthy.scan import Scan

COLUMNS = (
    "case_id", "score", "healthy_percentile", "volume_ml_above", "n_regions", "threshold", "threshold_source", "status",
    "warnings", "seconds",
)  # fmt: skip


@dataclass
class Detections:
    """Rows of findings.csv in input order, and the exit code they mean."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    @property
    def exit(self) -> int:
        """0 all written, 4 some failed, else why none was written."""
        if not self.faults:
            return 0
        written = any(row["status"] in ("ok", "warn") for row in self.rows)
        return SOME_FAILED if written else self.faults[0].exit


def detect(
    run: Run | Path | str,
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    kinds: Sequence[str] = KINDS,
    threshold: float | str = "stored",
    levels: int | None = None,
    device: str = "auto",
    batch: int = 32,
    overwrite: bool = False,
) -> Detections:
    """Restore every input, write its finding into out/<case_id> and a row into out/findings.csv; the command ``detect``.

    inputs: files and folders as `io.discover` takes them. levels: network calls of the walk back instead of the recipe's.
    An input that cannot be read fails alone, with a row that says why. Raises `Fault` where nothing could begin.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    settings = [f"restorer.steps={levels}"] if levels else []
    detector = Detector(run, device=device, batch=batch, threshold=threshold, settings=settings)
    sources, skipped = io.discover(list(inputs))
    folder = prepare_folder(out, overwrite=overwrite)
    made = {**detector.made(), **provenance()}
    result = Detections(folder)
    panels: dict[str, Path] = {}
    try:
        with Progress("detecting", len(sources)) as bar:
            for pairs in groups(sources, detector, result, bar):
                for finding in restored(pairs, detector, result):
                    paths = finding.save(folder, kinds)
                    if "panel" in paths:
                        panels[finding.case_id] = paths["panel"]
                    result.rows.append(finding.row())
                bar.advance(len(pairs))
    finally:  # also when interrupted: every finished case has its row
        order = {source.case_id: i for i, source in enumerate(sources)}
        result.rows.sort(key=lambda row: order.get(row["case_id"], len(order)))
        for item in skipped:
            result.rows.append(blank(item.path.name) | {"status": "skipped", "warnings": item.reason})
        write_results(result, made, panels)
    say(f"report: {folder / 'report.html'}")
    return result


def groups(
    sources: Sequence[io.Source], detector: Detector, result: Detections, bar: Progress
) -> Iterator[list[tuple[Scan, Fitted]]]:
    """Readable inputs on the canvas, together until they fill a batch of planes; the others become failed rows."""
    pairs: list[tuple[Scan, Fitted]] = []
    for source in sources:
        try:
            scan = io.read(source)
            scan.name = source.case_id
            pairs.append((scan, detector.canvas.fit(scan)))
        except Exception as error:
            fail(result, source.case_id, error)
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
            fail(result, pairs[0][0].name, error)
            return []
        return [finding for pair in pairs for finding in restored([pair], detector, result)]


def fail(result: Detections, case_id: str, error: Exception) -> None:
    """A failed row, and one line for the user; a bug that one case brings out must not cost the others."""
    fault = error if isinstance(error, Fault) else unforeseen(error)
    if fault.exit in (BAD_OUTPUT, INTERRUPTED):
        raise fault
    if progress.debug:
        traceback.print_exception(error)
    fault.case = case_id
    result.faults.append(fault)
    result.rows.append(blank(case_id) | {"status": "failed", "warnings": f"{fault.code}: {fault.message}"})
    say(str(fault), error=True)


def unforeseen(error: Exception) -> Fault:
    """What is no finding about the input: memory, or a bug."""
    text = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return Fault("OUT_OF_MEMORY", "not enough memory for this input", "use a machine with more", exit=RESOURCE)
    cure = "a bug: run this input with --debug and report it"
    return Fault("INTERNAL", f"{type(error).__name__}: {text}", cure, exit=INTERNAL)


def blank(case_id: str) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"case_id": case_id}


def write_results(result: Detections, made: dict[str, Any], panels: dict[str, Path]) -> None:
    """findings.csv, findings.json and report.html."""
    import csv

    from pseudohealthy.evaluation.outcome import harmless_cell
    from pseudohealthy.report.page import write_report

    with atomic(result.folder / "findings.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        for row in result.rows:
            writer.writerow(
                {k: harmless_cell(v) if isinstance(v, str) else ("" if v is None else v) for k, v in row.items()}
            )
    write_json(
        result.folder / "findings.json",
        {"made": made, "findings": result.rows, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
    )
    counts = {s: sum(row["status"] == s for row in result.rows) for s in ("ok", "warn", "failed", "skipped")}
    summary = {k: v for k, v in counts.items() if v}
    write_report(
        result.folder,
        title=f"Findings of {made['run']}",
        rows=result.rows,
        summary=summary,
        panels=panels,
        provenance=made,
    )
