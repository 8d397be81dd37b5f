"""The strict protocol: every figure with its unit, threshold source, prevalence and patient
interval.

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
from pseudohealthy.metrics import table, thresholds
from pseudohealthy.metrics.curves import curve
from pseudohealthy.metrics.lesions import SIZES, compare_regions, region_weights
from pseudohealthy.metrics.thresholds import Threshold

DEFAULTS = Setting()
RANKING = ("auroc", "average_precision", "fpr_at_95_tpr")


def strict(cases: Iterable[CaseResult], setting: Setting = DEFAULTS) -> Evaluation:
    """Measure every method found in ``cases`` (methods named ``control: ...`` are the trivial
    controls). Raises `Fault` for a case given twice."""
    return run(cases, setting, measure)


def measure(frame: Frame, group: list[CaseResult]) -> None:
    """All figures of one method, the registered ones last."""
    own_figures(frame, group)
    for metric in table.METRICS.values():
        if metric.measure:
            metric.measure(frame, group)


def own_figures(frame: Frame, group: list[CaseResult]) -> None:
    image_scores(frame, group)
    plane_scores(frame, group)
    known = [case for case in group if case.map is not None and case.truth is not None]
    without = sum(case.map is not None and case.truth is None for case in group)
    if without:
        frame.note(
            f"{many(without, 'case has', 'cases have')} a map but no reference mask and no part in"
            " the voxel figures"
        )
    if not known:
        return
    voxel_scores(frame, known)
    per_case_thresholds(frame, known)
    labelled = [
        case for case in frame.validation if case.map is not None and case.truth is not None
    ]
    if any(np.any(case.truth) for case in labelled):
        maps, truths = zip(*(case.pair for case in labelled), strict=True)
        chosen = thresholds.validation(
            pooled(maps), pooled(truths), n_patients=len({case.patient_id for case in labelled})
        )
        at_threshold(frame, known, chosen, "dice_validation")
    if frame.threshold is None:
        frame.note("no threshold was given, so only the oracle Dice is reported")
        return
    at_threshold(frame, known, frame.threshold, "dice")
    false_volume(frame, known, frame.threshold)
    lesions(frame, known, frame.threshold)


def image_scores(frame: Frame, group: list[CaseResult]) -> None:
    known = [case for case in group if case.label is not None]
    scores = [np.asarray([case.score]) for case in known]
    labels = [np.asarray([case.label == ANOMALOUS]) for case in known]
    found = frame.rank(known, scores, labels, {key: f"image_{key}" for key in RANKING})
    anomalous = pooled(labels).astype(bool)
    frame.evaluation.scores[frame.method] = (pooled(scores), anomalous)
    if found is not None:
        frame.evaluation.image_curves[frame.method] = found
    threshold = frame.score_threshold
    if threshold is None or not known:
        return
    frame.evaluation.score_thresholds[frame.method] = threshold
    flagged = np.asarray([case.score > threshold.value for case in known])
    for metric, right, group_of in (
        ("image_sensitivity", flagged & anomalous, anomalous),
        ("image_specificity", ~flagged & ~anomalous, ~anomalous),
    ):
        frame.ratio(metric, known, right, group_of, float(anomalous.mean()), threshold)


def plane_scores(frame: Frame, group: list[CaseResult]) -> None:
    known = [
        case for case in group if case.plane_scores is not None and case.plane_labels is not None
    ]
    keep = [np.isin(np.asarray(case.plane_labels), (HEALTHY, ANOMALOUS)) for case in known]
    scores = [np.asarray(case.plane_scores)[k] for case, k in zip(known, keep, strict=True)]
    labels = [
        np.asarray(case.plane_labels)[k] == ANOMALOUS for case, k in zip(known, keep, strict=True)
    ]
    if known:
        frame.rank(known, scores, labels, {key: f"plane_{key}" for key in RANKING[:2]})
        empty = sum(case.empty_planes for case in known)
        frame.put("n_planes_without_foreground", float(empty), None, known, _share(labels))


def voxel_scores(frame: Frame, known: list[CaseResult]) -> None:
    """Rankings of all voxels pooled, the oracle Dice, AUPRO where places are known, and how many
    references are empty."""
    names = {
        "auroc": "voxel_auroc_pooled",
        "average_precision": "voxel_average_precision_pooled",
        "fpr_at_95_tpr": "voxel_fpr_at_95_tpr_pooled",
        "best_dice": "dice_oracle_pooled",
    }
    maps, truths = zip(*(case.pair for case in known), strict=True)
    found = frame.rank(known, maps, truths, names)
    if found is not None:
        if all(case.place is not None for case in known):
            frame.region_area(found, known, [region_weights(case.on_grid()[1]) for case in known])
        frame.evaluation.voxel_curves[frame.method] = found.thinned()
    empty = sum(int(not truth.any()) for truth in truths)
    frame.put("n_empty_ref", float(empty), None, known, 1 - empty / len(known))


def at_threshold(frame: Frame, known: list[CaseResult], threshold: Threshold, name: str) -> None:
    """Dice at one threshold, pooled and per case; cases without a lesion count in the pooled figure
    alone."""
    both, found, reference = np.asarray(
        [counts(case, threshold.value) for case in known], dtype=np.float64
    ).T
    if not reference.sum():
        return
    prevalence = _prevalence(known)
    frame.ratio(f"{name}_pooled", known, 2 * both, found + reference, prevalence, threshold)
    dice = np.divide(
        2 * both, found + reference, out=np.full_like(both, np.nan), where=reference > 0
    )
    frame.mean(f"{name}_per_case_mean", known, dice, prevalence, threshold)
    frame.median(f"{name}_per_case_median", known, dice, prevalence, threshold)


def per_case_thresholds(frame: Frame, known: list[CaseResult]) -> None:
    """Dice where every case has its own threshold: Otsu's (finds something in everyone) and its
    best (an oracle)."""
    cells = []
    for case in known:
        values, truth = case.pair
        both, found, reference = (
            counts(case, thresholds.otsu(values).value) if len(values) else (0, 0, 0)
        )
        best = curve(values, truth).best_dice()[0] if reference else np.nan
        cells.append((both, found, reference, best))
    both, found, reference, best = np.asarray(cells, dtype=np.float64).T
    if not reference.sum():
        return
    prevalence = _prevalence(known)
    total = found + reference
    dice = np.divide(2 * both, total, out=np.full_like(both, np.nan), where=reference > 0)
    frame.ratio("dice_otsu_pooled", known, 2 * both, total, prevalence, source="otsu")
    frame.mean("dice_otsu_per_case_mean", known, dice, prevalence, source="otsu")
    frame.mean("dice_oracle_per_case_mean", known, best, prevalence, source="oracle")


def false_volume(frame: Frame, known: list[CaseResult], threshold: Threshold) -> None:
    """What is called anomalous in a healthy case, on average."""
    healthy = np.asarray([case.label == HEALTHY for case in known])
    found = np.asarray([np.count_nonzero(np.asarray(case.map) > threshold.value) for case in known])
    ml = [case.voxel_ml for case in known]
    unit, size = (
        ("voxels", np.ones(len(known))) if None in ml else ("ml", np.asarray(ml, dtype=np.float64))
    )
    name = f"false_positive_volume_healthy_mean_{unit}"
    frame.ratio(name, known, found * size * healthy, healthy, 0.0, threshold)


def lesions(frame: Frame, known: list[CaseResult], threshold: Threshold) -> None:
    """Lesions found (a voxel of it; overlap of a tenth) and regions found where there is none, also
    by size."""
    if not all(case.place is not None for case in known):
        return
    compared = []
    for case in known:
        values, truth, _ = case.on_grid()
        compared.append(compare_regions(values > threshold.value, truth, case.voxel_ml))
    prevalence, number = _prevalence(known), np.ones(len(known))
    for index, size in ((None, ""), *enumerate(f"_{size}" for size in SIZES)):
        of_size = [
            one.sizes == index if index is not None else np.ones(len(one.sizes), bool)
            for one in compared
        ]
        total = np.asarray([part.sum() for part in of_size])
        for metric, got in (
            (
                "lesion_detection_rate",
                [one.detected[part].sum() for one, part in zip(compared, of_size, strict=True)],
            ),
            (
                "lesion_detection_rate_iou10",
                [
                    (one.overlap[part] >= 0.1).sum()
                    for one, part in zip(compared, of_size, strict=True)
                ],
            ),
        ):
            frame.ratio(f"{metric}{size}", known, np.asarray(got), total, prevalence, threshold)
        false = [
            (one.false_sizes == index).sum() if index is not None else len(one.false_sizes)
            for one in compared
        ]
        frame.ratio(
            f"false_positive_regions_per_case{size}",
            known,
            np.asarray(false),
            number,
            prevalence,
            threshold,
        )


def _share(labels: list[np.ndarray]) -> float | None:
    count = sum(map(len, labels))
    return float(sum(map(np.count_nonzero, labels)) / count) if count else None


def _prevalence(known: list[CaseResult]) -> float | None:
    voxels = sum(len(case.pair[1]) for case in known)
    return float(sum(np.count_nonzero(case.pair[1]) for case in known) / voxels) if voxels else None
