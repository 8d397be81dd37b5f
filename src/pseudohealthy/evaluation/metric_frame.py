"""What every protocol is made of: one method's figures, each with its interval and its context.

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
from pseudohealthy.evaluation.notes import told_once
from pseudohealthy.evaluation.records import CONTROL, CaseResult, Record, class_of
from pseudohealthy.metrics import bootstrap, table
from pseudohealthy.metrics.curves import Curve, curve, region_curve
from pseudohealthy.metrics.thresholds import Threshold

Thresholds = Mapping[str, Threshold] | Threshold | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a protocol is given besides the cases.

    Args:
        protocol: words for the records.
        published: the published evaluation with its defects instead of the intended one.
        thresholds: for the voxel maps, by method (a single one is for every method that is no
            control).
        score_thresholds: the same for case scores.
        validation: the same methods' results on validation cases, for a threshold chosen there.
        mask: words for the voxels that the maps hold.
        grid: words for the grid they are on.
        postprocessing: words for what was done to them.
        resamples: of the patient bootstrap.
        seed: of the patient bootstrap.
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
    """Collects the figures of one method; `rows` are its own lines of cases.csv, if it has any."""

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
        """The threshold of case scores given for this method."""
        return _of(self.setting.score_thresholds, self.method)

    @property
    def validation(self) -> list[CaseResult]:
        """This method's results on validation cases."""
        return [case for case in self.setting.validation if case.method == self.method]

    def rank(
        self,
        cases: Sequence[CaseResult],
        scores: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        names: Mapping[str, str],
    ) -> Curve | None:
        """Put ranking metrics of scores and labels (N,) by case, pooled.

        Args:
            names: metric by key of `bootstrap.RANKINGS`; "best_dice" is an oracle.

        Returns:
            The pooled curve; None with a note where a class is missing.
        """
        ranking = curve(pooled(scores), pooled(labels))
        if not ranking.positives or not ranking.negatives:
            missing = "anomalous" if not ranking.positives else "healthy"
            unit = _metric(next(iter(names.values()))).unit
            self.note(
                f"{' and '.join(names.values())} are undefined: no {missing} {unit} in the data"
            )
            return None
        oracle = Threshold(ranking.best_dice()[1], "oracle")
        exact = {key: bootstrap.RANKINGS[key].exact(ranking) for key in names}
        resampled = self._resampled(ranking, cases, scores, labels, None, exact)
        for key, name in names.items():
            threshold = oracle if key == "best_dice" else None
            self.put(name, exact[key], resampled[key], cases, ranking.prevalence, threshold)
        return ranking

    def region_area(
        self, voxel_curve: Curve, cases: Sequence[CaseResult], weights: Sequence[np.ndarray]
    ) -> None:
        """Put the AUPRO of cases with their voxel curve.

        ``weights`` (true voxels,) are of each case, 1 per region in all.
        """
        maps, truths = map(list, zip(*(case.pair for case in cases), strict=True))
        positives = [values[truth] for values, truth in zip(maps, truths, strict=True)]
        by_region = region_curve(voxel_curve, pooled(positives), pooled(weights))
        exact = {"area_to_30": bootstrap.RANKINGS["area_to_30"].exact(by_region)}
        resampled = self._resampled(by_region, cases, maps, truths, weights, exact)
        self.put(
            "voxel_aupro_30",
            exact["area_to_30"],
            resampled["area_to_30"],
            cases,
            voxel_curve.prevalence,
        )

    def _resampled(
        self,
        ranking: Curve,
        cases: Sequence[CaseResult],
        scores: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        weights: Sequence[np.ndarray] | None,
        exact: Mapping[str, float],
    ) -> dict[str, np.ndarray]:
        """Return each exact value in every resample, (resamples,).

        ``weights`` (positives,) are those of each case's positives, 1 if None.
        """
        patient, number = patients(cases)
        histograms = bootstrap.Histograms(ranking, number)
        for index, row in enumerate(patient):
            weight = None
            if weights is not None:
                weight = np.ones(len(scores[index]))
                weight[labels[index]] = weights[index]
            histograms.add(row, scores[index], labels[index], weight)
        draws = bootstrap.weights(number, self.setting.resamples, self.setting.seed)
        values, binned = histograms.resampled(draws, exact), histograms.point(exact)
        # The difference between exact and binned is what binning cost: see bootstrap.
        return {
            key: np.clip(values[key] + (value - binned[key]), 0, 1) for key, value in exact.items()
        }

    def ratio(
        self,
        metric: str,
        cases: Sequence[CaseResult],
        numerator: np.ndarray,
        denominator: np.ndarray,
        prevalence: float | None,
        threshold: Threshold | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """Put ``numerator`` over ``denominator``, summed over cases; nothing where that is 0."""
        if not np.sum(denominator):
            return
        patient, number = patients(cases)
        sums = [
            np.bincount(patient, weights=part, minlength=number)
            for part in (numerator, denominator)
        ]
        resampled = bootstrap.ratio_of_sums(
            bootstrap.weights(number, self.setting.resamples, self.setting.seed), *sums
        )
        # The record counts the cases the figure is about: those with a reference, the healthy ones,
        # ...
        about = (
            cases
            if _metric(metric).unit == "voxel"
            else [case for case, part in zip(cases, denominator, strict=True) if part]
        )
        value = float(np.sum(numerator) / np.sum(denominator))
        self.put(metric, value, resampled, about, prevalence, threshold, source=source)

    def mean(
        self,
        metric: str,
        cases: Sequence[CaseResult],
        values: np.ndarray,
        prevalence: float | None,
        threshold: Threshold | None = None,
        *,
        source: str | None = None,
    ) -> None:
        """Put the mean of one value a case (nan where it has none)."""
        defined = np.isfinite(values)
        self.ratio(
            metric,
            cases,
            np.where(defined, values, 0),
            defined,
            prevalence,
            threshold,
            source=source,
        )

    def median(
        self,
        metric: str,
        cases: Sequence[CaseResult],
        values: np.ndarray,
        prevalence: float | None,
        threshold: Threshold | None,
    ) -> None:
        """Put the median of one value a case (nan where it has none)."""
        patient, number = patients(cases)
        weight = bootstrap.weights(number, self.setting.resamples, self.setting.seed).astype(
            np.int64
        )[:, patient]
        defined = np.isfinite(values)
        resampled = np.asarray(
            [
                np.median(
                    np.repeat(values[defined], row[defined]) if row[defined].any() else np.nan
                )
                for row in weight
            ]
        )
        about = [case for case, keep in zip(cases, defined, strict=True) if keep]
        self.put(metric, float(np.median(values[defined])), resampled, about, prevalence, threshold)

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
        """Put one figure of the cases it is about.

        Args:
            drawn: its value in every resample, None of a count.
            source: of thresholds that differ from case to case, so that there is no one value.

        Raises:
            ValueError: for a metric that is not in the table, or not so.
        """
        entry = _metric(metric)
        if entry.resampled != (drawn is not None):
            raise ValueError(
                f"{metric} has {'no ' if drawn is None else ''}resamples, and the table says"
                " otherwise"
            )
        number = len({case.patient_id for case in about})
        record = Record(
            metric=metric,
            value=value,
            ci95=bootstrap.percentile(drawn) if drawn is not None and number > 1 else None,
            unit=entry.unit,
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
        """Note what could not be computed for this method."""
        self.evaluation.notes.append(f"{self.method}: {text}")


def run(
    cases: Iterable[CaseResult],
    setting: Setting,
    measure: Callable[[Frame, list[CaseResult]], None],
) -> Evaluation:
    """Measure every method in ``cases``; those named ``control: ...`` are the trivial controls.

    Raises:
        Fault: NO_CASES, or DUPLICATE_CASE (exit 2) for a case given twice.
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
    unadjusted = [
        difference
        for method in by_method
        if not method.startswith(CONTROL)
        for difference in differences(method, evaluation)
    ]
    evaluation.notes = told_once(evaluation.notes, list(by_method))
    evaluation.records += corrected(unadjusted)
    return evaluation


def pooled(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values of all cases as one array."""
    return np.concatenate(parts) if len(parts) else np.zeros(0)


def patients(cases: Sequence[CaseResult]) -> tuple[np.ndarray, int]:
    """Return the row of each case's patient among the sorted patients, and their number."""
    names, rows = np.unique([case.patient_id for case in cases], return_inverse=True)
    return rows, len(names)


def counts(case: CaseResult, threshold: float) -> tuple[int, int, int]:
    """Return the voxels marked and in the reference, those marked, and those in the reference."""
    values, truth = case.pair
    marked = values > threshold
    return (
        int(np.count_nonzero(marked & truth)),
        int(np.count_nonzero(marked)),
        int(np.count_nonzero(truth)),
    )


def row(case: CaseResult, threshold: Threshold | None) -> dict[str, Any]:
    """Return one line of cases.csv; an undefined entry is empty."""
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
            overlap, marked, reference = counts(case, threshold.value)
            cells["dice"] = 2 * overlap / (marked + reference) if reference else None
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
