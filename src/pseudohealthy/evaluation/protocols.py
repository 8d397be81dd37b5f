"""The strict protocol: every figure with its unit, threshold source, prevalence and patient interval.

What it insists on: thresholds come from healthy validation data (an oracle figure says so in its name); pooled and
per-case figures have different names; an empty reference is counted, never averaged away; trivial controls stand in the
same table; what cannot be computed is left out with a note, never written as NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pseudohealthy.cases import ANOMALOUS, HEALTHY
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation import bootstrap
from pseudohealthy.evaluation.curves import Curve, curve
from pseudohealthy.evaluation.outcome import Evaluation
from pseudohealthy.evaluation.records import CONTROL, HEADINGS, CaseResult, Record
from pseudohealthy.evaluation.thresholds import Threshold

__all__ = ["CaseResult", "Evaluation", "Record", "strict"]


def strict(
    cases: Iterable[CaseResult],
    *,
    thresholds: Mapping[str, Threshold] | Threshold | None = None,
    score_thresholds: Mapping[str, Threshold] | Threshold | None = None,
    mask: str = "all voxels",
    grid: str = "native",
    postprocessing: str = "none",
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> Evaluation:
    """Measure every method found in ``cases`` (methods named ``control: ...`` are the trivial controls).

    thresholds: for the voxel maps, by method (a single one is for every method that is no control); score_thresholds:
    the same for case scores; mask, grid, postprocessing: words for the records, saying which voxels the maps hold, on
    which grid, after which clean-up. resamples, seed: of the patient bootstrap. Raises `Fault` for a case given
    twice.
    """
    by_method: dict[str, list[CaseResult]] = {}
    for case in cases:
        by_method.setdefault(case.method, []).append(case)
    if not by_method:
        raise Fault("NO_CASES", "no case to evaluate", "check the split and the manifest")
    evaluation = Evaluation()
    measured: dict[str, dict[str, _Figure]] = {}
    for method, group in by_method.items():
        if len({case.case_id for case in group}) < len(group):
            raise Fault("DUPLICATE_CASE", f"a case comes twice for {method}", "give each case its own id", exit=USAGE)
        frame = _Frame(method, evaluation, (mask, grid, postprocessing), resamples, seed)
        threshold = _of(thresholds, method)
        frame.image_scores(group, _of(score_thresholds, method))
        frame.plane_scores(group)
        frame.voxel_scores(group)
        frame.at_threshold(group, threshold)
        measured[method] = frame.figures
        evaluation.records += [figure.record for figure in frame.figures.values()]
        evaluation.rows += [_row(case, threshold) for case in group]
    for method in by_method:
        if not method.startswith(CONTROL):
            evaluation.records += _differences(method, measured, evaluation.notes)
    return evaluation


@dataclass
class _Figure:
    record: Record
    drawn: np.ndarray | None  # the value of every resample
    cases: tuple[str, ...]  # which cases it is about; equal cases mean equal patients and paired resamples


@dataclass
class _Frame:
    """Collects the figures of one method; the settings every record repeats are kept here."""

    method: str
    evaluation: Evaluation
    words: tuple[str, str, str]
    resamples: int
    seed: int
    figures: dict[str, _Figure] = field(default_factory=dict)

    def image_scores(self, group: list[CaseResult], threshold: Threshold | None) -> None:
        known = [case for case in group if case.label is not None]
        scores = [np.asarray([case.score]) for case in known]
        labels = [np.asarray([case.label == ANOMALOUS]) for case in known]
        found = self._rank(known, scores, labels, "case", ("image_auroc", "image_average_precision", None))
        self.evaluation.scores[self.method] = (_pooled(scores), _pooled(labels) > 0)
        if found is not None:
            self.evaluation.image_curves[self.method] = found
        if threshold is None or not known:
            return
        self.evaluation.score_thresholds[self.method] = threshold
        flagged = np.asarray([case.score > threshold.value for case in known])
        anomalous = _pooled(labels)
        for metric, right, group_of in (
            ("image_sensitivity", flagged & anomalous, anomalous),
            ("image_specificity", ~flagged & ~anomalous, ~anomalous),
        ):
            if group_of.any():
                self._ratio(metric, known, right, group_of, "case", float(anomalous.mean()), threshold)

    def plane_scores(self, group: list[CaseResult]) -> None:
        known = [case for case in group if case.plane_scores is not None and case.plane_labels is not None]
        keep = [np.isin(np.asarray(case.plane_labels), (HEALTHY, ANOMALOUS)) for case in known]
        scores = [np.asarray(case.plane_scores)[k] for case, k in zip(known, keep, strict=True)]
        labels = [np.asarray(case.plane_labels)[k] == ANOMALOUS for case, k in zip(known, keep, strict=True)]
        if known:
            self._rank(known, scores, labels, "plane", ("plane_auroc", "plane_average_precision", None))

    def voxel_scores(self, group: list[CaseResult]) -> None:
        known = [case for case in group if case.map is not None and case.truth is not None]
        without = sum(case.map is not None and case.truth is None for case in group)
        if without:
            self._note(f"{without} case(s) have a map but no reference mask and are not in the voxel figures")
        if not known:
            return
        names = ("voxel_auroc_pooled", "voxel_average_precision_pooled", "dice_oracle_pooled")
        maps, truths = [np.asarray(case.map) for case in known], [np.asarray(case.truth, dtype=bool) for case in known]
        found = self._rank(known, maps, truths, "voxel", names)
        if found is not None:
            self.evaluation.voxel_curves[self.method] = found
        empty = sum(int(not truth.any()) for truth in truths)
        self._put("n_empty_ref", float(empty), None, known, "case", 1 - empty / len(known))

    def at_threshold(self, group: list[CaseResult], threshold: Threshold | None) -> None:
        known = [case for case in group if case.map is not None and case.truth is not None]
        if not known:
            return
        if threshold is None:
            self._note("no threshold was given, so only the oracle Dice is reported")
            return
        counts = np.asarray([_counts(case, threshold) for case in known], dtype=np.float64)
        both, found, reference = counts.T
        voxels = sum(np.size(np.asarray(case.map)) for case in known)
        prevalence = float(reference.sum() / voxels) if voxels else None
        if reference.sum():
            self._ratio("dice_pooled", known, 2 * both, found + reference, "voxel", prevalence, threshold)
            lesion = reference > 0
            dice = np.divide(2 * both, found + reference, out=np.zeros_like(both), where=lesion)
            self._ratio("dice_per_case_mean", known, dice, lesion, "case", prevalence, threshold)
            self._median("dice_per_case_median", known, np.where(lesion, dice, np.nan), prevalence, threshold)
        healthy = np.asarray([case.label == HEALTHY for case in known])
        if healthy.any():
            ml = [case.voxel_ml for case in known]
            unit, size = ("voxels", np.ones(len(known))) if None in ml else ("ml", np.asarray(ml, dtype=np.float64))
            name = f"false_positive_volume_healthy_mean_{unit}"
            self._ratio(name, known, found * size * healthy, healthy, "case", 0.0, threshold)

    def _rank(
        self,
        known: list[CaseResult],
        scores: list[np.ndarray],
        labels: list[np.ndarray],
        unit: str,
        names: tuple[str, str, str | None],
    ) -> Curve | None:
        """AUROC, average precision and (where named) the oracle Dice; None with a note where a class is missing."""
        found = curve(_pooled(scores), _pooled(labels) > 0)
        if not found.positives or not found.negatives:
            missing = "anomalous" if not found.positives else "healthy"
            self._note(f"{names[0]} and {names[1]} are undefined: no {missing} {unit} in the data")
            return None
        patient, number = _patients(known)
        histograms = bootstrap.Histograms(found, number)
        for row, values, truth in zip(patient, scores, labels, strict=True):
            histograms.add(row, values, truth)
        drawn = histograms.resampled(bootstrap.weights(number, self.resamples, self.seed))
        binned = histograms.point()
        exact = {"auroc": found.auroc, "average_precision": found.average_precision, "best_dice": found.best_dice()[0]}
        for name, key in zip(names, ("auroc", "average_precision", "best_dice"), strict=True):
            if name is None:
                continue
            values = np.clip(drawn[key] + (exact[key] - binned[key]), 0, 1)  # see bootstrap: what binning cost
            oracle = Threshold(found.best_dice()[1], "oracle") if key == "best_dice" else None
            self._put(name, exact[key], values, known, unit, found.prevalence, oracle)
        return found

    def _ratio(
        self,
        metric: str,
        known: list[CaseResult],
        numerator: np.ndarray,
        denominator: np.ndarray,
        unit: str,
        prevalence: float | None,
        threshold: Threshold,
    ) -> None:
        patient, number = _patients(known)
        sums = [np.bincount(patient, weights=part, minlength=number) for part in (numerator, denominator)]
        drawn = bootstrap.ratio_of_sums(bootstrap.weights(number, self.resamples, self.seed), *sums)
        # The record counts the cases the figure is about: those with a reference, the healthy ones, ...
        about = known if unit == "voxel" else [case for case, part in zip(known, denominator, strict=True) if part]
        value = float(np.sum(numerator) / np.sum(denominator))
        self._put(metric, value, drawn, about, unit, prevalence, threshold)

    def _median(
        self, metric: str, known: list[CaseResult], values: np.ndarray, prevalence: float | None, threshold: Threshold
    ) -> None:
        patient, number = _patients(known)
        weight = bootstrap.weights(number, self.resamples, self.seed).astype(np.int64)[:, patient]
        defined = np.isfinite(values)
        drawn = np.asarray(
            [np.median(np.repeat(values[defined], row[defined]) if row[defined].any() else np.nan) for row in weight]
        )
        about = [case for case, keep in zip(known, defined, strict=True) if keep]
        self._put(metric, float(np.median(values[defined])), drawn, about, "case", prevalence, threshold)

    def _put(
        self,
        metric: str,
        value: float,
        drawn: np.ndarray | None,
        about: list[CaseResult],
        unit: str,
        prevalence: float | None,
        threshold: Threshold | None = None,
    ) -> None:
        patients = len({case.patient_id for case in about})
        mask, grid, postprocessing = self.words
        record = Record(
            metric=metric,
            value=value,
            ci95=bootstrap.percentile(drawn) if drawn is not None and patients > 1 else None,
            unit=unit,
            protocol="strict",
            threshold_source=threshold.source if threshold else None,
            mask=mask,
            grid=grid,
            postprocessing=postprocessing,
            n_patients=patients,
            n_cases=len(about),
            prevalence=prevalence,
            method=self.method,
            threshold=threshold.value if threshold else None,
        )
        self.figures[metric] = _Figure(record, drawn, tuple(sorted(case.case_id for case in about)))

    def _note(self, text: str) -> None:
        self.evaluation.notes.append(f"{self.method}: {text}")


def _of(thresholds: Mapping[str, Threshold] | Threshold | None, method: str) -> Threshold | None:
    if isinstance(thresholds, Threshold):
        return None if method.startswith(CONTROL) else thresholds
    return (thresholds or {}).get(method)


def _pooled(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0)


def _patients(cases: list[CaseResult]) -> tuple[np.ndarray, int]:
    """(row of each case's patient among the sorted patients, number of patients): the same for every method."""
    names, rows = np.unique([case.patient_id for case in cases], return_inverse=True)
    return rows, len(names)


def _counts(case: CaseResult, threshold: Threshold) -> tuple[int, int, int]:
    """(found and in the reference, found, in the reference), in voxels."""
    found = np.asarray(case.map) > threshold.value
    truth = np.asarray(case.truth, dtype=bool)
    return int(np.count_nonzero(found & truth)), int(np.count_nonzero(found)), int(np.count_nonzero(truth))


def _row(case: CaseResult, threshold: Threshold | None) -> dict[str, Any]:
    """One line of cases.csv; an undefined entry is empty."""
    row: dict[str, Any] = {
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
        row |= {"threshold": threshold.value, "threshold_source": threshold.source}
        row["found_voxels"] = int(np.count_nonzero(np.asarray(case.map) > threshold.value))
        if case.truth is not None:
            both, found, reference = _counts(case, threshold)
            row["dice"] = 2 * both / (found + reference) if reference else None
    return row


def _differences(method: str, measured: dict[str, dict[str, _Figure]], notes: list[str]) -> list[Record]:
    """``<metric>_difference`` of a method minus the best control, on the same cases, from the same resamples.

    The best control is picked on these very cases, which favours the control, never the method.
    """
    records = []
    for metric, figure in measured[method].items():
        rivals = [found[metric] for name, found in measured.items() if name.startswith(CONTROL) and metric in found]
        if metric not in HEADINGS or not rivals:
            continue
        best = max(rivals, key=lambda rival: rival.record.value)
        if best.cases != figure.cases or best.drawn is None or figure.drawn is None:
            notes.append(f"{method}: {metric} is not compared with {best.record.method}: measured on other cases")
            continue
        ci95, _ = bootstrap.paired_difference(figure.drawn, best.drawn)
        records.append(
            replace(
                figure.record,
                metric=f"{metric}_difference",
                value=figure.record.value - best.record.value,
                ci95=ci95 if figure.record.n_patients > 1 else None,
                threshold=None,
                against=best.record.method,
            )
        )
    return records
