"""Intervals that resample patients, never slices or voxels (percentile bootstrap, Efron and Tibshirani 1993).

Drawing n patients with replacement is the same as giving each patient a whole-number weight. Every statistic here is
therefore computed from per-patient summaries and a matrix of weights (resamples, patients), without touching a voxel
again:

- sums and means over cases, Dice at a threshold: ratios of per-patient sums; exact;
- AUROC, average precision, best Dice: per-patient histograms over one fixed set of bins. With at most `BINS` distinct
  scores (any image-level metric of up to 4,096 cases) each score is its own bin and the result is exact. Beyond that,
  half the bins are quantiles of the positives' scores and half of the negatives', and scores within a bin count as
  tied: the point value then agrees with the exact one to 1e-3. Intervals are shifted by that remaining difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from pseudohealthy.evaluation.curves import Curve

RESAMPLES = 2000
LEVEL = 0.95
BINS = 4096
CHUNK = 250  # resamples at a time: 250 x 4,096 bins of float64 stay within the cache's reach and 50 MB


def weights(n_patients: int, n: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each patient is drawn in each resample: float32 (n, n_patients), rows sum to n_patients.

    The same arguments give the same draws, so two methods measured on the same patients are paired.
    """
    rng = np.random.default_rng(seed)
    drawn = np.zeros((n, n_patients), dtype=np.float32)
    for row in drawn:
        row += np.bincount(rng.integers(n_patients, size=n_patients), minlength=n_patients)
    return drawn


def percentile(drawn: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """The central interval of the resampled values (n,).

    Resamples where the statistic is undefined (nan, as when only one class was drawn) are left out; None where that
    is more than half of them.
    """
    defined = drawn[np.isfinite(drawn)]
    if 2 * len(defined) < len(drawn) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(
    statistic: Callable[[list[Any]], float],
    patients: Sequence[Any],
    *,
    n: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Interval of any ``statistic`` of a list with one entry per patient; one call per resample, so for small data.

    ``statistic`` returns nan where it is undefined. None for fewer than two patients: they say nothing about spread.
    """
    if len(patients) < 2:
        return None
    counts = weights(len(patients), n, seed).astype(int)
    drawn = [statistic([patients[i] for i in np.repeat(np.arange(len(patients)), row).tolist()]) for row in counts]
    return percentile(np.asarray(drawn, dtype=np.float64), level)


def ratio_of_sums(weight: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """(resamples,): sum of ``numerator`` over sum of ``denominator``, both (patients,); nan where the latter is 0."""
    over = weight @ np.asarray(denominator, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(over > 0, (weight @ np.asarray(numerator, dtype=np.float64)) / over, np.nan)


def paired_difference(
    first: np.ndarray, second: np.ndarray, level: float = LEVEL
) -> tuple[tuple[float, float] | None, float]:
    """(interval of first - second, share of resamples in which first is not higher), from the same resamples (n,).

    Both must come from the same `weights`, that is the same patients in the same order.
    """
    difference = first - second
    defined = difference[np.isfinite(difference)]
    return percentile(difference, level), float(np.mean(defined <= 0)) if len(defined) else float("nan")


class Histograms:
    """Per-patient counts of positives and negatives over bins shared by all patients, highest scores first."""

    def __init__(self, curve: Curve, n_patients: int, *, bins: int = BINS):
        """The bins come from ``curve`` (of the pooled scores); then `add` each case."""
        self.edges = _edges(curve.sorted_scores, bins)
        self.shape = (n_patients, 2 * len(self.edges))
        self._filled: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # patient, cell, count

    def add(self, patient: int, scores: np.ndarray, labels: np.ndarray) -> None:
        """Count the ``scores`` (N,) with ``labels`` (N,) of one case of patient number ``patient``."""
        place = len(self.edges) - np.searchsorted(self.edges, scores, side="right")  # 0 is the highest bin
        counts = np.bincount(place + len(self.edges) * np.asarray(labels, dtype=bool), minlength=self.shape[1])
        cells = np.flatnonzero(counts)
        self._filled.append((np.full(len(cells), patient), cells, counts[cells].astype(np.float32)))

    def resampled(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """auroc, average_precision and best_dice of every resample, (resamples,) each; nan where undefined."""
        patient, cell, count = map(np.concatenate, zip(*self._filled, strict=True))
        table = sparse.csr_array(sparse.coo_array((count, (patient, cell)), shape=self.shape))
        # One score per patient fills one cell in thousands: there the sparse product is a hundred times quicker.
        full = table.toarray() if table.nnz > np.prod(self.shape) / 50 else table
        parts = [
            _ranked(np.asarray(weight[i : i + CHUNK] @ full).reshape(-1, 2, len(self.edges)))
            for i in range(0, len(weight), CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def point(self) -> dict[str, float]:
        """The same of the data as they are: the binned point estimate."""
        found = self.resampled(np.ones((1, self.shape[0]), dtype=np.float32))
        return {name: float(value[0]) for name, value in found.items()}


def _edges(sorted_scores: tuple[np.ndarray, np.ndarray], bins: int) -> np.ndarray:
    """Ascending lower edges; bin i holds edges[i] <= score < edges[i + 1], the last one everything above."""
    if sum(np.count_nonzero(part[1:] != part[:-1]) + 1 for part in sorted_scores) <= bins:
        return np.union1d(*sorted_scores)
    chosen = [part[np.linspace(0, len(part) - 1, bins // 2).astype(np.int64)] for part in sorted_scores if len(part)]
    return np.unique(np.concatenate(chosen))


def _ranked(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Ranking metrics of weighted counts (resamples, class, bins), bins from the highest score; a bin is one tie."""
    step = counts.astype(np.float64)
    passed = np.cumsum(step, axis=2)
    fp, tp = passed[:, 0], passed[:, 1]
    positives, negatives = tp[:, -1], fp[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        auroc = 1 - (step[:, 1] * (fp - step[:, 0] / 2)).sum(1) / (positives * negatives)
        precision = np.divide(tp, tp + fp, out=np.zeros_like(tp), where=tp + fp > 0)
        average_precision = (step[:, 1] * precision).sum(1) / positives
        best_dice = (2 * tp / (tp + fp + positives[:, None])).max(1)
    undefined = positives == 0
    return {
        "auroc": np.where(undefined | (negatives == 0), np.nan, auroc),
        "average_precision": np.where(undefined, np.nan, average_precision),
        "best_dice": np.where(undefined, np.nan, best_dice),
    }
