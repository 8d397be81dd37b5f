"""Head CT: AUROC and average precision of planes and of whole studies, resampling patients.

Beside the usual controls stand three trivial measures: tissue area (alone AUROC .72 for haemorrhage
in one published selection), mean intensity, and the area in the range of fresh blood.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting, run
from pseudohealthy.evaluation.protocols.strict import image_scores, plane_scores
from pseudohealthy.evaluation.records import CONTROL, CaseResult

if TYPE_CHECKING:
    from pseudohealthy.io.scan import Scan

BLOOD = (60.0, 90.0)  # HU of fresh blood on CT, above grey matter and below calcification


def ct(cases: Iterable[CaseResult], setting: Setting) -> Evaluation:
    """Measure plane_* over planes with a known label and image_* over studies."""
    results = list(cases)
    if results:
        results += _trivial_measures([case for case in results if case.method == results[0].method])
    return run(results, setting, _measure)


def plane_facts(scan: Scan, foreground: np.ndarray, hu: bool) -> dict[str, np.ndarray]:
    """Measure each plane (D,) trivially: area, mean and, in HU, area in the range of fresh blood.

    Areas are in mm² where the grid has a spacing.

    Args:
        scan: its first channel is measured.
        foreground: (D, H, W) bool.
        hu: whether the channel is in HU.
    """
    values, count = scan.voxels[0], foreground.sum((1, 2))
    pixel = 1.0 if scan.spacing is None else scan.spacing[1] * scan.spacing[2]
    mean = np.where(foreground, values, 0).sum((1, 2), dtype=np.float64) / np.maximum(count, 1)
    if not hu:
        return {"tissue-area": count * pixel, "tissue-mean": mean}
    blood = foreground & (values >= BLOOD[0]) & (values <= BLOOD[1])
    return {
        "tissue-area": count * pixel,
        "tissue-mean-HU": mean,
        "blood-area": blood.sum((1, 2)) * pixel,
    }


def _measure(frame: Frame, group: list[CaseResult]) -> None:
    image_scores(frame, group)
    plane_scores(frame, [_one_slice(case) for case in group])


def _one_slice(case: CaseResult) -> CaseResult:
    """Give a study of one plane its own score and label as the plane's."""
    single = case.place is None or len(case.place.evaluated) == 1
    if case.plane_labels is not None or case.label is None or not single:
        return case
    return replace(
        case, plane_scores=np.asarray([case.score]), plane_labels=np.asarray([case.label])
    )


def _trivial_measures(group: list[CaseResult]) -> list[CaseResult]:
    """Return the trivial measures of each case as methods; without a map, so cheap."""
    results = []
    for name in dict.fromkeys(name for case in group for name in case.facts):
        if not all(name in case.facts for case in group):
            continue
        for case in group:  # a study: its mean plane
            values = np.asarray(case.facts[name], dtype=np.float64)
            plane_values = values if case.plane_labels is not None else None
            results.append(
                replace(
                    case,
                    method=f"{CONTROL} {name}",
                    score=float(values.mean()),
                    plane_scores=plane_values,
                    map=None,
                    truth=None,
                )
            )
    return results
