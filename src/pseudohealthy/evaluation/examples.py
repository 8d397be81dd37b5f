"""Cases by several runs: twin, anomaly map, mask at the best Dice and histogram of each.

Behrendt et al., cDDPM (2025), figure 5. The threshold of a mask is the one with the highest Dice of
that very case, which no user could know: an oracle, and named so wherever it stands.
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
    """One case by one run, on its canvas: the plane with the largest reference.

    Args:
        image: (S, S) in [-1, 1].
        twin: (S, S) in [-1, 1].
        map: (S, S) of that plane.
        mask: (S, S) bool.
        reference: (S, S) bool.
        images: counts of intensities in healthy tissue of the whole case, see `intensity.counts`.
        twins: the same of the twin.
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


def to_show(cases: list[Case]) -> list[str]:
    """Return the ids of up to `SHOWN` cases with a reference, evenly spread, of different
    patients."""
    marked = {case.patient_id: case for case in cases if case.mask and case.label != HEALTHY}
    return [case.case_id for case in evenly(list(marked.values()), SHOWN)]


def examples(runs: Mapping[str, Detector], cases: Sequence[OnCanvases]) -> list[list[Example]]:
    """Return, by case, what each run makes of it.

    A case whose reference vanishes on a canvas is left out.
    """
    by_case: list[list[Example]] = []
    with Progress("examples", len(cases)) as bar:
        for item in cases:
            fitted = [item.by_canvas[detector.canvas] for detector in runs.values()]
            if all(
                placed.mask is not None and (placed.mask & placed.foreground).any()
                for placed in fitted
            ):
                by_case.append([example(name, detector, item) for name, detector in runs.items()])
            bar.advance()
    return by_case


def example(name: str, detector: Detector, item: OnCanvases) -> Example:
    """Restore a whole case, since filters of the map may reach across planes, and pick its
    plane."""
    fitted = item.by_canvas[detector.canvas]
    assert fitted.mask is not None
    (result,) = detector.apply([Stack.of(detector.canvas, fitted)])
    evaluated, healthy = fitted.foreground | fitted.mask, fitted.foreground & ~fitted.mask
    dice, threshold = curve(
        result.maps[evaluated].numpy(), fitted.mask[evaluated].numpy()
    ).best_dice()
    plane = int((fitted.mask & fitted.foreground).flatten(1).sum(1).argmax())
    image, twin = fitted.planes.mean(1), result.healthy.mean(1)
    images, twins = counts(image[healthy]), counts(twin[healthy])
    distance = (fitted.planes - result.healthy).abs().mean(1)[healthy]
    row = {
        "case_id": item.reading.case.case_id,
        "plane": plane,
        "run": name,
        "threshold_oracle": threshold,
        "dice_oracle": dice,
        "kl": float(kl(images, twins)),
        "l1": float(distance.mean()) / 2 if len(distance) else float("nan"),
    }
    mask = torch.where(evaluated[plane], result.maps[plane] > threshold, False)
    return Example(
        image[plane], twin[plane], result.maps[plane], mask, fitted.mask[plane], images, twins, row
    )
