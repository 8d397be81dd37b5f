"""`sweep`: a run under a grid of its own settings, chosen on validation data (Wolleb 2022, Figs
4-6).

Only what leaves the network as it is can be swept: restorer.* settings of restoring, and map.*.
Each restoration is made once and read by every map setting, so those cost next to nothing; each
encoding is made once for all gradient scales, and higher start levels go on from it. Weights and
cases are read once.
"""

from __future__ import annotations

import copy
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.measure import Reading, Readings, case_results, stacks_of
from pseudohealthy.evaluation.records import CaseResult, Record, family_of, merit
from pseudohealthy.io.tiles import tiled
from pseudohealthy.metrics import bootstrap
from pseudohealthy.metrics.table import METRICS, names, shown_in
from pseudohealthy.metrics.thresholds import Threshold, healthy_quantile
from pseudohealthy.progress import Progress
from pseudohealthy.restorers.apply import Applied
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs.recipe import toml_value
from pseudohealthy.runs.run import Run
from pseudohealthy.settings import literal

MOST = 400  # settings: beyond, the grid is a mistake
QUIET = "healthy_false_positive_share"  # what is chosen by where nothing anomalous was measured

Plot = Literal["auto", "lines", "heat"]


@dataclass
class Sweep:
    """Everything that one sweep measured.

    Args:
        run: its name.
        split: where it was measured.
        axes: each setting with its values as texts.
        records: by place in the grid.
        seconds: of a case, by place.
        network_calls: of an image, by place.
        columns: (place, input, twin, map) of the case shown.
        notes: what has to be known beside the figures.
        metric: what the best place is best in.
        resamples: of the patient bootstrap.
        protocol: what measured it.
        plot: how two axes are drawn.
        going_on: how the run is trained on, by its path: for the screen alone.
    """

    run: str
    split: str
    axes: list[tuple[str, list[str]]]
    records: dict[tuple[int, ...], list[Record]] = field(default_factory=dict)
    seconds: dict[tuple[int, ...], float] = field(default_factory=dict)
    network_calls: dict[tuple[int, ...], int] = field(default_factory=dict)
    columns: list[tuple[tuple[int, ...], np.ndarray, np.ndarray, np.ndarray]] = field(
        default_factory=list
    )
    notes: list[str] = field(default_factory=list)
    metric: str = ""
    resamples: int = bootstrap.RESAMPLES
    protocol: str = "strict"
    plot: Plot = "auto"
    going_on: str = ""  # how the run is trained on, by its path: for the screen alone

    def settings(self, place: tuple[int, ...]) -> list[str]:
        """Return the ``key=value`` texts of a place."""
        return [f"{key}={values[i]}" for (key, values), i in zip(self.axes, place, strict=True)]

    def value(self, place: tuple[int, ...], metric: str) -> Record | None:
        """Return the record of a metric at a place, by its name with or without the threshold's
        source."""
        return next(
            (r for r in self.records[place] if name_of(r) == metric or r.metric == metric), None
        )

    @property
    def best(self) -> tuple[int, ...]:
        """The place with the best `metric`; the first of equals."""
        values = {place: self.value(place, self.metric) for place in self.records}
        defined = {place: value for place, value in values.items() if value is not None}
        return max(defined, key=lambda place: merit(defined[place]))

    def metrics(self) -> list[str]:
        """Return the names of the figures in the table: headline metrics and those of healthy
        cases."""
        names = dict.fromkeys(name_of(r) for group in self.records.values() for r in group)
        return [name for name in names if shown_in(name, "table", "sweep")]

    @property
    def lines(self) -> bool:
        """Whether two axes are drawn as lines; by default as in Wolleb's figure 4, for that
        protocol."""
        return self.plot == "lines" or (self.plot == "auto" and self.protocol.startswith("wolleb"))


def chosen_by(result: Sweep, metric: str) -> str:
    """Return the metric that the best setting is chosen by.

    Raises:
        Fault: METRIC where it, or any, was not measured.
    """
    available = {name.split("@")[0] for name in result.metrics()} | set(result.metrics())
    if metric and metric not in available:
        raise Fault(
            "METRIC",
            f"'{metric}' was not measured here",
            f"use one of: {', '.join(sorted(available))}",
            exit=USAGE,
        )
    choice = metric or next((name for name in (*headline(result), QUIET) if name in available), "")
    if not choice:
        message = f"the {result.split} cases have neither labels nor masks"
        raise Fault("METRIC", message, "label some of them", exit=NO_INPUT)
    if not available & set(headline(result)):
        reason = (
            f"no anomalous {result.split} case: AUROC needs both labels"
            if result.protocol == "strict"
            else f"no {result.split} case has what the protocol {result.protocol} measures"
        )
        result.notes.append(
            f"{reason}; what is shown is how quiet the maps are on healthy cases, which is best for"
            " a method that sees nothing"
        )
    return choice


def headline(result: Sweep) -> tuple[str, ...]:
    """Return what the best setting is chosen by unless something is asked for, the first measured
    one."""
    return protocols.find(result.protocol)[0].chooses or tuple(names("table"))


def parsed(over: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Read axes from "KEY=V1,V2" texts, values as TOML texts.

    Raises:
        Fault: USAGE (exit 2).
    """
    axes: dict[str, list[str]] = {}
    for text in over:
        key, equals, values = (part.strip() for part in text.partition("="))
        if not equals or not values or not key.startswith(("restorer.", "map.")):
            raise Fault(
                "USAGE",
                f"--over {text} is no axis",
                "write restorer.KEY=V1,V2,... or map.KEY=...; other settings need a new training",
                exit=USAGE,
            )
        if key in axes:
            raise Fault(
                "USAGE", f"--over names {key} twice", "put its values into one list", exit=USAGE
            )
        try:
            parts = tomllib.loads(f"x = [{values}]")["x"]
        except tomllib.TOMLDecodeError:
            parts = [literal(word.strip()) for word in values.split(",")]
        axes[key] = list(dict.fromkeys(toml_value(part) for part in parts))
    if not axes:
        raise Fault(
            "USAGE",
            "sweep needs --over KEY=V1,V2,...",
            "such as --over map.smooth=0,1.5,3",
            exit=USAGE,
        )
    return list(axes.items())


def exemplar(cases: list[Case]) -> str:
    """Return the case of the strip: one with a reference if there is, the middle one of them."""
    marked = [case for case in cases if case.mask and case.label != HEALTHY] or cases
    return marked[len(marked) // 2].case_id


def under(run: Run, trained: Restorer, settings: Sequence[str], encodings: Encodings) -> Restorer:
    """Return the trained restorer under other settings, with the very same weights.

    What it encodes it shares with others, in ``encodings``.
    """
    restorer = copy.deepcopy(run.recipe).set(settings).checked().make_restorer()
    restorer.load_state_dict(trained.state_dict(), assign=True)
    if hasattr(restorer, "encodings"):
        restorer.encodings = encodings
    return restorer.eval().requires_grad_(False)


def measured(
    result: Sweep,
    run: Run,
    restorer: Restorer,
    places: list[tuple[int, ...]],
    cases: Readings,
    case_id: str,
    device: str,
    bar: Progress,
) -> None:
    """Measure all map settings under one group of restorer settings: restored once, read by each.

    Raises:
        Fault: NO_INPUT (exit 3) where no case can be read.
    """
    options: dict[str, Any] = {
        "device": device,
        "batch": cases.planes,
        "threshold": 0.0,
        "restorer": restorer,
    }
    detectors = {
        place: Detector(run, settings=result.settings(place), **options) for place in places
    }
    for detector in detectors.values():
        detector.check_standard(restorer, run.recipe.make_map())
    first_detector = detectors[places[0]]
    results: dict[tuple[int, ...], list[CaseResult]] = {place: [] for place in places}
    notes: list[str] = []
    seconds = dict.fromkeys(places, 0.0)
    for group in cases.batches(first_detector, notes, bar):
        begun = time.perf_counter()
        stacks = stacks_of(first_detector, group)
        parts = [part.kept() for part in first_detector.restorations(stacks)]
        restoring = time.perf_counter() - begun
        for place, detector in detectors.items():
            begun = time.perf_counter()
            applied = detector.read(stacks, parts)
            results[place] += case_results(
                "; ".join(result.settings(place)), detector, group, applied
            )
            seconds[place] += restoring + time.perf_counter() - begun
            result.columns += strip_of(place, group, applied, case_id)
        bar.advance(len(group))
    result.notes += notes
    n_read = len(results[places[0]])
    if not n_read:
        message = f"none of {many(len(cases.chosen), 'case')} could be read"
        raise Fault("NO_INPUT", message, notes[0] if notes else "", exit=NO_INPUT)
    for place, detector in detectors.items():
        result.records[place] = figures(results[place], detector, result)
        result.seconds[place] = seconds[place] / n_read
        result.network_calls[place] = restorer.network_calls()


def strip_of(
    place: tuple[int, ...], group: Sequence[Reading], applied: Sequence[Applied], case_id: str
) -> list[tuple]:
    """Return (place, input, twin, map) of the shown case's plane with most reference, if it is
    here.

    The map is (S, S), the others have their channels side by side.
    """
    for (case, _, fitted, *_), reading in zip(group, applied, strict=True):
        if case.case_id == case_id:
            weight = (
                fitted.foreground if fitted.mask is None or not fitted.mask.any() else fitted.mask
            )
            plane = int(weight.flatten(1).sum(1).argmax())
            pictures = (tiled(part[plane].numpy()) for part in (fitted.planes, reading.healthy))
            return [(place, *pictures, reading.maps[plane].numpy())]
    return []


def figures(results: list[CaseResult], detector: Detector, result: Sweep) -> list[Record]:
    """Return the records of one setting: the protocol's, and how quiet healthy cases are."""
    healthy = [
        case for case in results if case.label == HEALTHY and case.map is not None and len(case.map)
    ]
    patients = sorted({case.patient_id for case in healthy})
    threshold = None
    if healthy and result.split == "val":
        values = np.concatenate([np.asarray(case.map) for case in healthy])
        threshold = healthy_quantile(values, detector.amap.quantile, n_patients=len(patients))
    words = detector.amap.describe(detector.restorer.describe())
    setting = protocols.Setting(
        thresholds=threshold,
        validation=tuning(result, results),
        mask="foreground and reference",
        postprocessing=words,
        resamples=result.resamples,
    )
    evaluation = protocols.measure(result.protocol, results, setting)
    records = [record for record in evaluation.records if record.against is None]
    hides, *notes = evaluation.notes
    result.notes += [hides] if result.protocol != "strict" else []
    result.notes += [
        note.split(": ", 1)[-1] for note in notes if "undefined" in note or "not measured" in note
    ]
    if healthy:
        records += quiet(healthy, patients, detector.amap.quantile, words, result)
    return [replace(record, method=result.run) for record in records]


def tuning(result: Sweep, results: list[CaseResult]) -> list[CaseResult]:
    """Return the cases on which a published protocol chooses its threshold.

    They are the swept ones, for there are no others.
    """
    kind = protocols.find(result.protocol)[0].validation
    if result.protocol == "strict" or not kind:
        return []
    result.notes.append(
        f"the threshold of {result.protocol} is chosen on the cases that are measured, which"
        " flatters"
    )
    return [case for case in results if kind == "labelled" or case.label == HEALTHY]


def quiet(
    healthy: list[CaseResult], patients: list[str], q: float, words: str, result: Sweep
) -> list[Record]:
    """Return healthy_residual_mean and healthy_false_positive_share.

    The first is the mean of the map; the second is the share of voxels of every second healthy
    patient above the quantile of the others (the quantile's own patients would give 1 - quantile
    whatever the setting).
    """

    def sums(cases_: list[CaseResult], count: Any) -> tuple[np.ndarray, np.ndarray, int]:
        names = sorted({case.patient_id for case in cases_})
        total, size = np.zeros(len(names)), np.zeros(len(names))
        for case in cases_:
            total[names.index(case.patient_id)] += count(np.asarray(case.map))
            size[names.index(case.patient_id)] += len(np.asarray(case.map))
        return total, size, len(cases_)

    parts: list[tuple[str, tuple, Threshold | None]] = [
        ("healthy_residual_mean", sums(healthy, np.sum), None)
    ]
    if len(patients) > 1:
        one, other = (
            [c for c in healthy if (c.patient_id in patients[::2]) is first]
            for first in (True, False)
        )
        threshold = healthy_quantile(
            np.concatenate([np.asarray(c.map) for c in one]), q, n_patients=len(patients[::2])
        )
        parts.append((QUIET, sums(other, lambda m: (m > threshold.value).sum()), threshold))
    records = []
    for metric, (total, size, count), limit in parts:
        resampled = bootstrap.ratio_of_sums(
            bootstrap.weights(len(total), result.resamples), total, size
        )
        records.append(
            Record(
                metric=metric,
                value=float(total.sum() / size.sum()),
                ci95=bootstrap.percentile(resampled) if len(total) > 1 else None,
                unit=METRICS[metric].unit,
                protocol="strict",
                threshold_source=limit.source if limit else None,
                mask="foreground",
                grid="native",
                postprocessing=words,
                n_patients=len(total),
                n_cases=count,
                prevalence=0.0,
                method=result.run,
                threshold=limit.value if limit else None,
            )
        )
    return records


def name_of(record: Record) -> str:
    """Return the metric, with ``@source`` where its threshold has one that is not in the name."""
    plain = record.threshold_source in (None, "oracle") or family_of(record) == "health"
    return record.metric if plain else f"{record.metric}@{record.threshold_source}"
