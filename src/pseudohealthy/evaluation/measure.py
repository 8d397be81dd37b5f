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
    """What every record says of the scores behind it, and of the code that made them."""
    made = detector.made()
    return {
        "noise_key": made["noise_key"],
        "plane_set": made["plane_set"],
        "commit": commit() or "",
    }


def evenly(items: list[Case], most: int) -> list[Case]:
    """At most ``most`` of them (0: all), evenly spread."""
    if not most or len(items) <= most:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int)]


def wanted(validation: list[Case], kind: str, limit: int) -> list[Case]:
    """The validation cases that a protocol chooses a threshold on; none where the labels it needs
    are missing."""
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
    what: str,
) -> list[CaseResult]:
    """What every method says about every readable case; methods share one copy of a case's
    reference and place."""
    results: list[CaseResult] = []
    spool = Spool()
    detector = next(iter(methods.values()))
    with Progress(what, len(test)) as bar:
        for group in batches(readable(test, detector, notes, bar), batch):
            first: list[CaseResult] = []
            stacks = stacks_of(detector, group)  # all methods have the canvas of one run
            for name, method in methods.items():
                found = case_results(name, method, group, method.apply(stacks), twins)
                for one, other in zip(found, first, strict=False):
                    one.truth, one.place = other.truth, other.place
                for one in found:
                    one.map = None if one.map is None else spool.keep(one.map)
                first, results = first or found, results + found
            bar.advance(len(group))
    return results


def has_threshold(run: Run) -> bool:
    return (run.read_json("threshold.json") or {}).get("value") is not None


def stored_thresholds(run: Run) -> dict[str, Threshold]:
    """The healthy-quantile thresholds of the run and of each control, by method name."""
    stored = run.read_json("threshold.json") or {}
    found = {
        run.recipe.restorer["name"]: stored,
        **{f"{CONTROL} {k}": v for k, v in stored.get("controls", {}).items()},
    }
    return {k: Threshold.from_dict(v) for k, v in found.items() if v.get("value") is not None}


class Reading(NamedTuple):
    """A case read: its scan on the canvas, its reference (D, H, W) bool or None, and the voxels
    that do not count."""

    case: Case
    scan: Scan
    fitted: Fitted
    truth: np.ndarray | None
    ignored: np.ndarray | None = None


def readable(
    test: list[Case], detector: Detector, notes: list[str], bar: Progress
) -> Iterator[Reading]:
    """Cases on the canvas with their native reference; what cannot be read is noted and passed
    over.

    The manifest's column ``mask_ignore`` names label values of the mask ("2") whose voxels leave
    the evaluation.
    """
    for case in test:
        try:
            scan = io.read_image(case.image, case.root, plane=detector.canvas.plane)
            ignore, other = case.values("mask_ignore"), case.values("mask_background")
            how = {"resample": bool(case.extra.get("mask_resample"))}
            truth = (
                io.read_mask(case.mask, case.root, scan, ignore=ignore + other, **how)
                if case.mask
                else None
            )
            ignored = None
            if truth is not None and ignore:
                ignored = io.read_mask(case.mask, case.root, scan, ignore=other, **how) & ~truth
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
    """Consecutive cases until they fill a batch of planes."""
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
    """Cases for several passes: read and fitted in the first one, and again only where they are
    more than `MOST_KEPT` bytes.

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
        """One pass, on the canvas of a detector, which is the same for all passes."""
        if self.kept is not None:
            yield from self.kept
            bar.advance(len(self.chosen) - sum(map(len, self.kept)))  # those that could not be read
            return
        kept: list[list[Reading]] = []
        held = 0
        for group in batches(readable(self.chosen, detector, notes, bar), self.planes):
            held += sum(one.scan.voxels.nbytes + 2 * one.fitted.planes.nbytes for one in group)
            kept = [*kept, group] if held <= MOST_KEPT else []
            yield group
        self.kept = kept if held <= MOST_KEPT else None


def stacks_of(detector: Detector, group: Sequence[Reading]) -> list[Stack]:
    """The planes of cases read, ready to restore."""
    return [Stack.of(detector.canvas, reading.fitted) for reading in group]


def case_results(
    name: str,
    detector: Detector,
    group: Sequence[Reading],
    said: Sequence[Applied],
    twins: TwinErrors | None = None,
) -> list[CaseResult]:
    """What one method said about some cases, as the protocols want it: voxels on the native grid
    inside foreground or reference. Labels of planes are those of the reference, else of the
    manifest's column ``plane_labels``; a healthy plane without foreground has none, since nothing
    is said of it (a diseased one is missed)."""
    found = []
    for (case, scan, fitted, truth, *rest), one in zip(group, said, strict=True):
        if twins is not None:
            twins.add(name, case, detector.canvas, fitted, one.healthy)
        if truth is None and case.label == HEALTHY:
            truth = np.zeros(scan.shape[1:], bool)
        labels = native_labels(case, truth, len(fitted.planes))
        judged = detector.canvas.judged(fitted)
        labels = None if labels is None else np.where(judged, labels, -1)
        empty = 0
        # Without foreground nothing was said: right by default in health, a miss in disease.
        if labels is not None:
            silent = ~one.judged & (labels == HEALTHY)
            labels, empty = np.where(silent, -1, labels), int(silent.sum())
        # Blank on a case not known to be healthy: not annotated.
        stated = case.extra.get("boxes", "")
        boxes = (
            Box.parse(stated)
            if stated or ("boxes" in case.extra and case.label == HEALTHY)
            else None
        )
        shown = (
            detector.canvas.undo_map(fitted.foreground.float(), fitted.placement, nearest=True)
            > 0.5
        )
        place = values = None
        if truth is not None or boxes is not None:
            where = shown if truth is None else shown | truth
            if rest and rest[0] is not None:
                where = where & ~rest[0]
            where = where & judged[:, None, None]
            place = Place(where, shown)
            values = detector.canvas.undo_map(one.maps, fitted.placement)[where]
        found.append(
            CaseResult(
                case_id=case.case_id,
                patient_id=case.patient_id,
                label=case.label,
                score=one.score,
                plane_scores=one.plane_scores if labels is not None else None,
                empty_planes=empty,
                plane_labels=labels,
                map=values,
                truth=None if truth is None or place is None else truth[place.evaluated],
                method=name,
                voxel_ml=scan.voxel_ml,
                place=place,
                boxes=boxes,
                facts=plane_facts(scan, shown, in_hu(scan, detector)),
            )
        )
    return found


def in_hu(scan: Scan, detector: Detector) -> bool:
    """HU by the file's word, or by the run's (NIfTI names no unit); never those of a picture."""
    canvas = detector.canvas
    return scan.units == "HU" or (
        canvas.normalise == "window" and not canvas.windows_a_picture(scan)
    )


def native_labels(case: Case, truth: np.ndarray | None, count: int) -> np.ndarray | None:
    """HEALTHY, ANOMALOUS or -1 (unknown) for each of several planes; None where nothing says so."""
    stated = plane_labels(case, count)
    if stated is not None and not case.mask:
        return np.array([-1 if label is None else label for label in stated])
    return (
        np.where(truth.any((1, 2)), ANOMALOUS, HEALTHY) if truth is not None and count > 1 else None
    )
