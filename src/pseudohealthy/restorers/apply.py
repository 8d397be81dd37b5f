"""From the planes of a case to its healthy twins, anomaly maps and score, for every result.

`detect`, `evaluate`, the end of a training, its validations and `verify` all call `apply`, so that
a stored score and one that is compared with it are of the same planes, under the same noise. Its
two parts, `restorations` and `read`, are called by themselves where one restoration is read in many
ways.
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

COPIES = 1024  # noised planes, at most, of one network call
# What keys noise beside the run's seed and the number of the draw; runs and results record it.
NOISE_KEY = "plane"
Own = Tensor | None  # a method's own score of each plane


@dataclass(frozen=True)
class Stack:
    """The planes of one case.

    Args:
        planes: (D, C, S, S) float32 in [-1, 1].
        foreground: (D, S, S) bool.
        places: The position of each plane in the whole case on its canvas, from 0; it keys the
            noise.
        counted: (D,) bool, the planes that the score of the case is over.
    """

    planes: Tensor
    foreground: Tensor
    places: Sequence[int]
    counted: Tensor

    @classmethod
    def of(cls, canvas: Canvas, fitted: Fitted) -> Stack:
        """A whole case, as `detect` takes it."""
        return cls(
            fitted.planes,
            fitted.foreground,
            range(len(fitted.planes)),
            torch.from_numpy(canvas.counted(fitted)),
        )

    @classmethod
    def whole(cls, planes: Tensor, foreground: Tensor, places: Sequence[int]) -> Stack:
        """Planes that all count, such as those of a cache."""
        return cls(planes, foreground, places, torch.ones(len(planes), dtype=torch.bool))


@dataclass
class Applied:
    """The result of a method for one case.

    Args:
        healthy: Healthy twins (D, C, S, S); outside the foreground the planes themselves.
        maps: Anomaly maps (D, S, S), 0 outside the foreground.
        judged: (D,) bool, planes that have any pixel to judge; the others have no rank.
        plane_scores: (D,) float64; 0 where a plane is not judged.
        score: Of the case, over its counted planes.
        score_sd: Standard error of the score, from the method's own draws (`jackknife`); None where
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
    """How cases are restored.

    Args:
        seed: The run's.
        device: Where the restorer is.
        precision: float32, or bfloat16 by autocast.
        batch: Planes restored at once, which changes speed and memory only.
        spread: Also compute `score_sd`.
    """

    seed: int
    device: torch.device
    precision: torch.dtype = torch.float32
    batch: int = 32
    spread: bool = False


def keys(places: Sequence[int]) -> list[tuple[str, int]]:
    """Noise keys of planes: their positions in their case, and nothing computed from an image."""
    return [(NOISE_KEY, int(place)) for place in places]


@dataclass(frozen=True)
class Part:
    """Planes restored together.

    Args:
        rows: (B,) their numbers among the planes of all cases, one case after the other.
        images: (B, C, S, S).
        foreground: (B, S, S) bool.
        restoration: Their healthy twins.
    """

    rows: Tensor
    images: Tensor
    foreground: Tensor
    restoration: Restoration

    def kept(self) -> Part:
        """The part without the estimates of draws and levels, which take most memory.

        `score_sd` cannot be read from it.
        """
        return replace(self, restoration=replace(self.restoration, trail=[], without=()))


def apply(restorer: Restorer, amap: AnomalyMap, cases: Sequence[Stack], how: How) -> list[Applied]:
    """Restore and judge cases.

    Raises:
        Fault: NONFINITE_MAP (exit 5).
    """
    return read(restorer, amap, cases, restorations(restorer, cases, how), how.spread)


def restorations(restorer: Restorer, cases: Sequence[Stack], how: How) -> Iterator[Part]:
    """The first part of `apply`: restore planes to their healthy twins.

    Planes of several cases share a batch, which does not change results. One part comes at a time,
    so that a long volume needs the memory of a batch; a list of those `kept` is for several
    readings.
    """
    planes, foreground = _together(cases)
    places = [place for case in cases for place in case.places]
    occupied = foreground.flatten(1).any(1).nonzero()[:, 0]
    # Split gives one empty part of no rows.
    for rows in occupied.split(at_once(restorer, how.batch)) if len(occupied) else ():
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
    """The second part of `apply`: maps and scores of healthy twins, under any map settings.

    Args:
        restorer: The method, for its statistics of healthy residuals; it does not restore here.
        parts: Their `restorations`.
        spread: Also compute `score_sd`.

    Raises:
        Fault: NONFINITE_MAP (exit 5).
    """
    healthy, foreground = _together(cases)
    readings: list[tuple[Tensor, Own]] = []  # as restored, then with each group of draws left out
    for part in parts:
        images, inside, restoration = part.images, part.foreground, part.restoration
        variants = [restoration, *(without() for without in restoration.without if spread)]
        results = [mapped(restorer, amap, variant, images, inside) for variant in variants]
        # Outside the foreground nothing is judged, so nothing is changed.
        healthy[part.rows] = (
            torch.where(inside[:, None], restoration.healthy.float(), images).cpu().contiguous()
        )
        readings = readings or [
            (
                torch.zeros(foreground.shape),
                None if own_scores is None else torch.zeros(len(healthy)),
            )
            for _, own_scores in results
        ]
        for (maps, scores), (part_maps, own_scores) in zip(readings, results, strict=True):
            maps[part.rows] = part_maps.cpu()
            if own_scores is not None and scores is not None:
                scores[part.rows] = own_scores.float().cpu()
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
                    None if own_scores is None else own_scores[end - len(case.planes) : end],
                )
                for maps, own_scores in readings
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
    """Planes restored together: fewer for a method with many draws, each of which takes memory."""
    walk = getattr(restorer, "walk", None)
    return max(1, min(batch, COPIES // (walk.draws if walk else 1)))


def scored(
    amap: AnomalyMap, case: Stack, healthy: Tensor, readings: Sequence[tuple[Tensor, Own]]
) -> Applied:
    """The scores of one case, of the first reading, and their standard error.

    Args:
        healthy: Their healthy twins (D, C, S, S).
        readings: Maps (D, S, S) and the method's own scores (D,) or None; first of all draws, then
            without one group each.
    """
    inside = amap.inside(case.foreground).bool()
    final_maps = [
        amap.along(maps, case.foreground, case.places, case.counted) for maps, _ in readings
    ]
    scores = [
        score_of(amap, case, inside, maps, own_scores)
        for maps, (_, own_scores) in zip(final_maps, readings, strict=True)
    ]
    own_scores = readings[0][1]
    plane_scores = (
        [amap.score_of(m, f) for m, f in zip(final_maps[0], inside, strict=True)]
        if own_scores is None
        else own_scores.tolist()
    )
    judged = inside.flatten(1).any(1).numpy()
    return Applied(
        healthy, final_maps[0], judged, np.array(plane_scores), scores[0], jackknife(scores[1:])
    )


def score_of(amap: AnomalyMap, case: Stack, inside: Tensor, maps: Tensor, own_scores: Own) -> float:
    """One number for a case, over its counted planes."""
    if own_scores is not None:
        return float(own_scores[case.counted].mean()) if case.counted.any() else 0.0
    return amap.score_of(maps[case.counted], inside[case.counted])


def jackknife(scores: Sequence[float]) -> float | None:
    """Standard error of a score, its spread when all noise is drawn anew (Quenouille, Tukey).

    Args:
        scores: Without one group of draws each; None is returned for fewer than 2.
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
    own_map = restoration.map.float()
    if restorer.unfiltered:  # a control is as smooth as the method it stands beside
        own_map = smooth(own_map[:, None], amap.smooth)[:, 0]
    return amap.finish(own_map, images, foreground), restoration.score
