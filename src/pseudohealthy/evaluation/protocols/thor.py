"""THOR (Bercea et al. 2024), ATLAS: highest Dice and average precision over the pooled pixels of
all lesion slices.

By size of the lesion in a slice as well: small 4 to 71 pixels, medium to 570, large to 10,000, at
128 x 128 pixels. The intended variant scales those bands to the grid at hand and searches all
thresholds; the published one counts the pixels as they are and tries 101 thresholds from 0 to 1.
Both choose on the test labels: the Dice is an oracle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.metric_frame import Frame, Setting, run
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.metrics.curves import Curve
from pseudohealthy.metrics.lesions import THOR_PLANE

BANDS = {"": (0, np.inf), "_small": (3, 71), "_medium": (71, 570), "_large": (570, 10_000)}
TRIED = np.linspace(0, 1, 101)


def thor(cases: Iterable[CaseResult], setting: Setting) -> Evaluation:
    """dice_oracle_pooled and voxel_average_precision_pooled, of all lesion slices and by lesion
    size."""
    return run(cases, setting, _measure)


def dice_curve(found: Curve) -> np.ndarray:
    """Pooled Dice at each of the 101 published thresholds."""
    return np.asarray([found.dice_at(threshold) for threshold in TRIED])


def _measure(frame: Frame, group: list[CaseResult]) -> None:
    known = [
        case
        for case in group
        if case.map is not None and case.truth is not None and np.any(case.truth)
    ]
    if len(known) < len(group):
        left = len(group) - len(known)
        frame.note(
            f"{many(left, 'case')} without a lesion in the reference {'is' if left == 1 else 'are'}"
            " not measured"
        )
    chosen: dict[str, list[tuple[CaseResult, np.ndarray, np.ndarray]]] = {
        band: [] for band in BANDS
    }
    for case in known:
        values, truth, place = case.on_grid()
        pixels = truth.sum((1, 2))
        size = pixels if frame.setting.published else pixels * THOR_PLANE / truth[0].size
        for band, (low, high) in BANDS.items():
            planes = (pixels > 0) & (size > low) & (size <= high)
            if planes.any():
                inside = (
                    np.ones_like(truth[planes])
                    if frame.setting.published
                    else place.evaluated[planes]
                )
                chosen[band].append((case, values[planes][inside], truth[planes][inside]))
    for band, parts in chosen.items():
        if not parts:
            continue
        about, maps, truths = zip(*parts, strict=True)
        name = f"dice_oracle_pooled{band}"
        names = {"average_precision": f"voxel_average_precision_pooled{band}", "best_dice": name}
        found = frame.rank(about, maps, truths, names)
        if found is not None and frame.setting.published:
            tried = dice_curve(found)
            figure = frame.figures[name]
            record = replace(
                figure.record, value=float(tried.max()), threshold=float(TRIED[tried.argmax()])
            )
            assert figure.drawn is not None
            frame.figures[name] = replace(
                figure, record=record, drawn=figure.drawn + record.value - figure.record.value
            )
        if found is not None and not band:
            frame.evaluation.voxel_curves[frame.method] = found.thinned()
