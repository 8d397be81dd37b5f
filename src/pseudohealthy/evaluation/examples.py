"""Cases by several runs: twin, anomaly map, mask at the best Dice and histogram of each (Behrendt
et al., cDDPM, figure 5).

The threshold of a mask is the one with the highest Dice of that very case, which no user could
know: an oracle, and named so wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case
from pseudohealthy.detection.detector import Detector
from pseudohealthy.evaluation.compare import OnCanvases
from pseudohealthy.evaluation.intensity import counts, kl
from pseudohealthy.evaluation.measure import evenly
from pseudohealthy.metrics.curves import curve
from pseudohealthy.progress import Progress
from pseudohealthy.restorers.apply import Stack

SHOWN = 3  # cases


@dataclass
class Example:
    """One case by one run, on its canvas: the plane with the largest reference, and figures of the
    whole case.

    Args:
        image, twin: (S, S) in [-1, 1]. map, mask, reference: (S, S) of that plane.
        images, twins: counts of intensities in healthy tissue of the case, see `intensity.counts`.
        row: case, plane, run, oracle threshold and Dice, KL divergence and l1 of the case.
    """

    image: Tensor
    twin: Tensor
    map: Tensor
    mask: Tensor
    reference: Tensor
    images: np.ndarray
    twins: np.ndarray
    row: dict[str, Any]


def to_show(chosen: list[Case]) -> list[str]:
    """Case ids of up to `SHOWN` cases with a reference, evenly spread, of different patients."""
    marked = {case.patient_id: case for case in chosen if case.mask and case.label != HEALTHY}
    return [case.case_id for case in evenly(list(marked.values()), SHOWN)]


def examples(runs: Mapping[str, Detector], cases: Sequence[OnCanvases]) -> list[list[Example]]:
    """By case, what each run makes of it; a case whose reference vanishes on a canvas is left
    out."""
    found: list[list[Example]] = []
    with Progress("examples", len(cases)) as bar:
        for item in cases:
            fitted = [item.by_canvas[detector.canvas] for detector in runs.values()]
            if all(one.mask is not None and (one.mask & one.foreground).any() for one in fitted):
                found.append([example(name, detector, item) for name, detector in runs.items()])
            bar.advance()
    return found


def example(name: str, detector: Detector, item: OnCanvases) -> Example:
    """The case restored whole, since filters of the map may reach across planes."""
    fitted = item.by_canvas[detector.canvas]
    assert fitted.mask is not None
    (one,) = detector.apply([Stack.of(detector.canvas, fitted)])
    judged, healthy = fitted.foreground | fitted.mask, fitted.foreground & ~fitted.mask
    dice, threshold = curve(one.maps[judged].numpy(), fitted.mask[judged].numpy()).best_dice()
    plane = int((fitted.mask & fitted.foreground).flatten(1).sum(1).argmax())
    image, twin = fitted.planes.mean(1), one.healthy.mean(1)
    images, twins = counts(image[healthy]), counts(twin[healthy])
    distance = (fitted.planes - one.healthy).abs().mean(1)[healthy]
    row = {
        "case_id": item.reading.case.case_id,
        "plane": plane,
        "run": name,
        "threshold_oracle": threshold,
        "dice_oracle": dice,
        "kl": float(kl(images, twins)),
        "l1": float(distance.mean()) / 2 if len(distance) else float("nan"),
    }
    mask = torch.where(judged[plane], one.maps[plane] > threshold, False)
    return Example(
        image[plane], twin[plane], one.maps[plane], mask, fitted.mask[plane], images, twins, row
    )
