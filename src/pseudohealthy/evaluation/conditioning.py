"""Twins of one image conditioned on others: what the vector of a conditioned run does.

Behrendt et al., cDDPM (2025), figure 3: images noised to 50 % and to 100 % of the levels, and
restored given the vector of the same image at five contrasts, and of another patient's. A run
without a vector is given 100 % noise of those images themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.evaluation.intensity import CONTRASTS, KINDS, Gathered, Planes, with_contrast
from pseudohealthy.metrics import bootstrap
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.progress import Progress
from pseudohealthy.restorers.apply import keys
from pseudohealthy.restorers.base import averaged
from pseudohealthy.restorers.conditioned import Conditioned

NOISE = (0.5, 1.0)  # share of the levels
PATIENTS = 8
# Network calls an image; a run that walks every level from 100 % noise is left out.
MOST_CALLS = 250


@dataclass
class Swapped:
    """Twins of one run at one noise level: pictures (S, S) in [-1, 1] of the first patient's plane,
    one a condition.

    Args:
        run: its name.
        noise: share of the levels, 0..1.
        noised: what the run is given; None for a run without a vector.
        conditions: the conditioning images; of a run without a vector, those that were noised.
        names: "contrast 0.3", ..., "another patient".
        twins: what it makes of each.
        rows: figures of each condition over all patients.
        row: `follows`, how far the twin's brightness follows the condition's.
    """

    run: str
    noise: float
    noised: Tensor | None
    conditions: list[Tensor]
    names: list[str]
    twins: list[Tensor]
    rows: list[dict[str, Any]]
    row: dict[str, Any]


def conditioning(runs: Mapping[str, Detector], collected: Gathered) -> list[Swapped]:
    """Swap the condition of every conditioned run at each of `NOISE`, then of the others at 100 %.

    Empty where no run is conditioned.
    """
    conditioned = {name: d for name, d in runs.items() if isinstance(d.restorer, Conditioned)}
    kind = next((kind for kind in KINDS if kind in collected.planes), None)
    if not conditioned or kind is None:
        return []
    pairs = [(name, share) for name in conditioned for share in NOISE] + [
        (name, 1.0) for name in runs if name not in conditioned
    ]
    swapped = []
    with Progress("conditioning", len(pairs)) as bar:
        for name, share in pairs:
            swapped.append(swap(name, runs[name], collected.planes[kind], share))
            bar.advance()
    return [result for result in swapped if result is not None]


def swap(
    name: str, detector: Detector, planes: Mapping[Canvas, Planes], share: float
) -> Swapped | None:
    """Swap the condition of one run at one share of its levels; None where it has none to noise
    to."""
    images, inside, draw = one_each(planes[detector.canvas], detector)
    names, conditions = conditions_of(images)
    if isinstance(detector.restorer, Conditioned):
        noised, twins = told(detector, images, conditions, share, draw)
    else:
        from_top = at_deepest(detector)
        if from_top is None:
            return None
        noised, twins = None, [restored(from_top, condition, draw) for condition in conditions]
    rows = []
    for condition_name, condition, twin in zip(names, conditions, twins, strict=True):
        rows.append(
            {
                "run": name,
                "noise": share,
                "condition": condition_name,
                "n_planes": len(images),
                "brightness_input": float(np.mean(brightness(images, inside))),
                "brightness_condition": float(np.mean(brightness(condition, inside))),
                "brightness_twin": float(np.mean(brightness(twin, inside))),
            }
        )
    contrasts = [i for i, text in enumerate(names) if text.startswith("contrast")]
    # (contrasts, patients).
    levels = np.stack([brightness(conditions[i], inside) for i in contrasts])
    answers = np.stack([brightness(twins[i], inside) for i in contrasts])
    ends = bootstrap.interval(
        lambda patients: slope(levels[:, patients], answers[:, patients]), range(len(images)), n=500
    )
    low, high = ends or (None, None)
    row = {
        "run": name,
        "noise": share,
        "follows": slope(levels, answers),
        "follows_low": low,
        "follows_high": high,
        "n_patients": len(images),
    }
    noised_plane = None if noised is None else noised[0].mean(0)
    return Swapped(
        name,
        share,
        noised_plane,
        [c[0].mean(0) for c in conditions],
        names,
        [t[0].mean(0) for t in twins],
        rows,
        row,
    )


def one_each(planes: Planes, detector: Detector) -> tuple[Tensor, Tensor, Draw]:
    """Return each patient's plane nearest the middle, of at most `PATIENTS`.

    Returns:
        Images (N, C, S, S), foreground (N, S, S) and their noise.
    """
    nearest: dict[str, int] = {}
    for row, patient in enumerate(planes.patients):
        if patient not in nearest or planes.off_middle[row] < planes.off_middle[nearest[patient]]:
            nearest[patient] = row
    rows = list(nearest.values())[:PATIENTS]
    draw = Draw(detector.run.seed, keys([planes.places[row] for row in rows]))
    return (
        torch.stack([planes.images[r] for r in rows]),
        torch.stack([planes.foreground[r] for r in rows]),
        draw,
    )


def conditions_of(images: Tensor) -> tuple[list[str], list[Tensor]]:
    """Return the images at every contrast and, of several, each patient's replaced by the next
    one's."""
    names = [f"contrast {c:g}" for c in CONTRASTS]
    conditions = [with_contrast(images, c) for c in CONTRASTS]
    return (
        (names, conditions)
        if len(images) < 2
        else ([*names, "another patient"], [*conditions, images.roll(-1, 0)])
    )


@torch.no_grad()
def told(
    detector: Detector, images: Tensor, conditions: list[Tensor], share: float, draw: Draw
) -> tuple[Tensor, list[Tensor]]:
    """Return noised images and, for each condition, the twins of the same noise."""
    model = detector.restorer
    assert isinstance(model, Conditioned)
    denoiser, device = model.model.denoiser, detector.device
    level = max(1, round(share * denoiser.schedule.steps))
    images = images.to(device)
    noised = denoiser.noised(
        images, model.fields(images, level, draw)[:: model.walk.draws], level
    ).cpu()
    twins = []
    with torch.autocast(device.type, torch.bfloat16, enabled=detector.precision == torch.bfloat16):
        for condition in conditions:
            context = model.model.context(condition.to(device))
            estimates = model.estimates(images, context, level, draw)
            twins.append(averaged([estimates], model.walk.clip).healthy.float().cpu())
    return noised, twins


def at_deepest(detector: Detector) -> Detector | None:
    """Return the run made to start from its highest level of noise.

    None where its method has no such setting, or would take more than `MOST_CALLS`.
    """
    diffusion = getattr(detector.restorer, "diffusion", None)
    try:
        settings = [
            *detector.settings,
            f"restorer.walk.start_levels=[{diffusion.highest if diffusion else 0}]",
        ]
        from_top = Detector(
            detector.run,
            device=str(detector.device),
            batch=detector.batch,
            threshold=0.0,
            settings=settings,
        )
    except Fault:
        return None
    return from_top if from_top.restorer.network_calls() <= MOST_CALLS else None


@torch.no_grad()
def restored(detector: Detector, images: Tensor, draw: Draw) -> Tensor:
    """Return twins (N, C, S, S) of the whole plane, background included."""
    with torch.autocast(
        detector.device.type, torch.bfloat16, enabled=detector.precision == torch.bfloat16
    ):
        return detector.restorer.restore(images.to(detector.device), draw).healthy.float().cpu()


def brightness(images: Tensor, inside: Tensor) -> np.ndarray:
    """Return the mean intensity inside the foreground of each image, in shares of the range.

    Args:
        images: (N, C, S, S) in [-1, 1].
        inside: (N, S, S) bool.
    """
    total = ((images.mean(1) + 1) / 2 * inside).flatten(1).sum(1)
    return (total / inside.flatten(1).sum(1).clamp(min=1)).numpy()


def slope(levels: np.ndarray, answers: np.ndarray) -> float:
    """Return the slope of the twins' brightness on that of the conditions.

    Args:
        levels: brightness of the conditions, (contrasts, patients); each patient about its own
            mean.
        answers: brightness of the twins, likewise.

    Returns:
        0 where the twin does not answer to the condition, 1 where it is as bright as the condition.
    """
    x, y = (values - values.mean(0) for values in (levels, answers))
    return float((x * y).sum() / (x * x).sum())
