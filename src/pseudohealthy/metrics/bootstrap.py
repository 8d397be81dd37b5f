"""Intervals that resample patients, never planes or voxels.

The percentile bootstrap (Efron and Tibshirani 1993). Drawing n patients with replacement is the
same as giving each patient a whole-number weight. Every statistic here is therefore computed from
per-patient summaries and a matrix of weights (resamples, patients), without touching a voxel again:

- sums and means over cases, Dice at a threshold: ratios of per-patient sums; exact;
- AUROC, average precision, best Dice: per-patient histograms over one fixed set of bins. With at
  most `BINS` distinct scores (any image-level metric of up to 4,096 cases) each score is its own
  bin and the result is exact. Beyond that, half the bins are quantiles of the positives' scores and
  half of the negatives', and scores within a bin count as tied: the point value then agrees with
  the exact one to 1e-3. Intervals are shifted by that remaining difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from pseudohealthy.metrics.curves import Curve

RESAMPLES = 2000
LEVEL = 0.95
BINS = 4096
AREA_LIMIT = 0.3  # false positive rate up to which AUPRO is taken (Bergmann et al. 2019)
# Resamples at a time: 250 x 4,096 bins of float64 stay within the cache's reach and 50 MB.
CHUNK = 250


@lru_cache(maxsize=8)
def weights(n_patients: int, n: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return how often each patient is drawn in each resample, float32 (n, n_patients).

    Rows sum to n_patients. The same arguments give the same draws, so two methods measured on the
    same patients are paired.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((n, n_patients), dtype=np.float32)
    for row in counts:
        row += np.bincount(rng.integers(n_patients, size=n_patients), minlength=n_patients)
    counts.flags.writeable = False  # shared by all callers
    return counts


def percentile(values: np.ndarray) -> tuple[float, float] | None:
    """Return the central interval of the resampled values (n,).

    Resamples where the statistic is undefined (nan, as when only one class was drawn) are left out;
    None where that is more than half of them.
    """
    defined = values[np.isfinite(values)]
    if 2 * len(defined) < len(values) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval(
    statistic: Callable[[list[Any]], float],
    patients: Sequence[Any],
    *,
    n: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the interval of any ``statistic`` of a list with one entry per patient.

    It is called once per resample, so for small data, and returns nan where it is undefined. None
    for fewer than two patients: they say nothing about spread.
    """
    if len(patients) < 2:
        return None
    counts = weights(len(patients), n, seed).astype(int)
    values = [
        statistic([patients[i] for i in np.repeat(np.arange(len(patients)), row).tolist()])
        for row in counts
    ]
    return percentile(np.asarray(values, dtype=np.float64))


def ratio_of_sums(weight: np.ndarray, numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the sum of ``numerator`` over that of ``denominator`` in every resample, (resamples,).

    Both are (patients,); nan where the latter is 0.
    """
    total = weight @ np.asarray(denominator, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(
            total > 0, (weight @ np.asarray(numerator, dtype=np.float64)) / total, np.nan
        )


def paired_difference(
    first: np.ndarray, second: np.ndarray
) -> tuple[tuple[float, float] | None, float]:
    """Return the interval of first - second, and the share of resamples in which first is not
    higher.

    Both are (n,) and must come from the same `weights`, that is the same patients in the same
    order.
    """
    difference = first - second
    defined = difference[np.isfinite(difference)]
    return percentile(difference), float(np.mean(defined <= 0)) if len(defined) else float("nan")


def two_sided(first: np.ndarray, second: np.ndarray) -> float:
    """Return the p-value of no difference, from paired resamples (n,).

    It is twice the smaller share of them on one side of 0, counted with one more resample on each
    side (Davison and Hinkley 1997, 4.2), so that 2,000 of them never claim less than 0.001;
    resamples without a difference count on both sides, so that equal methods give 1. nan where
    undefined.
    """
    difference = first - second
    defined = difference[np.isfinite(difference)]
    if not len(defined):
        return float("nan")
    smaller = min(np.count_nonzero(defined <= 0), np.count_nonzero(defined >= 0))
    return float(min(1.0, 2 * (smaller + 1) / (len(defined) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for all of them being looked at (Holm 1979), in the order given.

    Any below 0.05 then errs in 5 % of families. nan stays nan and counts for nothing.
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(len(p), np.nan)
    defined = np.flatnonzero(np.isfinite(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * factors))
    return corrected.tolist()


class Histograms:
    """Per-patient counts of positives and negatives over bins shared by all, highest scores
    first."""

    def __init__(self, curve: Curve, n_patients: int):
        """Take the bins from ``curve`` (of the pooled scores); then `add` each case."""
        self.edges = _edges(curve.sorted_scores, BINS)
        self.shape = (n_patients, 2 * len(self.edges))
        self._filled: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # patient, cell, count

    def add(
        self,
        patient: int,
        scores: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray | None = None,
    ) -> None:
        """Count the ``scores``, ``labels`` and ``weights``, (N,) each, of one case of a patient by
        number."""
        # 0 is the highest bin.
        place = len(self.edges) - np.searchsorted(self.edges, scores, side="right")
        place = place + len(self.edges) * np.asarray(labels, dtype=bool)
        counts = np.bincount(place, weights=weights, minlength=self.shape[1])
        cells = np.flatnonzero(counts)
        self._filled.append((np.full(len(cells), patient), cells, counts[cells].astype(np.float32)))

    def resampled(self, weight: np.ndarray, names: Collection[str] = ()) -> dict[str, np.ndarray]:
        """Return `RANKINGS` by name, or those called ``names``, of every resample, (resamples,)
        each.

        nan where undefined.
        """
        patient, cell, count = map(np.concatenate, zip(*self._filled, strict=True))
        table = sparse.csr_array(sparse.coo_array((count, (patient, cell)), shape=self.shape))
        # One score per patient fills one cell in thousands: there the sparse product is a hundred
        # times quicker.
        full = table.toarray() if table.nnz > np.prod(self.shape) / 50 else table
        parts = [
            _ranked(
                np.asarray(weight[i : i + CHUNK] @ full).reshape(-1, 2, len(self.edges)),
                names or RANKINGS,
            )
            for i in range(0, len(weight), CHUNK)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def point(self, names: Collection[str] = ()) -> dict[str, float]:
        """Return the same of the data as they are: the binned point estimate."""
        values = self.resampled(np.ones((1, self.shape[0]), dtype=np.float32), names)
        return {name: float(value[0]) for name, value in values.items()}


def _edges(sorted_scores: tuple[np.ndarray, np.ndarray], bins: int) -> np.ndarray:
    """Return ascending lower edges: bin i holds edges[i] <= score < edges[i + 1].

    The last one holds everything above.
    """
    if sum(np.count_nonzero(part[1:] != part[:-1]) + 1 for part in sorted_scores) <= bins:
        return np.union1d(*sorted_scores)
    quantiles = [
        part[np.linspace(0, len(part) - 1, bins // 2).astype(np.int64)]
        for part in sorted_scores
        if len(part)
    ]
    return np.unique(np.concatenate(quantiles))


class Counts(NamedTuple):
    """Weighted counts over bins from the highest score on, (resamples, bins) each; a bin is one
    tie.

    Args:
        negatives: in the bin.
        positives: in the bin.
        fp: negatives in it and all above.
        tp: positives in it and all above.
    """

    negatives: np.ndarray
    positives: np.ndarray
    fp: np.ndarray
    tp: np.ndarray


@dataclass(frozen=True)
class Ranking:
    """A number made of scores and labels alone, of a curve and of counts in every resample.

    Args:
        exact: of a curve.
        binned: (resamples,) of counts.
        without_negatives: whether it is defined without any.
    """

    exact: Callable[[Curve], float]
    binned: Callable[[Counts], np.ndarray]
    without_negatives: bool = False


def _ranked(counts: np.ndarray, names: Collection[str]) -> dict[str, np.ndarray]:
    """`RANKINGS` of weighted counts (resamples, class, bins); nan where undefined."""
    step = counts.astype(np.float64)
    sums = np.cumsum(step, axis=2)
    binned = Counts(step[:, 0], step[:, 1], sums[:, 0], sums[:, 1])
    negatives, positives = binned.fp[:, -1], binned.tp[:, -1]
    values: dict[str, np.ndarray] = {}
    for name in names:
        undefined = (positives == 0) | ((negatives == 0) & (not RANKINGS[name].without_negatives))
        with np.errstate(invalid="ignore", divide="ignore"):
            values[name] = np.where(undefined, np.nan, RANKINGS[name].binned(binned))
    return values


def _auroc(counts: Counts) -> np.ndarray:
    misplaced = (counts.positives * (counts.fp - counts.negatives / 2)).sum(1)
    return 1 - misplaced / (counts.tp[:, -1] * counts.fp[:, -1])


def _average_precision(counts: Counts) -> np.ndarray:
    above = counts.tp + counts.fp
    precision = np.divide(counts.tp, above, out=np.zeros_like(counts.tp), where=above > 0)
    return (counts.positives * precision).sum(1) / counts.tp[:, -1]


def _best_dice(counts: Counts) -> np.ndarray:
    return (2 * counts.tp / (counts.tp + counts.fp + counts.tp[:, -1:])).max(1)


def _fpr_at_95_tpr(counts: Counts) -> np.ndarray:
    # Less a rounding error of the product, as in `Curve.fpr_at_tpr`.
    index = np.argmax(counts.tp >= 0.95 * counts.tp[:, -1:] * (1 - 1e-9), axis=1)
    return np.take_along_axis(counts.fp, index[:, None], 1)[:, 0] / counts.fp[:, -1]


def _area_to_30(counts: Counts) -> np.ndarray:
    return _area_to(counts.fp / counts.fp[:, -1:], counts.tp / counts.tp[:, -1:], AREA_LIMIT)


def _area_to(fpr: np.ndarray, tpr: np.ndarray, limit: float) -> np.ndarray:
    """Return the area under the lines through (0, 0) and the points up to ``limit``, divided by it.

    ``fpr`` and ``tpr`` are (resamples, bins).
    """
    previous = [
        np.concatenate([np.zeros_like(part[:, :1]), part[:, :-1]], axis=1) for part in (fpr, tpr)
    ]
    width = fpr - previous[0]
    within = np.clip(limit - previous[0], 0, width)
    share = np.divide(within, width, out=np.zeros_like(width), where=width > 0)
    return (within * (previous[1] + (tpr - previous[1]) * share / 2)).sum(1) / limit


RANKINGS = {
    "auroc": Ranking(lambda curve: curve.auroc, _auroc),
    "average_precision": Ranking(
        lambda curve: curve.average_precision, _average_precision, without_negatives=True
    ),
    "best_dice": Ranking(lambda curve: curve.best_dice()[0], _best_dice, without_negatives=True),
    "fpr_at_95_tpr": Ranking(lambda curve: curve.fpr_at_tpr(0.95), _fpr_at_95_tpr),
    "area_to_30": Ranking(lambda curve: curve.area_to(AREA_LIMIT), _area_to_30),
}
