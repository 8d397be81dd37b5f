"""From the planes of a case to its twins, maps and score: the one road that every result takes.

`detect`, `evaluate`, the end of a training, its validations and `verify` all call `apply`, so that
a score that is stored and one that is compared with it are of the same planes, under the same
noise. Its two steps, `restorations` and `read`, are called by themselves where what was restored
once is read in many ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import smooth
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted
from pseudohealthy.restorers.base import Restoration, Restorer

COPIES = 1024  # noised planes of one network call
# What keys noise beside the run's seed and the number of the draw; runs and results record it.
NOISE_KEY = "plane"
Own = Tensor | None  # a method's own score of each plane


@dataclass(frozen=True)
class Stack:
    """The planes of one case.

    Args:
        planes: (D, C, S, S) float32 in [-1, 1].
        foreground: (D, S, S) bool.
        places: the position of each plane in the whole case on its canvas, from 0; it keys the
            noise.
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
            fitted.planes,
            fitted.foreground,
            range(len(fitted.planes)),
            torch.from_numpy(canvas.counted(fitted)),
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
        judged: (D,) bool, planes that have anything to judge; the others say nothing, and rank
            nowhere.
        plane_scores: (D,) float64; 0 where a plane is not judged.
        score: of the case, over its counted planes.
        score_sd: standard error of the score, from the method's own draws (`jackknife`); None where
            it has one draw, or where it was not asked for.
    """

    healthy: Tensor
    maps: Tensor
    judged: np.ndarray
    plane_scores: np.ndarray
    score: float
    score_sd: float | None = None


@dataclass(frozen=True, kw_only=True)
class How:
    """seed: the run's; batch: planes restored at once, which changes speed and memory only; spread:
    also `score_sd`."""

    seed: int
    device: torch.device
    precision: torch.dtype = torch.float32
    batch: int = 32
    spread: bool = False


def keys(places: Sequence[int]) -> list[tuple[str, int]]:
    """Noise keys of planes: their position in their case, and nothing that was computed from an
    image."""
    return [(NOISE_KEY, int(place)) for place in places]


@dataclass(frozen=True)
class Part:
    """Planes restored together.

    Args:
        rows: (B,) which they are among the planes of all cases, one case after the other.
        images: (B, C, S, S), as they were restored.
        foreground: (B, S, S) bool.
        restoration: what the method made of them.
    """

    rows: Tensor
    images: Tensor
    foreground: Tensor
    restoration: Restoration

    def kept(self) -> Part:
        """What every reading needs, without what takes the memory of many draws and levels:
        `score_sd` cannot be read."""
        return replace(self, restoration=replace(self.restoration, trail=[], without=()))


def apply(restorer: Restorer, amap: AnomalyMap, cases: Sequence[Stack], how: How) -> list[Applied]:
    """Restore and judge cases. Raises Fault NONFINITE_MAP (exit 5)."""
    return read(restorer, amap, cases, restorations(restorer, cases, how), how.spread)


def restorations(restorer: Restorer, cases: Sequence[Stack], how: How) -> Iterator[Part]:
    """The first step: planes to their healthy twins. Planes of several cases share a batch, which
    changes nothing.

    One part at a time, so that a long volume needs the memory of a batch; a list of those `kept` is
    for several readings.
    """
    planes, foreground = _together(cases)
    places = [place for case in cases for place in case.places]
    shown = foreground.flatten(1).any(1).nonzero()[:, 0]
    # Split gives one part of nothing.
    for rows in shown.split(at_once(restorer, how.batch)) if len(shown) else ():
        images = planes[rows].to(how.device, memory_format=torch.channels_last)
        draw = Draw(how.seed, keys([places[i] for i in rows.tolist()]))
        restoration = restore_planes(restorer, images, draw, how.precision)
        yield Part(rows, images, foreground[rows].to(how.device), restoration)


@torch.no_grad()
def read(
    restorer: Restorer,
    amap: AnomalyMap,
    cases: Sequence[Stack],
    parts: Iterable[Part],
    spread: bool = False,
) -> list[Applied]:
    """The second step: twins to maps and scores, under any map settings.

    Args:
        restorer: whose restorations they are; asked for what it knows of healthy residuals, never
            to restore.
        amap: how the map is read.
        cases: those that were restored.
        parts: their `restorations`.
        spread: also `score_sd`.

    Raises Fault NONFINITE_MAP (exit 5).
    """
    healthy, foreground = _together(cases)
    readings: list[tuple[Tensor, Own]] = []  # as restored, then with each group of draws left out
    for part in parts:
        images, inside, one = part.images, part.foreground, part.restoration
        several = [one, *(other() for other in one.without if spread)]
        found = [mapped(restorer, amap, each, images, inside) for each in several]
        # Outside the foreground nothing is judged, so nothing is changed: air stays air.
        healthy[part.rows] = (
            torch.where(inside[:, None], one.healthy.float(), images).cpu().contiguous()
        )
        readings = readings or [
            (torch.zeros(foreground.shape), None if own is None else torch.zeros(len(healthy)))
            for _, own in found
        ]
        for (maps, scores), (mine, own) in zip(readings, found, strict=True):
            maps[part.rows] = mine.cpu()
            if own is not None and scores is not None:
                scores[part.rows] = own.float().cpu()
    readings = readings or [(torch.zeros(foreground.shape), None)]
    if not (torch.isfinite(readings[0][0]).all() and torch.isfinite(healthy).all()):
        raise Fault(
            "NONFINITE_MAP",
            "the restoration is not finite",
            "use another run, or --precision fp32",
            exit=BAD_MODEL,
        )
    ends = np.cumsum([len(case.planes) for case in cases]).tolist()
    return [
        scored(
            amap,
            case,
            healthy[end - len(case.planes) : end],
            [
                (
                    maps[end - len(case.planes) : end],
                    None if own is None else own[end - len(case.planes) : end],
                )
                for maps, own in readings
            ],
        )
        for case, end in zip(cases, ends, strict=True)
    ]


def _together(cases: Sequence[Stack]) -> tuple[Tensor, Tensor]:
    """Planes and foregrounds of all cases, copied."""
    return torch.cat([case.planes for case in cases]), torch.cat(
        [case.foreground for case in cases]
    )


def at_once(restorer: Restorer, batch: int) -> int:
    """Planes restored together: fewer of a method that draws many noises for each, which takes the
    memory of as many."""
    walk = getattr(restorer, "walk", None)
    return max(1, min(batch, COPIES // (walk.draws if walk else 1)))


def scored(
    amap: AnomalyMap, case: Stack, healthy: Tensor, readings: Sequence[tuple[Tensor, Own]]
) -> Applied:
    """The scores of one case from its maps (D, S, S), or the method's own (D,); of the first
    reading, and their spread."""
    inside = amap.inside(case.foreground).bool()
    along = [amap.along(maps, case.foreground, case.places, case.counted) for maps, _ in readings]
    scores = [
        score_of(amap, case, inside, maps, own)
        for maps, (_, own) in zip(along, readings, strict=True)
    ]
    own = readings[0][1]
    each = (
        [amap.score_of(m, f) for m, f in zip(along[0], inside, strict=True)]
        if own is None
        else own.tolist()
    )
    judged = inside.flatten(1).any(1).numpy()
    return Applied(healthy, along[0], judged, np.array(each), scores[0], jackknife(scores[1:]))


def score_of(amap: AnomalyMap, case: Stack, inside: Tensor, maps: Tensor, own: Own) -> float:
    """One number for a case, over its counted planes."""
    if own is not None:
        return float(own[case.counted].mean()) if case.counted.any() else 0.0
    return amap.score_of(maps[case.counted], inside[case.counted])


def jackknife(scores: Sequence[float]) -> float | None:
    """Standard error of a score from the scores without one group of draws each (Quenouille,
    Tukey); None of fewer than 2.

    What it estimates is the spread of the score when all noise is drawn anew.
    """
    count = len(scores)
    return float(np.std(scores) * (count - 1) ** 0.5) if count > 1 else None


@torch.no_grad()
def restore_planes(
    restorer: Restorer, images: Tensor, draw: Draw, precision: torch.dtype
) -> Restoration:
    """The restoration of a batch of planes (B, C, S, S)."""
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        return restorer.restore(images, draw)


def mapped(
    restorer: Restorer,
    amap: AnomalyMap,
    restoration: Restoration,
    images: Tensor,
    foreground: Tensor,
) -> tuple[Tensor, Own]:
    """The finished map of a restoration, and the method's own scores."""
    if restoration.map is None:
        mean, spread = restorer.residual_mean, restorer.residual_spread
        return (
            amap.residual_map(images, restoration.healthy.float(), foreground, mean, spread),
            restoration.score,
        )
    own = restoration.map.float()
    if restorer.unfiltered:  # a control is as smooth as the method it stands beside
        own = smooth(own[:, None], amap.smooth)[:, 0]
    return amap.finish(own, images, foreground), restoration.score
