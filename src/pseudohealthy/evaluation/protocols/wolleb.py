"""Wolleb et al. 2022: Dice at Otsu's threshold and AUROC of every diseased plane, averaged.

The intended variant looks at the voxels of the evaluation mask; the published one at the whole
picture, whose empty background is easily ranked and moves Otsu's threshold.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting, run
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.metrics import thresholds
from pseudohealthy.metrics.curves import auroc, dice


def wolleb(cases: Iterable[CaseResult], setting: Setting) -> Evaluation:
    """Measure dice_otsu_per_slice_mean and voxel_auroc_per_slice_mean over the planes with a
    lesion."""
    return run(cases, setting, _measure)


def slice_figures(values: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return (Dice at Otsu's threshold, AUROC or nan where all is lesion) of one plane with a
    lesion.

    The arrays may have any equal shapes.
    """
    values, truth = np.ravel(values), np.ravel(truth).astype(bool)
    overlap = dice(values > thresholds.otsu(values).value, truth)
    assert overlap is not None, "a slice without a lesion"
    return overlap, np.nan if truth.all() else auroc(values, truth)


def _measure(frame: Frame, group: list[CaseResult]) -> None:
    cases = [
        case
        for case in group
        if case.map is not None and case.truth is not None and np.any(case.truth)
    ]
    missing = len(group) - len(cases)
    if missing:
        frame.note(
            f"{many(missing, 'case')} without a map or without a lesion in the reference"
            f" {'is' if missing == 1 else 'are'} not measured"
        )
    if not cases:
        return
    sums, voxels, lesion = np.zeros((len(cases), 4)), 0, 0
    for row, case in zip(sums, cases, strict=True):
        values, truth, place = case.on_grid()
        for plane in np.flatnonzero(truth.any((1, 2))):
            inside = (
                np.ones_like(truth[plane]) if frame.setting.published else place.evaluated[plane]
            )
            overlap, area = slice_figures(values[plane][inside], truth[plane][inside])
            row += [overlap, 1, 0 if np.isnan(area) else area, not np.isnan(area)]
            voxels, lesion = voxels + inside.sum(), lesion + truth[plane].sum()
    prevalence = float(lesion / voxels)
    frame.ratio(
        "dice_otsu_per_slice_mean", cases, sums[:, 0], sums[:, 1], prevalence, source="otsu"
    )
    frame.ratio("voxel_auroc_per_slice_mean", cases, sums[:, 2], sums[:, 3], prevalence)
