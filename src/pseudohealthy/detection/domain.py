"""Does a scan look like those a run was trained on? Four distances, one score, one limit that
healthy scans have set.

What is looked at, on the canvas of the run: the outline of the foreground, the picture inside it,
which way round it lies, and its grey values. Each distance is put on one scale by the training
planes, the largest of the four is the score of the case, and its rank among healthy cases that
trained nothing gives the p-value (split conformal prediction, Vovk et al. 2005). A case is out of
domain where p is at most `ALPHA`: of healthy scans like those of the run, one in fifty is called
so. Where fewer than 49 cases set the limit it is one in n + 1, and nothing is refused for it.
"""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pseudohealthy.counts import many

ALPHA = 0.02  # share of healthy cases like those of the run that are called out of domain
SIZE = 32  # side of the thumbnails that are compared
AROUND = 3  # their pixels on each side whose mean is taken off: structure is compared, not shading
PROTOTYPES = 8  # mean thumbnails of the training planes, at most
MEMBERS = 10  # planes that a prototype is the mean of, at least, where there are as many
LEVELS = np.linspace(0.02, 0.98, 25)  # quantiles of the grey values
NARROW = 0.02  # least spread of a quantile, in a range of 2
BETTER = 0.03  # in correlation: how much better a plane must fit as it lies than turned
FEWEST = 10  # healthy cases that a limit needs
RIGHT = "turned by 90 degrees clockwise"
OVER = "upside down"
LEFT = "turned by 90 degrees counter-clockwise"
# Left and right may be exchanged.
TURNS = [(quarters, flipped) for flipped in (False, True) for quarters in (1, 2, 3)]
# How what each of the TURNS sets upright lies: a flip mirrors the quarter.
LIES = (RIGHT, OVER, LEFT, LEFT, OVER, RIGHT)
PARTS = ("pictures", "outlines", "quantiles", "spreads", "middle", "scale")
CHECKS = ("outline", "appearance", "orientation", "grey values")


@dataclass(frozen=True)
class Verdict:
    """What the check says of a case.

    Args:
        p: share of healthy cases, the case among them, that look as unlike the training planes;
            above 0.
        cases: healthy cases that it was ranked among.
        limit: p at or below which a case is out of domain.
        checks: distance by check, in units of what separates the median training plane from the
            97.5th percentile.
        turned: how it lies, such as "upside down", where another way would fit; else empty.
    """

    p: float
    cases: int
    limit: float
    checks: dict[str, float]
    turned: str = ""

    @property
    def out(self) -> bool:
        return self.p <= self.limit

    @property
    def worst(self) -> str:
        return max(self.checks, key=lambda name: self.checks[name])

    def text(self) -> str:
        """The warning of an out-of-domain case."""
        return f"OUT_OF_DOMAIN: {self.found()}; do not trust its map and score"

    def found(self) -> str:
        """What is unlike the training planes, and how rare that is."""
        above = "than any" if self.p * (self.cases + 1) < 1.5 else "than nearly all"
        ranked = f"more so {above} of {many(self.cases, 'healthy case')}, p = {self.p:.2g}"
        return f"unlike what the run was trained on: {self.reason} ({ranked})"

    @property
    def reason(self) -> str:
        """How it lies, unless its grey values, which turning leaves alone, are what is farthest
        off."""
        return self.turned if self.turned and self.worst != "grey values" else f"its {self.worst}"


@dataclass(frozen=True)
class Domain:
    """What healthy planes of a run look like.

    Args:
        pictures: (K, C, S, S) mean thumbnails of the training planes.
        outlines: (K, S, S) mean foregrounds, 0..1.
        quantiles: (C, Q) mean quantiles of the grey values, in [-1, 1].
        spreads: (C, Q) their standard deviations.
        middle, scale: median distance of the training planes by check, and from there to the 97.5th
            percentile.
        scores: of the healthy cases that set the limit, ascending.
    """

    pictures: Tensor
    outlines: Tensor
    quantiles: Tensor
    spreads: Tensor
    middle: Tensor
    scale: Tensor
    scores: tuple[float, ...] = ()

    @classmethod
    def learned(cls, batches: Iterable[tuple[Tensor, Tensor]]) -> Domain | None:
        """From batches of healthy training planes (N, C, S, S) in [-1, 1] with their foreground (N,
        S, S); None where no plane has any foreground."""
        parts = [looked_at(*batch) for batch in batches]
        pictures, outlines, grey = (torch.cat(some) for some in zip(*parts, strict=True))
        if not len(pictures):
            return None
        flat = torch.cat([pictures.flatten(1), outlines.flatten(1)], 1)
        count = max(1, min(PROTOTYPES, len(flat) // (2 * MEMBERS)))
        member = grouped(flat, count)
        kept: list[int | None] = [k for k in range(count) if (member == k).sum() >= MEMBERS] or [
            None
        ]

        def means(values: torch.Tensor) -> torch.Tensor:
            groups = (values if k is None else values[member == k] for k in kept)
            return torch.stack([group.mean(0) for group in groups])

        one = torch.ones(len(CHECKS))
        seen = cls(
            means(pictures),
            means(outlines),
            grey.mean(0),
            grey.std(0, correction=0).clamp(min=NARROW),
            0 * one,
            one,
        )
        apart, _ = seen.compared(pictures, outlines, grey)
        middle = apart.median(1).values
        return replace(
            seen, middle=middle, scale=(apart.quantile(0.975, dim=1) - middle).clamp(min=1e-3)
        )

    def calibrated(self, cases: Iterable[tuple[Tensor, Tensor]]) -> Domain:
        """With the limit that healthy cases set that trained nothing: (planes, foreground) of each;
        of none, without."""
        found = [self.distances(*case)[0] for case in cases if case[1].any()]
        return replace(
            self,
            scores=tuple(sorted(((one - self.middle) / self.scale).max().item() for one in found)),
        )

    def judge(self, planes: Tensor, foreground: Tensor) -> Verdict | None:
        """The verdict on a case's planes (D, C, S, S); None where it has no foreground, or too few
        cases set the limit."""
        if not self.limited or not foreground.any():
            return None
        found, turned = self.distances(planes, foreground)
        checks = ((found - self.middle) / self.scale).tolist()
        above = sum(score >= max(checks) for score in self.scores)
        count = len(self.scores)
        limit = max(math.floor(ALPHA * (count + 1)), 1) / (count + 1)
        return Verdict(
            (above + 1) / (count + 1), count, limit, dict(zip(CHECKS, checks, strict=True)), turned
        )

    @property
    def strict(self) -> bool:
        """Are there enough healthy cases for the limit to be `ALPHA`, so that a scan may be
        refused?"""
        return ALPHA * (len(self.scores) + 1) >= 1

    @property
    def one_way(self) -> bool:
        """Do nearly all training planes fit best as they lie? Digits, say, do not: their turns are
        not worth a word."""
        return bool(2 * self.clear > BETTER)

    @property
    def clear(self) -> float:
        """How much better, in correlation, a plane must fit turned than as it lies to be called so:
        a head that is turned by 20 degrees fits upside down a little better."""
        return -(self.middle[2] + self.scale[2]).item() / 2

    @property
    def limited(self) -> bool:
        """Have enough healthy cases set a limit?"""
        return len(self.scores) >= FEWEST

    def distances(self, planes: Tensor, foreground: Tensor) -> tuple[Tensor, str]:
        """One distance a check, the mean over planes with foreground; and how the case lies, where
        another way would fit."""
        apart, turns = self.compared(*looked_at(planes, foreground))
        found, best = apart.mean(1), turns.mean(1)
        # At least half of what nearly all training planes lose when they are turned.
        better = best.max() + found[1] - 1
        fits = (
            self.one_way
            and better > self.clear
            and 1 - best.max() < self.middle[1] + 2 * self.scale[1]
        )
        return found, LIES[int(best.argmax())] if fits else ""

    def compared(self, pictures: Tensor, outlines: Tensor, grey: Tensor) -> tuple[Tensor, Tensor]:
        """Of each plane: distances by check (4, N), and how well it would fit if it were turned (6,
        N)."""
        both = outlines.flatten(1).sum(1)[:, None] + self.outlines.flatten(1).sum(1)
        overlap = 2 * torch.minimum(outlines[:, None], self.outlines).flatten(2).sum(2) / both
        upright = self.likeness(pictures)
        turns = torch.stack([self.likeness(turn(pictures, *how)) for how in TURNS])
        odd = ((grey - self.quantiles).abs() / self.spreads).flatten(1).mean(1)
        return torch.stack(
            [1 - overlap.max(1).values, 1 - upright, turns.max(0).values - upright, odd]
        ), turns

    def likeness(self, pictures: Tensor) -> Tensor:
        """Correlation of each picture (N, C, S, S) with the prototype that it is most like."""
        own = functional.normalize(pictures.flatten(1), dim=1)
        return (own @ functional.normalize(self.pictures.flatten(1), dim=1).T).max(1).values

    def to_json(self) -> dict[str, Any]:
        return {
            "alpha": ALPHA,
            "checks": list(CHECKS),
            **{name: packed(getattr(self, name)) for name in PARTS},
            "scores": [round(score, 4) for score in self.scores],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Domain:
        pictures, outlines, grey, spreads, middle, scale = (
            unpacked(values[name]) for name in PARTS
        )
        return cls(pictures, outlines, grey, spreads, middle, scale, tuple(values["scores"]))


def grouped(pictures: Tensor, count: int) -> Tensor:
    """The group of each picture (N, P), of `count` by k-means; where all are equal, or nearly, some
    groups stay empty."""
    from scipy.cluster.vq import kmeans2

    with warnings.catch_warnings():
        # Of empty groups, which are left out, and of no spread to choose starts by.
        warnings.simplefilter("ignore")
        return torch.from_numpy(
            kmeans2(pictures.double().numpy(), count, iter=20, minit="++", seed=0)[1]
        )


def looked_at(planes: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thumbnails, outlines and grey values of the planes that have any foreground."""
    busy = foreground.flatten(1).any(1)
    planes, foreground = planes[busy].float(), foreground[busy]
    return *thumbnails(planes, foreground), quantiles(planes, foreground)


def thumbnails(planes: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (N, C, s, s), standardised inside the foreground, less their own local mean, and
    outlines (N, s, s) in 0..1."""
    inside = foreground.float()
    count = inside.flatten(1).sum(1).clamp(min=1)[:, None, None, None]
    mean = (planes * inside[:, None]).sum((2, 3), keepdim=True) / count
    apart = (planes - mean) * inside[:, None]
    spread = (apart.square().sum((2, 3), keepdim=True) / count).sqrt().clamp(min=1e-6)
    pool = functional.adaptive_avg_pool2d
    small = pool(apart / spread, SIZE)
    around = functional.avg_pool2d(
        functional.pad(small, (AROUND,) * 4, mode="reflect"), 2 * AROUND + 1, 1
    )
    return small - around, pool(inside[:, None], SIZE)[:, 0]


def quantiles(planes: Tensor, foreground: Tensor) -> Tensor:
    """(N, C, Q) quantiles of the grey values inside the foreground."""
    levels = torch.tensor(LEVELS, dtype=planes.dtype)
    found = [
        plane[:, inside].quantile(levels, dim=1).T
        for plane, inside in zip(planes, foreground, strict=True)
    ]
    return torch.stack(found) if found else planes.new_zeros(0, planes.shape[1], len(levels))


def turn(pictures: Tensor, quarters: int, flipped: bool) -> Tensor:
    """Quarter turns of (N, C, S, S), after a left-right flip or not."""
    return torch.rot90(pictures.flip(3) if flipped else pictures, quarters, (2, 3))


def packed(values: Tensor) -> dict[str, Any]:
    """An array for JSON: its shape, and float16 as base64."""
    data = values.numpy().astype("<f2").tobytes()
    return {"shape": list(values.shape), "float16": base64.b64encode(data).decode()}


def unpacked(stored: dict[str, Any]) -> Tensor:
    data = np.frombuffer(base64.b64decode(stored["float16"]), "<f2")
    return torch.from_numpy(data.astype(np.float32).reshape(stored["shape"]))
