"""`compare`: several runs and the trivial controls on the same cases and the same voxels.

Runs differ in canvas, and a canvas decides which voxels are foreground. Here every method is judged
on one set of voxels per case: all that any run of the comparison is judged on, its native
foreground and the reference. A method says 0 where it does not look. With one run this is what
`evaluate` measures.

The controls stand in the canvas and post-processing of every run (once where runs share them), and
the best of them all is the rival of a difference: no run is helped by a control that another run's
settings would have made stronger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pseudohealthy import io
from pseudohealthy.counts import many
from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.differences import corrected, difference
from pseudohealthy.evaluation.evaluation import Evaluation, Figure
from pseudohealthy.evaluation.example import Example
from pseudohealthy.evaluation.map_store import Spool
from pseudohealthy.evaluation.measure import (
    Reading,
    batches,
    case_results,
    has_threshold,
    readable,
    stacks_of,
    stored_thresholds,
)
from pseudohealthy.evaluation.peak import Peak
from pseudohealthy.evaluation.records import CONTROL, CaseResult, Place, Record, merit
from pseudohealthy.evaluation.restoration import TwinErrors
from pseudohealthy.metrics.table import shown_in
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers.apply import Part
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.runs.run import Run

MASK = "foregrounds of all runs and reference"
OWN = "each method's own"  # post-processing: it is part of a method, and stands in comparison.csv


@dataclass
class Comparison:
    """What `compare` measured.

    Args:
        evaluations: by data set, all methods in one.
        against_best: by data set, ``<metric>_difference`` of every run minus the run that is best
            in it.
        facts: by method, what it is and cost.
        costs: seconds per case and peak megabytes by (data set, method).
        histories: training_history.json of the runs.
        examples: one image by all runs, by data set.
        notes: leaks, and what runs say of themselves.
    """

    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    against_best: dict[str, list[Record]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[tuple[str, str], dict[str, float | None]] = field(default_factory=dict)
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    examples: dict[str, Example] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def one_protocol(name: str) -> protocols.Protocol:
    """Return the protocol of that name.

    Raises:
        Fault: PROTOCOL (exit 2) for several, whose figures do not belong into one table.
    """
    if len(set(name.replace(",", " ").split())) > 1:
        raise Fault(
            "PROTOCOL",
            f"'{name}' names several protocols, whose figures mean different things",
            "make one comparison per protocol",
            exit=USAGE,
        )
    return protocols.find(name)[0]


def refuse_unlike(runs: Mapping[str, Run]) -> None:
    """Refuse runs that cannot take the same images.

    Raises:
        Fault: CHANNELS or PLANE (exit 2), with what each run takes.
    """
    canvases = {label: run.recipe.make_canvas() for label, run in runs.items()}
    for code, takes, cure in (
        (
            "CHANNELS",
            {label: many(c.inputs, "channel") for label, c in canvases.items()},
            "compare runs of like images",
        ),
        (
            "PLANE",
            {label: f"{c.plane} planes" for label, c in canvases.items()},
            "compare runs of one canvas.plane",
        ),
    ):
        if len(set(takes.values())) > 1:
            listed = ", ".join(
                f"{called(runs[label], label)} {need}" for label, need in takes.items()
            )
            raise Fault(code, f"the runs take different images: {listed}", cure, exit=USAGE)


def called(run: Run, label: str) -> str:
    """Name a run by its folder, and by its name in the table where that is another."""
    return f"'{run.name}'" if label == run.name else f"'{run.name}' ({label})"


def method_names(runs: Sequence[Run]) -> list[str]:
    """Name the runs by restorer where that tells them apart, else by folder, then by number."""
    count = Counter(run.recipe.restorer["name"] for run in runs)
    return distinct(
        [n if count[n := run.recipe.restorer["name"]] == 1 else run.name for run in runs]
    )


def distinct(names: Sequence[str]) -> list[str]:
    """Number equal names: a, a (2)."""
    counts: Counter[str] = Counter()
    numbered = []
    for name in names:
        counts[name] += 1
        numbered.append(name if counts[name] == 1 else f"{name} ({counts[name]})")
    return numbered


def methods_of(
    runs: Mapping[str, Run], device: str, batch: int
) -> tuple[dict[str, Detector], dict[str, Threshold]]:
    """Return the runs, then the controls in each of their settings, and stored thresholds, by name.

    Controls that differ in their map alone have one restorer, so that they are restored once.
    """
    methods: dict[str, Detector] = {}
    thresholds: dict[str, Threshold] = {}
    settings: dict[tuple, str] = {}
    controls: dict[tuple, dict[str, Restorer]] = {}
    for label, run in runs.items():
        choice = "stored" if has_threshold(run) else "otsu"
        detector = methods[label] = Detector(run, device=device, batch=batch, threshold=choice)
        settings.setdefault((seen_by(detector), detector.amap), label)
        if threshold := stored_thresholds(run).get(run.recipe.restorer["name"]):
            thresholds[label] = threshold
    for label in settings.values():
        run_thresholds, key = stored_thresholds(runs[label]), seen_by(methods[label])
        model = methods[label].restorer
        controls[key] = controls.get(key) or control_restorers(model.cpu())
        for kind, restorer in controls[key].items():
            name = f"{CONTROL} {kind}" + (f" ({label})" if len(settings) > 1 else "")
            methods[name] = Detector(
                runs[label], device=device, batch=batch, threshold=0.0, restorer=restorer
            )
            if f"{CONTROL} {kind}" in run_thresholds:
                thresholds[name] = run_thresholds[f"{CONTROL} {kind}"]
        model.to(methods[label].device)
    return methods, thresholds


def seen_by(detector: Detector) -> tuple:
    """Return what the controls beside a run depend on: its canvas and the health it was trained
    on."""
    health = (detector.restorer.healthy_mean, detector.restorer.healthy_spread)
    return detector.canvas, *(part.cpu().numpy().tobytes() for part in health)


class OnCanvases(NamedTuple):
    """A case read, and its scan on the canvas of every run.

    Batches are counted by `fitted`, the first of them.
    """

    reading: Reading
    by_canvas: dict[Canvas, Fitted]
    fitted: Fitted


Costs = dict[str, dict[str, float | None]]


def measured(
    methods: Mapping[str, Detector],
    cases: list[Case],
    batch: int,
    notes: list[str],
    name: str,
    example: Example | None = None,
) -> tuple[list[CaseResult], TwinErrors, Costs]:
    """Measure every method on every case, on common voxels.

    Returns:
        The results, errors to true twins, and seconds and megabytes by method. ``example`` keeps
        what it shows of the runs on the way.

    Raises:
        Fault: NO_INPUT (exit 3) where no case can be read.
    """
    results: list[CaseResult] = []
    spool, twins = Spool(), TwinErrors()
    seconds = dict.fromkeys(methods, 0.0)
    peaks: dict[str, float | None] = {}
    first_detector = next(iter(methods.values()))
    canvases = list(dict.fromkeys(detector.canvas for detector in methods.values()))
    with Progress(f"comparing on {name}", len(cases)) as bar:
        for group in batches(
            on_canvases(readable(cases, first_detector, notes, bar), canvases, notes, bar), batch
        ):
            by_method: dict[str, list[CaseResult]] = {label: [] for label in methods}
            if example:
                example.choose([item.reading for item in group], first_detector.canvas)
            for sharing in by_restorer(methods):
                sharing_detector = methods[sharing[0]]
                readings = [
                    item.reading._replace(fitted=item.by_canvas[sharing_detector.canvas])
                    for item in group
                ]
                stacks = stacks_of(sharing_detector, readings)
                with Peak(sharing_detector.device) as restoring:
                    # Made while it is read, unless by several.
                    parts: Iterable[Part] = sharing_detector.restorations(stacks)
                    parts = [part.kept() for part in parts] if len(sharing) > 1 else parts
                for label in sharing:
                    with Peak(sharing_detector.device) as reading:
                        applied = methods[label].read(stacks, parts)
                        by_method[label] = case_results(
                            label, methods[label], readings, applied, twins
                        )
                    if example and not label.startswith(CONTROL):
                        example.keep(
                            label, methods[label], [item.fitted for item in readings], applied
                        )
                    seconds[label] += restoring.seconds + reading.seconds
                    megabytes = [
                        item.megabytes
                        for item in (restoring, reading)
                        if item.megabytes is not None
                    ]
                    peaks[label] = max([*megabytes, peaks.get(label) or 0.0]) if megabytes else None
            for same_case in zip(*by_method.values(), strict=True):
                results += on_common_voxels(same_case, spool)
            bar.advance(len(group))
    n_read = len({result.case_id for result in results})
    if not n_read:
        raise Fault(
            "NO_INPUT",
            f"none of {many(len(cases), 'case')} of {name} could be read",
            notes[0] if notes else "",
            exit=NO_INPUT,
        )
    return (
        results,
        twins,
        {k: {"seconds_per_case": seconds[k] / n_read, "peak_mb": peaks[k]} for k in methods},
    )


def by_restorer(methods: Mapping[str, Detector]) -> list[list[str]]:
    """Group the names of methods that restore alike: one restorer, one seed of its noise."""
    groups: dict[tuple, list[str]] = {}
    for label, detector in methods.items():
        groups.setdefault((id(detector.restorer), detector.run.seed), []).append(label)
    return list(groups.values())


def on_canvases(
    items: Iterator[Reading], canvases: list[Canvas], notes: list[str], bar: Progress
) -> Iterator[OnCanvases]:
    """Yield readings with their scan on every canvas; a case that one canvas refuses is left
    out."""
    for item in items:
        case, scan = item.case, item.scan
        try:
            brain = io.read_mask(case.brain_mask, case.root, scan) if case.brain_mask else None
            others = {
                canvas: canvas.fit(scan, mask=item.truth, brain_mask=brain)
                for canvas in canvases[1:]
            }
        except Fault as fault:
            fault.case = fault.case or case.case_id
            notes.append(str(fault))
            say(str(fault), error=True)
            bar.advance()
            continue
        yield OnCanvases(item, {canvases[0]: item.fitted} | others, item.fitted)


def on_common_voxels(results: Sequence[CaseResult], spool: Spool) -> list[CaseResult]:
    """Bring one case by all methods to the voxels that any of them was judged on.

    A map is 0 where its method did not look.
    """
    if any(result.place is None or result.map is None for result in results):
        return list(results)
    evaluated, foreground = (
        np.logical_or.reduce([getattr(result.place, part) for result in results])
        for part in ("evaluated", "foreground")
    )
    place = Place(evaluated, foreground)
    truth = results[0].on_grid()[1][evaluated]
    return [
        replace(
            result,
            map=spool.keep(result.on_grid()[0][evaluated]),
            truth=None if result.truth is None else truth,
            place=place,
        )
        for result in results
    ]


def against_best(evaluation: Evaluation, runs: Sequence[str]) -> list[Record]:
    """Return ``<metric>_difference`` of every run minus the run with the best value, paired by
    patient.

    p-values are corrected for all differences returned (Holm 1979). The best is picked on these
    very cases, which favours it, never the others.
    """
    best: dict[str, Figure] = {}
    for run in runs:
        for metric, figure in evaluation.figures[run].items():
            if shown_in(metric, "table") and (
                metric not in best or merit(figure.record) > merit(best[metric].record)
            ):
                best[metric] = figure
    order = list(dict.fromkeys(figure.record.method for figure in best.values()))
    pairs = [
        (figure, best[metric])
        for run in runs
        for metric, figure in evaluation.figures[run].items()
        if metric in best
        and best[metric].record.method != run
        and best[metric].cases == figure.cases
    ]
    pairs.sort(key=lambda pair: order.index(pair[1].record.method))  # rival by rival
    return corrected([difference(figure, rival) for figure, rival in pairs])


def facts(detector: Detector, *, training: bool) -> dict[str, Any]:
    """Return what a method is and, where it was trained, what that took."""
    run, restorer = detector.run, detector.restorer
    record: dict[str, Any] = {
        "restorer": restorer.name,
        "network_calls": restorer.network_calls(),
        "postprocessing": detector.amap.describe(restorer.describe()),
        "parameters": sum(p.numel() for p in restorer.parameters()),
        "input_channels": detector.canvas.channels,
    }
    if not training:
        return record
    history = run.read_json("training_history.json") or []
    steps, batch = int(run.record.get("step") or 0), int(run.recipe.make_budget().batch)
    return record | {
        "run": run.name,
        "recipe": run.recipe.name,
        "weights_sha256": detector.weights_sha256,
        "training_planes": run.record.get("planes"),
        "training_steps": steps,
        "planes_seen": steps * batch,
        "training_seconds": training_seconds(history),
        "best_validation_auroc": max(known(history, "validation_auroc"), default=None),
        "best_validation_loss": min(known(history, "validation_loss"), default=None),
    }


def known(history: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Return the finite values of one key of a training's history.

    There are none of a training that only restores or never validated.
    """
    values = (entry.get(key) for entry in history)
    return [value for value in values if value is not None and np.isfinite(value)]


def training_seconds(history: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of all sessions of a training; each resume begins ``seconds`` anew."""
    total = previous = 0.0
    for entry in history:
        seconds = float(entry.get("seconds", 0.0))
        total, previous = total + (previous if seconds < previous else 0.0), seconds
    return round(total + previous, 2)
