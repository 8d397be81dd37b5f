"""`evaluate`: a run and the trivial controls over the test split of a manifest, under a
protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from pseudohealthy import io
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.map_store import Spool
from pseudohealthy.evaluation.protocols.ct import plane_facts
from pseudohealthy.evaluation.records import CONTROL, Box, CaseResult, Place
from pseudohealthy.evaluation.restoration import TwinErrors
from pseudohealthy.io.scan import Scan
from pseudohealthy.metrics.thresholds import Threshold
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers.apply import Applied, Stack
from pseudohealthy.runs.run import Run, commit
from pseudohealthy.training.plane_store import plane_labels


def scored_by(detector: Detector) -> dict[str, Any]:
    """Return what every record says of the scores behind it, and of the code that made them."""
    record = detector.made()
    return {
        "noise_key": record["noise_key"],
        "plane_set": record["plane_set"],
        "commit": commit() or "",
    }


def evenly(items: list[Case], limit: int) -> list[Case]:
    """Return at most ``limit`` of the items (0: all), evenly spread."""
    if not limit or len(items) <= limit:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def wanted(validation: list[Case], kind: str, limit: int) -> list[Case]:
    """Return the validation cases that a protocol chooses a threshold on.

    There are none where the labels it needs are missing.
    """
    if kind == "healthy":
        return evenly([case for case in validation if case.label == HEALTHY], limit)
    if kind == "labelled" and any(case.mask and case.label != HEALTHY for case in validation):
        return evenly([case for case in validation if case.mask or case.label == HEALTHY], limit)
    return []


def measured(
    methods: dict[str, Detector],
    test: list[Case],
    batch: int,
    notes: list[str],
    twins: TwinErrors,
    task: str,
) -> list[CaseResult]:
    """Measure every method on every readable case.

    Methods share one copy of a case's reference and place.
    """
    results: list[CaseResult] = []
    spool = Spool()
    detector = next(iter(methods.values()))
    with Progress(task, len(test)) as bar:
        for group in batches(readable(test, detector, notes, bar), batch):
            first_results: list[CaseResult] = []
            stacks = stacks_of(detector, group)  # all methods have the canvas of one run
            for name, method in methods.items():
                method_results = case_results(name, method, group, method.apply(stacks), twins)
                for result, first_result in zip(method_results, first_results, strict=False):
                    result.truth, result.place = first_result.truth, first_result.place
                for result in method_results:
                    result.map = None if result.map is None else spool.keep(result.map)
                first_results, results = first_results or method_results, results + method_results
            bar.advance(len(group))
    return results


def has_threshold(run: Run) -> bool:
    """Return whether the run has a stored threshold."""
    return (run.read_json("threshold.json") or {}).get("value") is not None


def stored_thresholds(run: Run) -> dict[str, Threshold]:
    """Return the healthy-quantile thresholds of the run and of each control, by method name."""
    record = run.read_json("threshold.json") or {}
    by_method = {
        run.recipe.restorer["name"]: record,
        **{f"{CONTROL} {k}": v for k, v in record.get("controls", {}).items()},
    }
    return {k: Threshold.from_dict(v) for k, v in by_method.items() if v.get("value") is not None}


class Reading(NamedTuple):
    """A case read, with its scan on the canvas.

    Args:
        case: the case.
        scan: as read.
        fitted: on the canvas.
        truth: its reference, (D, H, W) bool, or None.
        ignored: voxels that do not count, (D, H, W) bool, or None.
    """

    case: Case
    scan: Scan
    fitted: Fitted
    truth: np.ndarray | None
    ignored: np.ndarray | None = None


def readable(
    test: list[Case], detector: Detector, notes: list[str], bar: Progress
) -> Iterator[Reading]:
    """Yield cases on the canvas with their native reference; what cannot be read is noted.

    The manifest's column ``mask_ignore`` names label values of the mask ("2") whose voxels leave
    the evaluation.
    """
    for case in test:
        try:
            scan = io.read_image(case.image, case.root, plane=detector.canvas.plane)
            ignore, background = case.values("mask_ignore"), case.values("mask_background")
            options = {"resample": bool(case.extra.get("mask_resample"))}
            truth = (
                io.read_mask(case.mask, case.root, scan, ignore=ignore + background, **options)
                if case.mask
                else None
            )
            ignored = None
            if truth is not None and ignore:
                ignored = (
                    io.read_mask(case.mask, case.root, scan, ignore=background, **options) & ~truth
                )
            for text in (w for w in scan.warnings if w.startswith("MASK_")):
                notes.append(f"{text} ({case.case_id})")
                say(f"warning: {notes[-1]}")
            if truth is not None and case.label == ANOMALOUS and not truth.any():
                notes.append(
                    f"MASK_EMPTY: {case.case_id} is labelled anomalous and nothing in it is marked"
                )
                say(f"warning: {notes[-1]}")
            brain = io.read_mask(case.brain_mask, case.root, scan) if case.brain_mask else None
            yield Reading(
                case, scan, detector.canvas.fit(scan, mask=truth, brain_mask=brain), truth, ignored
            )
        except Fault as fault:
            fault.case = fault.case or case.case_id
            notes.append(str(fault))
            say(str(fault), error=True)
            bar.advance()


def batches(items: Iterator, planes: int) -> Iterator[list]:
    """Yield consecutive cases until they fill a batch of planes."""
    group: list = []
    count = 0
    for item in items:
        group.append(item)
        count += len(item[2].planes)
        if count >= planes:
            yield group
            group, count = [], 0
    if group:
        yield group


MOST_KEPT = 2**30  # bytes


class Readings:
    """Cases for several passes, read and fitted in the first one, and again only if they are large.

    Args:
        chosen: the cases.
        planes: a batch has at least so many, but for the last one.
    """

    def __init__(self, chosen: list[Case], planes: int):
        self.chosen, self.planes = chosen, planes
        self.kept: list[list[Reading]] | None = None

    def batches(
        self, detector: Detector, notes: list[str], bar: Progress
    ) -> Iterator[list[Reading]]:
        """Yield the batches of one pass, on the canvas of a detector, the same for all passes."""
        if self.kept is not None:
            yield from self.kept
            bar.advance(len(self.chosen) - sum(map(len, self.kept)))  # those that could not be read
            return
        groups: list[list[Reading]] = []
        n_bytes = 0
        for group in batches(readable(self.chosen, detector, notes, bar), self.planes):
            n_bytes += sum(
                reading.scan.voxels.nbytes + 2 * reading.fitted.planes.nbytes for reading in group
            )
            groups = [*groups, group] if n_bytes <= MOST_KEPT else []
            yield group
        self.kept = groups if n_bytes <= MOST_KEPT else None


def stacks_of(detector: Detector, group: Sequence[Reading]) -> list[Stack]:
    """Return the planes of cases read, ready to restore."""
    return [Stack.of(detector.canvas, reading.fitted) for reading in group]


def case_results(
    name: str,
    detector: Detector,
    group: Sequence[Reading],
    applied: Sequence[Applied],
    twins: TwinErrors | None = None,
) -> list[CaseResult]:
    """Return what one method says of some cases, as the protocols want it.

    Voxels are those on the native grid inside foreground or reference. Labels of planes are those
    of the reference, else of the manifest's column ``plane_labels``; a healthy plane without
    foreground has none, since nothing is said of it (a diseased one is missed).
    """
    results = []
    for (case, scan, fitted, truth, *ignored), result in zip(group, applied, strict=True):
        if twins is not None:
            twins.add(name, case, detector.canvas, fitted, result.healthy)
        if truth is None and case.label == HEALTHY:
            truth = np.zeros(scan.shape[1:], bool)
        labels = native_labels(case, truth, len(fitted.planes))
        judged = detector.canvas.judged(fitted)
        labels = None if labels is None else np.where(judged, labels, -1)
        empty = 0
        # Without foreground nothing was said: right by default in health, a miss in disease.
        if labels is not None:
            silent = ~result.judged & (labels == HEALTHY)
            labels, empty = np.where(silent, -1, labels), int(silent.sum())
        # Blank on a case not known to be healthy: not annotated.
        stated = case.extra.get("boxes", "")
        boxes = (
            Box.parse(stated)
            if stated or ("boxes" in case.extra and case.label == HEALTHY)
            else None
        )
        foreground = (
            detector.canvas.undo_map(fitted.foreground.float(), fitted.placement, nearest=True)
            > 0.5
        )
        place = values = None
        if truth is not None or boxes is not None:
            evaluated = foreground if truth is None else foreground | truth
            if ignored and ignored[0] is not None:
                evaluated = evaluated & ~ignored[0]
            evaluated = evaluated & judged[:, None, None]
            place = Place(evaluated, foreground)
            values = detector.canvas.undo_map(result.maps, fitted.placement)[evaluated]
        results.append(
            CaseResult(
                case_id=case.case_id,
                patient_id=case.patient_id,
                label=case.label,
                score=result.score,
                plane_scores=result.plane_scores if labels is not None else None,
                empty_planes=empty,
                plane_labels=labels,
                map=values,
                truth=None if truth is None or place is None else truth[place.evaluated],
                method=name,
                voxel_ml=scan.voxel_ml,
                place=place,
                boxes=boxes,
                facts=plane_facts(scan, foreground, in_hu(scan, detector)),
            )
        )
    return results


def in_hu(scan: Scan, detector: Detector) -> bool:
    """Return whether intensities are HU, by the file or, since NIfTI names no unit, by the run.

    Those of a picture never are.
    """
    canvas = detector.canvas
    return scan.units == "HU" or (
        canvas.normalise == "window" and not canvas.windows_a_picture(scan)
    )


def native_labels(case: Case, truth: np.ndarray | None, count: int) -> np.ndarray | None:
    """Return HEALTHY, ANOMALOUS or -1 (unknown) for each of several planes, or None if none is
    known."""
    stated = plane_labels(case, count)
    if stated is not None and not case.mask:
        return np.array([-1 if label is None else label for label in stated])
    return (
        np.where(truth.any((1, 2)), ANOMALOUS, HEALTHY) if truth is not None and count > 1 else None
    )
