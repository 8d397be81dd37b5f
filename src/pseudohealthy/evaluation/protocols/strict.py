"""The strict protocol: every figure with unit, threshold source, prevalence and patient interval.

What it insists on: thresholds come from validation data (an oracle figure says so in its name);
pooled and per-case figures have different names; an empty reference is counted, never averaged
away; lesions count as lesions beside voxels; trivial controls stand in the same table; what cannot
be computed is left out with a note, never written as NaN.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting, counts, pooled, run
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.metrics import thresholds
from pseudohealthy.metrics.curves import curve
from pseudohealthy.metrics.lesions import SIZES, compare_regions, region_weights
from pseudohealthy.metrics.table import METRICS
from pseudohealthy.metrics.thresholds import Threshold

DEFAULTS = Setting()
RANKING = ("auroc", "average_precision", "fpr_at_95_tpr")


def strict(cases: Iterable[CaseResult], setting: Setting = DEFAULTS) -> Evaluation:
    """Measure every method in ``cases``; those named ``control: ...`` are the trivial controls.

    Raises:
        Fault: DUPLICATE_CASE (exit 2) for a case given twice.
    """
    return run(cases, setting, measure)


def measure(frame: Frame, group: list[CaseResult]) -> None:
    """Put all figures of one method, the registered ones last."""
    own_figures(frame, group)
    for metric in METRICS.values():
        if metric.measure:
            metric.measure(frame, group)


def own_figures(frame: Frame, group: list[CaseResult]) -> None:
    """Put the figures that the package measures."""
    image_scores(frame, group)
    plane_scores(frame, group)
    cases = [case for case in group if case.map is not None and case.truth is not None]
    without = sum(case.map is not None and case.truth is None for case in group)
    if without:
        frame.note(
            f"{many(without, 'case has', 'cases have')} a map but no reference mask and no part in"
            " the voxel figures"
        )
    if not cases:
        return
    voxel_scores(frame, cases)
    per_case_thresholds(frame, cases)
    labelled = [
        case for case in frame.validation if case.map is not None and case.truth is not None
    ]
    if any(np.any(case.truth) for case in labelled):
        maps, truths = zip(*(case.pair for case in labelled), strict=True)
        threshold = thresholds.validation(
            pooled(maps), pooled(truths), n_patients=len({case.patient_id for case in labelled})
        )
        at_threshold(frame, cases, threshold, "dice_validation")
    if frame.threshold is None:
        frame.note("no threshold was given, so only the oracle Dice is reported")
        return
    at_threshold(frame, cases, frame.threshold, "dice")
    false_volume(frame, cases, frame.threshold)
    lesions(frame, cases, frame.threshold)


def image_scores(frame: Frame, group: list[CaseResult]) -> None:
    """Put rankings of case scores and, at the score threshold, sensitivity and specificity."""
    cases = [case for case in group if case.label is not None]
    scores = [np.asarray([case.score]) for case in cases]
    labels = [np.asarray([case.label == ANOMALOUS]) for case in cases]
    ranking = frame.rank(cases, scores, labels, {key: f"image_{key}" for key in RANKING})
    anomalous = pooled(labels).astype(bool)
    frame.evaluation.scores[frame.method] = (pooled(scores), anomalous)
    if ranking is not None:
        frame.evaluation.image_curves[frame.method] = ranking
    threshold = frame.score_threshold
    if threshold is None or not cases:
        return
    frame.evaluation.score_thresholds[frame.method] = threshold
    flagged = np.asarray([case.score > threshold.value for case in cases])
    for metric, right, group_of in (
        ("image_sensitivity", flagged & anomalous, anomalous),
        ("image_specificity", ~flagged & ~anomalous, ~anomalous),
    ):
        frame.ratio(metric, cases, right, group_of, float(anomalous.mean()), threshold)


def plane_scores(frame: Frame, group: list[CaseResult]) -> None:
    """Put rankings of plane scores over planes with a known label."""
    cases = [
        case for case in group if case.plane_scores is not None and case.plane_labels is not None
    ]
    keep = [np.isin(np.asarray(case.plane_labels), (HEALTHY, ANOMALOUS)) for case in cases]
    scores = [np.asarray(case.plane_scores)[k] for case, k in zip(cases, keep, strict=True)]
    labels = [
        np.asarray(case.plane_labels)[k] == ANOMALOUS for case, k in zip(cases, keep, strict=True)
    ]
    if cases:
        frame.rank(cases, scores, labels, {key: f"plane_{key}" for key in RANKING[:2]})
        empty = sum(case.empty_planes for case in cases)
        frame.put("n_planes_without_foreground", float(empty), None, cases, _share(labels))


def voxel_scores(frame: Frame, cases: list[CaseResult]) -> None:
    """Put rankings of all voxels pooled, the oracle Dice, AUPRO and the number of empty references.

    AUPRO needs to know where the voxels lie.
    """
    names = {
        "auroc": "voxel_auroc_pooled",
        "average_precision": "voxel_average_precision_pooled",
        "fpr_at_95_tpr": "voxel_fpr_at_95_tpr_pooled",
        "best_dice": "dice_oracle_pooled",
    }
    maps, truths = zip(*(case.pair for case in cases), strict=True)
    ranking = frame.rank(cases, maps, truths, names)
    if ranking is not None:
        if all(case.place is not None for case in cases):
            frame.region_area(ranking, cases, [region_weights(case.on_grid()[1]) for case in cases])
        frame.evaluation.voxel_curves[frame.method] = ranking.thinned()
    empty = sum(int(not truth.any()) for truth in truths)
    frame.put("n_empty_ref", float(empty), None, cases, 1 - empty / len(cases))


def at_threshold(frame: Frame, cases: list[CaseResult], threshold: Threshold, name: str) -> None:
    """Put the Dice at one threshold, pooled and per case.

    Cases without a lesion count in the pooled figure alone.
    """
    overlap, marked, reference = np.asarray(
        [counts(case, threshold.value) for case in cases], dtype=np.float64
    ).T
    if not reference.sum():
        return
    prevalence = _prevalence(cases)
    frame.ratio(f"{name}_pooled", cases, 2 * overlap, marked + reference, prevalence, threshold)
    dice = np.divide(
        2 * overlap, marked + reference, out=np.full_like(overlap, np.nan), where=reference > 0
    )
    frame.mean(f"{name}_per_case_mean", cases, dice, prevalence, threshold)
    frame.median(f"{name}_per_case_median", cases, dice, prevalence, threshold)


def per_case_thresholds(frame: Frame, cases: list[CaseResult]) -> None:
    """Put the Dice where every case has its own threshold: Otsu's and its best (an oracle).

    Otsu's finds something in everyone.
    """
    cells = []
    for case in cases:
        values, truth = case.pair
        overlap, marked, reference = (
            counts(case, thresholds.otsu(values).value) if len(values) else (0, 0, 0)
        )
        best = curve(values, truth).best_dice()[0] if reference else np.nan
        cells.append((overlap, marked, reference, best))
    overlap, marked, reference, best = np.asarray(cells, dtype=np.float64).T
    if not reference.sum():
        return
    prevalence = _prevalence(cases)
    total = marked + reference
    dice = np.divide(2 * overlap, total, out=np.full_like(overlap, np.nan), where=reference > 0)
    frame.ratio("dice_otsu_pooled", cases, 2 * overlap, total, prevalence, source="otsu")
    frame.mean("dice_otsu_per_case_mean", cases, dice, prevalence, source="otsu")
    frame.mean("dice_oracle_per_case_mean", cases, best, prevalence, source="oracle")


def false_volume(frame: Frame, cases: list[CaseResult], threshold: Threshold) -> None:
    """Put the volume that is called anomalous in a healthy case, on average."""
    healthy = np.asarray([case.label == HEALTHY for case in cases])
    marked = np.asarray(
        [np.count_nonzero(np.asarray(case.map) > threshold.value) for case in cases]
    )
    ml = [case.voxel_ml for case in cases]
    unit, size = (
        ("voxels", np.ones(len(cases))) if None in ml else ("ml", np.asarray(ml, dtype=np.float64))
    )
    name = f"false_positive_volume_healthy_mean_{unit}"
    frame.ratio(name, cases, marked * size * healthy, healthy, 0.0, threshold)


def lesions(frame: Frame, cases: list[CaseResult], threshold: Threshold) -> None:
    """Put lesions found (a voxel of it; overlap of a tenth) and regions that are none, also by
    size."""
    if not all(case.place is not None for case in cases):
        return
    by_case = []
    for case in cases:
        values, truth, _ = case.on_grid()
        by_case.append(compare_regions(values > threshold.value, truth, case.voxel_ml))
    prevalence, number = _prevalence(cases), np.ones(len(cases))
    for index, size in ((None, ""), *enumerate(f"_{size}" for size in SIZES)):
        of_size = [
            regions.sizes == index if index is not None else np.ones(len(regions.sizes), bool)
            for regions in by_case
        ]
        total = np.asarray([part.sum() for part in of_size])
        for metric, detected in (
            (
                "lesion_detection_rate",
                [
                    regions.detected[part].sum()
                    for regions, part in zip(by_case, of_size, strict=True)
                ],
            ),
            (
                "lesion_detection_rate_iou10",
                [
                    (regions.overlap[part] >= 0.1).sum()
                    for regions, part in zip(by_case, of_size, strict=True)
                ],
            ),
        ):
            frame.ratio(
                f"{metric}{size}", cases, np.asarray(detected), total, prevalence, threshold
            )
        false = [
            (regions.false_sizes == index).sum() if index is not None else len(regions.false_sizes)
            for regions in by_case
        ]
        frame.ratio(
            f"false_positive_regions_per_case{size}",
            cases,
            np.asarray(false),
            number,
            prevalence,
            threshold,
        )


def _share(labels: list[np.ndarray]) -> float | None:
    count = sum(map(len, labels))
    return float(sum(map(np.count_nonzero, labels)) / count) if count else None


def _prevalence(cases: list[CaseResult]) -> float | None:
    voxels = sum(len(case.pair[1]) for case in cases)
    return float(sum(np.count_nonzero(case.pair[1]) for case in cases) / voxels) if voxels else None
