"""THOR (Bercea et al. 2024), ATLAS: highest Dice and average precision over all lesion planes,
pooled.

By size of the lesion in a plane as well: small 4 to 71 pixels, medium to 570, large to 10,000, at
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
    """Measure dice_oracle_pooled and voxel_average_precision_pooled, of all lesion planes and by
    size."""
    return run(cases, setting, _measure)


def dice_curve(ranking: Curve) -> np.ndarray:
    """Return the pooled Dice at each of the 101 published thresholds."""
    return np.asarray([ranking.dice_at(threshold) for threshold in TRIED])


def _measure(frame: Frame, group: list[CaseResult]) -> None:
    cases = [
        case
        for case in group
        if case.map is not None and case.truth is not None and np.any(case.truth)
    ]
    if len(cases) < len(group):
        missing = len(group) - len(cases)
        frame.note(
            f"{many(missing, 'case')} without a lesion in the reference"
            f" {'is' if missing == 1 else 'are'} not measured"
        )
    by_band: dict[str, list[tuple[CaseResult, np.ndarray, np.ndarray]]] = {
        band: [] for band in BANDS
    }
    for case in cases:
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
                by_band[band].append((case, values[planes][inside], truth[planes][inside]))
    for band, parts in by_band.items():
        if not parts:
            continue
        about, maps, truths = zip(*parts, strict=True)
        name = f"dice_oracle_pooled{band}"
        names = {"average_precision": f"voxel_average_precision_pooled{band}", "best_dice": name}
        ranking = frame.rank(about, maps, truths, names)
        if ranking is not None and frame.setting.published:
            dices = dice_curve(ranking)
            figure = frame.figures[name]
            record = replace(
                figure.record, value=float(dices.max()), threshold=float(TRIED[dices.argmax()])
            )
            assert figure.drawn is not None
            frame.figures[name] = replace(
                figure, record=record, drawn=figure.drawn + record.value - figure.record.value
            )
        if ranking is not None and not band:
            frame.evaluation.voxel_curves[frame.method] = ranking.thinned()
