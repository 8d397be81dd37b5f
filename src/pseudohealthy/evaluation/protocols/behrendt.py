"""The evaluation of Behrendt et al. (pDDPM 2023, cDDPM 2025): one threshold from labelled
validation.

Intended, as the papers say: median of 5 x 5 x 5, then the brain mask eroded by 1/25 of the plane's
width; the threshold of highest pooled Dice on validation, found exactly; regions of fewer than 7
voxels removed; Dice and average precision per volume, averaged, inside the evaluation mask.
Published, as released: erosion before the median; a search of ten halvings that takes the Dice for
single-peaked; regions of up to 7 voxels removed; the empty background counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting, pooled, row, run
from pseudohealthy.evaluation.records import CaseResult, Place
from pseudohealthy.maps import volume_filters
from pseudohealthy.metrics import thresholds
from pseudohealthy.metrics.curves import curve, dice
from pseudohealthy.metrics.thresholds import Threshold

SHARE = 25  # plane width over erosion steps: 3 steps at 96 pixels of 2 mm in the published code
MEDIAN = 5


def behrendt(cases: Iterable[CaseResult], setting: Setting) -> Evaluation:
    """Measure figures per volume after the published clean-up; the Dice needs labelled
    validation."""
    words = (
        f"{setting.postprocessing}, median {MEDIAN} voxels in 3-D, rim of 1/{SHARE} of the width"
        " eroded, small regions removed"
    )
    return run(cases, replace(setting, postprocessing=words), _measure)


def process(volume: np.ndarray, brain: np.ndarray, *, published: bool = False) -> np.ndarray:
    """Return a map (D, H, W) after median and erosion of its brain mask, in the papers' or code's
    order."""
    eroded = volume_filters.erode(brain, volume.shape[2] // SHARE)
    if published:
        return volume_filters.median(volume * eroded, MEDIAN)
    return volume_filters.median(volume, MEDIAN) * eroded


def regions_kept(mask: np.ndarray, *, published: bool = False) -> np.ndarray:
    """Return the mask (D, H, W) without small regions: under 7 voxels in the papers, up to 7 in the
    code."""
    return volume_filters.without_small(mask, 8 if published else 7)


def bisection(scores: np.ndarray, labels: np.ndarray) -> Threshold:
    """Search a threshold as published, which misses the optimum of a Dice with two peaks.

    Of the interval from 0 to the highest score keep the half whose middle has the higher Dice (the
    lower one where equal), ten times, and return the best middle met, the last of equals.
    """
    ranking = curve(scores, labels)
    low, high = scores.dtype.type(0), scores.max()
    best, value = -1.0, low
    for _ in range(10):
        quarter = (high - low) / 4
        middles = low + quarter, high - quarter
        dices = [ranking.dice_at(float(middle)) for middle in middles]
        upper = int(dices[1] > dices[0])
        if dices[upper] >= best:
            best, value = dices[upper], middles[upper]
        low, high = ((low + high) / 2, high) if upper else (low, (low + high) / 2)
    return Threshold(
        float(value),
        "validation",
        {"dice": best, "search": "bisection", "n_values": int(scores.size)},
    )


def dice_per_slice(mask: np.ndarray, truth: np.ndarray, *, axis: int = 0) -> np.ndarray:
    """Return the Dice of every plane along ``axis`` that holds a lesion.

    Axis 0 is axial here; the published code, whose volumes are stored (x, y, z), walks over its own
    axis 0, which is sagittal: axis 2 here.
    """
    pairs = zip(np.moveaxis(mask, axis, 0), np.moveaxis(truth, axis, 0), strict=True)
    return np.asarray(
        [
            value
            for marked_plane, true_plane in pairs
            if (value := dice(marked_plane, true_plane)) is not None
        ]
    )


def _measure(frame: Frame, group: list[CaseResult]) -> None:
    published = frame.setting.published
    cases = [
        _cleaned(case, published)
        for case in group
        if case.map is not None and case.truth is not None
    ]
    if len(cases) < len(group):
        missing = len(group) - len(cases)
        frame.note(
            f"{many(missing, 'case')} without a map or a reference mask"
            f" {'is' if missing == 1 else 'are'} not measured"
        )
    if not cases:
        return
    reference = np.asarray([np.count_nonzero(case.pair[1]) for case in cases])
    prevalence = float(reference.sum() / sum(len(case.pair[1]) for case in cases))
    frame.put(
        "n_empty_ref", float((reference == 0).sum()), None, cases, float((reference > 0).mean())
    )
    ranked = np.full((3, len(cases)), np.nan)
    for number, case in enumerate(cases):
        ranking = curve(*case.pair)
        if ranking.positives and ranking.negatives:
            ranked[:, number] = ranking.average_precision, ranking.auroc, ranking.best_dice()[0]
    frame.mean("voxel_average_precision_per_case_mean", cases, ranked[0], prevalence)
    frame.mean("voxel_auroc_per_case_mean", cases, ranked[1], prevalence)
    frame.mean("dice_oracle_per_case_mean", cases, ranked[2], prevalence, source="oracle")
    threshold = _threshold(frame, published)
    if threshold is None:
        return
    values, sums = np.full(len(cases), np.nan), np.zeros((len(cases), 2))
    for number, case in enumerate(cases):
        smoothed, truth, _ = case.on_grid()
        mask = regions_kept(smoothed > threshold.value, published=published)
        if reference[number]:
            values[number] = dice(mask, truth)
            by_plane = dice_per_slice(mask, truth, axis=2 if published else 0)
            sums[number] = by_plane.sum(), len(by_plane)
        elif published and mask.any():
            # The published mean drops a volume only where reference and finding are both empty.
            values[number] = 0.0
        frame.rows.append(
            row(case, threshold) | {"found_voxels": int(mask.sum()), "dice": _cell(values[number])}
        )
    frame.mean("dice_validation_per_case_mean", cases, values, prevalence, threshold)
    frame.ratio(
        "dice_validation_per_slice_mean", cases, sums[:, 0], sums[:, 1], prevalence, threshold
    )


def _cleaned(case: CaseResult, published: bool) -> CaseResult:
    """The case with its processed map; the published variant then holds every voxel of the grid."""
    values, truth, place = case.on_grid()
    processed = process(values, place.foreground, published=published)
    if published:
        place = Place(np.ones_like(place.evaluated), place.foreground)
    return replace(case, map=processed[place.evaluated], truth=truth[place.evaluated], place=place)


def _threshold(frame: Frame, published: bool) -> Threshold | None:
    """Choose it on the labelled validation cases, processed alike; None with a note where there are
    none."""
    labelled = [
        case for case in frame.validation if case.map is not None and case.truth is not None
    ]
    if not any(np.any(case.truth) for case in labelled):
        frame.note(
            "no validation case has a lesion in its reference, so there is no threshold and no Dice"
        )
        return None
    cleaned = [_cleaned(case, published) for case in labelled]
    scores, labels = map(pooled, zip(*(case.pair for case in cleaned), strict=True))
    if published:
        return bisection(scores, labels)
    return thresholds.validation(
        scores, labels, n_patients=len({case.patient_id for case in labelled})
    )


def _cell(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
