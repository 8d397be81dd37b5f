"""From the planes of a case to its twins, maps and score: the one road that every result takes.

`detect`, `evaluate`, the end of a training, its validations and `verify` all call `apply`, so that a score that is stored
and one that is compared with it are of the same planes, under the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import smooth
from pseudohealthy.preprocessing.canvas import Canvas, Fitted
from pseudohealthy.restorers.base import Restoration, Restorer

COPIES = 1024  # noised planes of one network call
NOISE_KEY = "plane"  # what keys noise beside the run's seed and the number of the draw; runs and results record it
Own = Tensor | None  # a method's own score of each plane


@dataclass(frozen=True)
class Stack:
    """The planes of one case.

    Args:
        planes: (D, C, S, S) float32 in [-1, 1].
        foreground: (D, S, S) bool.
        places: the position of each plane in the whole case on its canvas, from 0; it keys the noise.
        counted: (D,) bool, the planes that the score of the case is over.
    """

    planes: Tensor
    foreground: Tensor
    places: Sequence[int]
    counted: Tensor

    @classmethod
    def of(cls, canvas: Canvas, fitted: Fitted) -> Stack:
        """A whole case, as `detect` sees it."""
        return cls(
            fitted.planes, fitted.foreground, range(len(fitted.planes)), torch.from_numpy(canvas.counted(fitted))
        )

    @classmethod
    def whole(cls, planes: Tensor, foreground: Tensor, places: Sequence[int]) -> Stack:
        """Planes that all count, such as those a cache has kept."""
        return cls(planes, foreground, places, torch.ones(len(planes), dtype=torch.bool))


@dataclass
class Applied:
    """What a method makes of one case.

    Args:
        healthy: twins (D, C, S, S); outside the foreground the planes themselves.
        maps: (D, S, S), 0 outside the foreground.
        judged: (D,) bool, planes that have anything to judge; the others say nothing, and rank nowhere.
        plane_scores: (D,) float64; 0 where a plane is not judged.
        score: of the case, over its counted planes.
        score_sd: standard error of the score, from the method's own draws (`jackknife`); None where it has one draw,
            or where it was not asked for.
    """

    healthy: Tensor
    maps: Tensor
    judged: np.ndarray
    plane_scores: np.ndarray
    score: float
    score_sd: float | None = None


@dataclass(frozen=True, kw_only=True)
class How:
    """seed: the run's; batch: planes restored at once, which changes speed and memory only; spread: also `score_sd`."""

    seed: int
    device: torch.device
    precision: torch.dtype = torch.float32
    batch: int = 32
    spread: bool = False


def keys(places: Sequence[int]) -> list[tuple[str, int]]:
    """Noise keys of planes: their position in their case, and nothing that was computed from an image."""
    return [(NOISE_KEY, int(place)) for place in places]


def apply(restorer: Restorer, amap: AnomalyMap, cases: Sequence[Stack], how: How) -> list[Applied]:
    """Restore and judge cases; planes of several share a batch, which changes nothing.

    Raises Fault NONFINITE_MAP (exit 5).
    """
    planes = torch.cat([case.planes for case in cases])
    foreground = torch.cat([case.foreground for case in cases])
    places = [place for case in cases for place in case.places]
    healthy = planes.clone()
    readings: list[tuple[Tensor, Own]] = []  # as restored, then with each group of draws left out
    shown = foreground.flatten(1).any(1).nonzero()[:, 0]
    for rows in shown.split(at_once(restorer, how.batch)) if len(shown) else ():  # split gives one part of nothing
        images = planes[rows].to(how.device, memory_format=torch.channels_last)
        inside = foreground[rows].to(how.device)
        draw = Draw(how.seed, keys([places[i] for i in rows.tolist()]))
        twins, found = restore_planes(restorer, amap, images, inside, draw, how.precision, how.spread)
        # Outside the foreground nothing is judged, so nothing is changed: air stays air.
        healthy[rows] = torch.where(inside[:, None], twins, images).cpu().contiguous()
        readings = readings or [(torch.zeros(foreground.shape), None if own is None else torch.zeros(len(planes)))
                                for _, own in found]  # fmt: skip
        for (maps, scores), (part, own) in zip(readings, found, strict=True):
            maps[rows] = part.cpu()
            if own is not None and scores is not None:
                scores[rows] = own.float().cpu()
    readings = readings or [(torch.zeros(foreground.shape), None)]
    if not (torch.isfinite(readings[0][0]).all() and torch.isfinite(healthy).all()):
        raise Fault(
            "NONFINITE_MAP", "the restoration is not finite", "use another run, or --precision fp32", exit=BAD_MODEL
        )
    ends = np.cumsum([len(case.planes) for case in cases]).tolist()
    return [
        read(amap, case, healthy[end - len(case.planes) : end], [
            (maps[end - len(case.planes) : end], None if own is None else own[end - len(case.planes) : end])
            for maps, own in readings
        ])
        for case, end in zip(cases, ends, strict=True)
    ]  # fmt: skip


def at_once(restorer: Restorer, batch: int) -> int:
    """Planes restored together: fewer of a method that draws many noises for each, which takes the memory of as many."""
    return max(1, min(batch, COPIES // getattr(restorer, "draws", 1)))


def read(amap: AnomalyMap, case: Stack, healthy: Tensor, readings: Sequence[tuple[Tensor, Own]]) -> Applied:
    """The scores of one case from its maps (D, S, S), or the method's own (D,); of the first reading, and their spread."""
    inside = amap.inside(case.foreground).bool()
    along = [amap.along(maps, case.foreground, case.places, case.counted) for maps, _ in readings]
    scores = [score_of(amap, case, inside, maps, own) for maps, (_, own) in zip(along, readings, strict=True)]
    own = readings[0][1]
    each = [amap.score_of(m, f) for m, f in zip(along[0], inside, strict=True)] if own is None else own.tolist()
    judged = inside.flatten(1).any(1).numpy()
    return Applied(healthy, along[0], judged, np.array(each), scores[0], jackknife(scores[1:]))


def score_of(amap: AnomalyMap, case: Stack, inside: Tensor, maps: Tensor, own: Own) -> float:
    """One number for a case, over its counted planes."""
    if own is not None:
        return float(own[case.counted].mean()) if case.counted.any() else 0.0
    return amap.score_of(maps[case.counted], inside[case.counted])


def jackknife(scores: Sequence[float]) -> float | None:
    """Standard error of a score from the scores without one group of draws each (Quenouille, Tukey); None of fewer than 2.

    What it estimates is the spread of the score when all noise is drawn anew.
    """
    count = len(scores)
    return float(np.std(scores) * (count - 1) ** 0.5) if count > 1 else None


@torch.no_grad()
def restore_planes(
    restorer: Restorer,
    amap: AnomalyMap,
    images: Tensor,
    foreground: Tensor,
    draw: Draw,
    precision: torch.dtype,
    spread: bool = False,
) -> tuple[Tensor, list[tuple[Tensor, Own]]]:
    """Twins (B, C, S, S) of a batch of planes, and a list that begins with (maps (B, S, S), own scores (B,) or None).

    spread: more of these follow, each with one group of the method's draws left out.
    """
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        restoration = restorer.restore(images, draw)
    several = [restoration, *(other() for other in restoration.without if spread)]
    return restoration.healthy.float(), [mapped(restorer, amap, one, images, foreground) for one in several]


def mapped(
    restorer: Restorer, amap: AnomalyMap, restoration: Restoration, images: Tensor, foreground: Tensor
) -> tuple[Tensor, Own]:
    """The finished map of a restoration, and the method's own scores."""
    if restoration.map is None:
        mean, spread = restorer.residual_mean, restorer.residual_spread
        return amap.residual_map(images, restoration.healthy.float(), foreground, mean, spread), restoration.score
    own = restoration.map.float()
    if restorer.unfiltered:  # a control is as smooth as the method it stands beside
        own = smooth(own[:, None], amap.smooth)[:, 0]
    return amap.finish(own, images, foreground), restoration.score
