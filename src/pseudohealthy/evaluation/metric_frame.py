"""What every protocol is made of: one method's figures, each with unit, threshold source,
prevalence and interval.

A protocol is a function that fills a `Frame` for each method; `run` does the rest: one table of
cases, differences to the best control on the same cases from the same resamples, and their p-values
corrected for being many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation.differences import corrected, differences
from pseudohealthy.evaluation.evaluation import Evaluation, Figure
from pseudohealthy.evaluation.records import CONTROL, CaseResult, Record, class_of
from pseudohealthy.metrics import bootstrap, table
from pseudohealthy.metrics.curves import Curve, curve, region_curve
from pseudohealthy.metrics.thresholds import Threshold

Thresholds = Mapping[str, Threshold] | Threshold | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a protocol is given besides the cases.

    protocol: words for the records; published: the published evaluation with its defects instead of
    the intended one;
    thresholds: for the voxel maps, by method (a single one is for every method that is no control);
    score_thresholds: the same for case scores; validation: the same methods' results on validation
    cases, for protocols that choose a threshold there; mask, grid, postprocessing: words saying
    which voxels the maps hold, on which grid, after which clean-up; resamples, seed: of the patient
    bootstrap.
    """

    protocol: str = "strict"
    published: bool = False
    thresholds: Thresholds = None
    score_thresholds: Thresholds = None
    validation: Sequence[CaseResult] = ()
    mask: str = "all voxels"
    grid: str = "native"
    postprocessing: str = "none"
    resamples: int = bootstrap.RESAMPLES
    seed: int = 0


@dataclass
class Frame:
    """Collects the figures of one method; `rows` are its lines of cases.csv, where a protocol
    writes its own."""

    method: str
    evaluation: Evaluation
    setting: Setting
    figures: dict[str, Figure] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def threshold(self) -> Threshold | None:
        """The voxel threshold given for this method."""
        return _of(self.setting.thresholds, self.method)

    @property
    def score_threshold(self) -> Threshold | None:
        return _of(self.setting.score_thresholds, self.method)

    @property
    def validation(self) -> list[CaseResult]:
        """This method's results on validation cases."""
        return [case for case in self.setting.validation if case.method == self.method]

    def rank(
        self,
        known: Sequence[CaseResult],
        scores: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        names: Mapping[str, str],
    ) -> Curve | None:
        """Ranking metrics of scores and labels (N,) by case, pooled; None with a note where a class
        is missing.

        names: metric by key of `bootstrap.RANKINGS`; "best_dice" is an oracle.
        """
        found = curve(pooled(scores), pooled(labels))
        if not found.positives or not found.negatives:
            missing = "anomalous" if not found.positives else "healthy"
            unit = _metric(next(iter(names.values()))).unit
            self.note(
                f"{' and '.join(names.values())} are undefined: no {missing} {unit} in the data"
            )
            return None
        oracle = Threshold(found.best_dice()[1], "oracle")
        exact = {key: bootstrap.RANKINGS[key].exact(found) for key in names}
        drawn = self._resampled(found, known, scores, labels, None, exact)
        for key, name in names.items():
            threshold = oracle if key == "best_dice" else None
            self.put(name, exact[key], drawn[key], known, found.prevalence, threshold)
        return found

    def region_area(
        self, found: Curve, known: Sequence[CaseResult], weights: Sequence[np.ndarray]
    ) -> None:
        """AUPRO of ``known`` cases; found: their voxel curve; weights (true voxels,): of each, 1
        per region in all."""
        maps, truths = map(list, zip(*(case.pair for case in known), strict=True))
        positives = [values[truth] for values, truth in zip(maps, truths, strict=True)]
        by_region = region_curve(found, pooled(positives), pooled(weights))
        exact = {"area_to_30": bootstrap.RANKINGS["area_to_30"].exact(by_region)}
        drawn = self._resampled(by_region, known, maps, truths, weights, exact)
        self.put(
            "voxel_aupro_30", exact["area_to_30"], drawn["area_to_30"], known, found.prevalence
        )

    def _resampled(
        self,
        found: Curve,
        known: Sequence[CaseResult],
        scores: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        weights: Sequence[np.ndarray] | None,
        exact: Mapping[str, float],
    ) -> dict[str, np.ndarray]:
        """Each exact value in every resample, (resamples,); weights (positives,): of each case's
        positives, 1 if None."""
        patient, number = patients(known)
        histograms = bootstrap.Histograms(found, number)
        for index, row in enumerate(patient):
            weight = None
            if weights is not None:
                weight = np.ones(len(scores[index]))
                weight[labels[index]] = weights[index]
            histograms.add(row, scores[index], labels[index], weight)
        draws = bootstrap.weights(number, self.setting.resamples, self.setting.seed)
        drawn, binned = histograms.resampled(draws, exact), histograms.point(exact)
        # The difference between exact and binned is what binning cost: see bootstrap.
        return {
            key: np.clip(drawn[key] + (value - binned[key]), 0, 1) for key, value in exact.items()
        }

    def ratio(
        self,
        metric: str,
        known: Sequence[CaseResult],
        numerator: np.ndarray,
        denominator: np.ndarray,
        prevalence: float | None,
        threshold: Threshold | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """The sum of ``numerator`` over the sum of ``denominator``, both by case; left out where
        the latter is 0."""
        if not np.sum(denominator):
            return
        patient, number = patients(known)
        sums = [
            np.bincount(patient, weights=part, minlength=number)
            for part in (numerator, denominator)
        ]
        drawn = bootstrap.ratio_of_sums(
            bootstrap.weights(number, self.setting.resamples, self.setting.seed), *sums
        )
        # The record counts the cases the figure is about: those with a reference, the healthy ones,
        # ...
        about = (
            known
            if _metric(metric).unit == "voxel"
            else [case for case, part in zip(known, denominator, strict=True) if part]
        )
        value = float(np.sum(numerator) / np.sum(denominator))
        self.put(metric, value, drawn, about, prevalence, threshold, source=source)

    def mean(
        self,
        metric: str,
        known: Sequence[CaseResult],
        values: np.ndarray,
        prevalence: float | None,
        threshold: Threshold | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """The mean of one value a case (nan where it has none)."""
        defined = np.isfinite(values)
        self.ratio(
            metric,
            known,
            np.where(defined, values, 0),
            defined,
            prevalence,
            threshold,
            source=source,
        )

    def median(
        self,
        metric: str,
        known: Sequence[CaseResult],
        values: np.ndarray,
        prevalence: float | None,
        threshold: Threshold | None,
    ) -> None:
        patient, number = patients(known)
        weight = bootstrap.weights(number, self.setting.resamples, self.setting.seed).astype(
            np.int64
        )[:, patient]
        defined = np.isfinite(values)
        drawn = np.asarray(
            [
                np.median(
                    np.repeat(values[defined], row[defined]) if row[defined].any() else np.nan
                )
                for row in weight
            ]
        )
        about = [case for case, keep in zip(known, defined, strict=True) if keep]
        self.put(metric, float(np.median(values[defined])), drawn, about, prevalence, threshold)

    def put(
        self,
        metric: str,
        value: float,
        drawn: np.ndarray | None,
        about: Sequence[CaseResult],
        prevalence: float | None,
        threshold: Threshold | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """One figure; drawn: its value in every resample, None of a count; source: of thresholds
        that differ from case to case, so that there is no one value. Raises ValueError for a metric
        that is not in the table, or not so."""
        known = _metric(metric)
        if known.resampled != (drawn is not None):
            raise ValueError(
                f"{metric} has {'no ' if drawn is None else ''}resamples, and the table says"
                " otherwise"
            )
        number = len({case.patient_id for case in about})
        record = Record(
            metric=metric,
            value=value,
            ci95=bootstrap.percentile(drawn) if drawn is not None and number > 1 else None,
            unit=known.unit,
            protocol=self.setting.protocol,
            threshold_source=threshold.source if threshold else source,
            mask=self.setting.mask,
            grid=self.setting.grid,
            postprocessing=self.setting.postprocessing,
            n_patients=number,
            n_cases=len(about),
            prevalence=prevalence,
            method=self.method,
            threshold=threshold.value if threshold else None,
        )
        self.figures[metric] = Figure(record, drawn, tuple(sorted(case.case_id for case in about)))

    def note(self, text: str) -> None:
        self.evaluation.notes.append(f"{self.method}: {text}")


def run(
    cases: Iterable[CaseResult],
    setting: Setting,
    measure: Callable[[Frame, list[CaseResult]], None],
) -> Evaluation:
    """Measure every method found in ``cases`` (methods named ``control: ...`` are the trivial
    controls).

    Raises `Fault` NO_CASES, or DUPLICATE_CASE (exit 2) for a case given twice.
    """
    by_method: dict[str, list[CaseResult]] = {}
    for case in cases:
        by_method.setdefault(case.method, []).append(case)
    if not by_method:
        raise Fault("NO_CASES", "no case to evaluate", "check the split and the manifest")
    evaluation = Evaluation()
    for method, group in by_method.items():
        if len({case.case_id for case in group}) < len(group):
            raise Fault(
                "DUPLICATE_CASE",
                f"a case comes twice for {method}",
                "give each case its own id",
                exit=USAGE,
            )
        frame = Frame(method, evaluation, setting)
        measure(frame, group)
        evaluation.figures[method] = frame.figures
        evaluation.records += [figure.record for figure in frame.figures.values()]
        evaluation.rows += frame.rows or [row(case, frame.threshold) for case in group]
    found = [
        difference
        for method in by_method
        if not method.startswith(CONTROL)
        for difference in differences(method, evaluation)
    ]
    evaluation.notes = told_once(evaluation.notes, list(by_method))
    evaluation.records += corrected(found)
    return evaluation


def told_once(notes: Sequence[str], methods: Sequence[str]) -> list[str]:
    """Notes with equal words of several methods as one, which names them, or none where all say
    it."""
    saying: dict[str, list[str]] = {}
    for note in notes:
        method = max((m for m in methods if note.startswith(f"{m}: ")), key=len, default="")
        saying.setdefault(note.removeprefix(f"{method}: ") if method else note, []).append(method)
    found = []
    for text, who in saying.items():
        names = [name for name in dict.fromkeys(who) if name]
        everyone = len(names) > 1 and len(names) == len(methods)
        found.append(f"{', '.join(names)}: {text}" if names and not everyone else text)
    return found


def pooled(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if len(parts) else np.zeros(0)


def patients(cases: Sequence[CaseResult]) -> tuple[np.ndarray, int]:
    """(row of each case's patient among the sorted patients, number of patients): the same for
    every method."""
    names, rows = np.unique([case.patient_id for case in cases], return_inverse=True)
    return rows, len(names)


def counts(case: CaseResult, threshold: float) -> tuple[int, int, int]:
    """(found and in the reference, found, in the reference), in voxels."""
    values, truth = case.pair
    found = values > threshold
    return (
        int(np.count_nonzero(found & truth)),
        int(np.count_nonzero(found)),
        int(np.count_nonzero(truth)),
    )


def row(case: CaseResult, threshold: Threshold | None) -> dict[str, Any]:
    """One line of cases.csv; an undefined entry is empty."""
    cells: dict[str, Any] = {
        "case_id": case.case_id,
        "patient_id": case.patient_id,
        "method": case.method,
        "label": case.label,
        "score": float(case.score),
        "voxel_ml": case.voxel_ml,
        "reference_voxels": None if case.truth is None else int(np.count_nonzero(case.truth)),
        "found_voxels": None,
        "dice": None,
        "threshold": None,
        "threshold_source": None,
    }
    if case.map is not None and threshold is not None:
        cells |= {"threshold": threshold.value, "threshold_source": threshold.source}
        cells["found_voxels"] = int(np.count_nonzero(np.asarray(case.map) > threshold.value))
        if case.truth is not None:
            both, found, reference = counts(case, threshold.value)
            cells["dice"] = 2 * both / (found + reference) if reference else None
    return cells


def _metric(name: str) -> table.Metric:
    metric = table.find(class_of(name)[0])
    if metric is None:
        raise ValueError(
            f"there is no metric '{name}': add a row to metrics/table.py, or register it"
        )
    return metric


def _of(thresholds: Thresholds, method: str) -> Threshold | None:
    if isinstance(thresholds, Threshold):
        return None if method.startswith(CONTROL) else thresholds
    return (thresholds or {}).get(method)
