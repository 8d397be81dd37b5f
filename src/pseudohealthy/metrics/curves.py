"""Ranking metrics, exact and from one sort: AUROC, average precision, FPR at a given TPR, best
Dice.

Every quantity here changes only where a positive is passed, so the curve keeps one point per
distinct score of the positives and finds the negatives there by bisection. At 1 % prevalence that
is 1 % of the memory of the full curve, and nothing is lost. Ties count as in scikit-learn: tied
scores pass together.

One rule holds in the whole package: a voxel or case is called anomalous where ``score >
threshold``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pseudohealthy.errors import BAD_MODEL, Fault

DRAWN = 2000  # points of a curve in a plot


@dataclass(frozen=True)
class Curve:
    """Counts at each distinct score of the positives, from the highest to the lowest.

    scores (K,): the distinct positive scores, descending; tp, fp (K,): weight of positives and
    negatives with a score at least that high; fp_above (K,): of negatives strictly higher (it
    differs from fp by the ties); positives,
    negatives: total weights. Weights are 1 unless given, so these are counts.
    """

    scores: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fp_above: np.ndarray
    positives: float
    negatives: float
    sorted_scores: tuple[np.ndarray, np.ndarray]  # ascending: negatives, positives
    sorted_weights: tuple[np.ndarray | None, np.ndarray | None]
    areas: tuple[float, float] | None = (
        None  # AUROC and average precision of the curve this one is a thinned copy of
    )

    @property
    def prevalence(self) -> float:
        return self.positives / (self.positives + self.negatives)

    @property
    def auroc(self) -> float:
        """Area under the ROC curve: the chance that a positive scores higher than a negative, ties
        counting half."""
        self._need_both("AUROC")
        if self.areas:
            return self.areas[0]
        passed = np.diff(self.tp, prepend=0.0)
        above = np.dot(passed, self.fp_above) + np.dot(passed, self.fp)
        return float(1 - above / 2 / self.positives / self.negatives)

    @property
    def average_precision(self) -> float:
        """Sum of precision x step in recall, without interpolation; chance level is the
        prevalence."""
        if not self.positives:
            raise Fault(
                "ONE_CLASS", "average precision needs positives, found none", "add anomalous cases"
            )
        if self.areas:
            return self.areas[1]
        return float(
            np.dot(np.diff(self.tp, prepend=0.0), self.tp / (self.tp + self.fp)) / self.positives
        )

    def fpr_at_tpr(self, tpr: float = 0.95) -> float:
        """The lowest false positive rate at which at least ``tpr`` of the positives are found."""
        self._need_both("FPR at a TPR")
        first = int(np.searchsorted(self.tp, tpr * self.positives * (1 - 1e-12)))
        return float(self.fp[min(first, len(self.fp) - 1)] / self.negatives)

    def area_to(self, fpr: float = 0.3) -> float:
        """Area under the ROC curve up to this false positive rate, divided by the rate: 1 for a
        perfect ranking.

        With regions as weights (`region_curve`) it is the AUPRO (Bergmann et al. 2019, limit 0.3).
        """
        self._need_both("the area")
        return _area(
            np.concatenate([[0.0], self.fp]) / self.negatives,
            np.append(self.fp_above, self.negatives) / self.negatives,
            np.concatenate([[0.0], self.tp]) / self.positives,
            fpr,
        )

    def thinned(self, most: int = 10_000) -> Curve:
        """For drawing: at most ``most`` points and no scores; the areas stay those of the full
        curve."""
        keep = _thin(len(self.tp), most)
        empty = self.sorted_scores[0][:0]
        return replace(
            self,
            scores=self.scores[keep],
            tp=self.tp[keep],
            fp=self.fp[keep],
            fp_above=self.fp_above[keep],
            sorted_scores=(empty, empty),
            sorted_weights=(None, None),
            areas=(self.auroc, self.average_precision),
        )

    def best_dice(self) -> tuple[float, float]:
        """(highest Dice over all thresholds, that threshold): an oracle where the labels are the
        test set's.

        ``score > threshold`` reproduces it exactly: the threshold is the next number below the
        lowest score passed.
        """
        if not self.positives:
            raise Fault(
                "ONE_CLASS",
                "the best Dice needs positives, found none",
                "add cases with a reference mask",
            )
        dice = 2 * self.tp / (self.tp + self.fp + self.positives)
        best = int(np.argmax(dice))
        lowest = self.scores[best]
        return float(dice[best]), float(np.nextafter(lowest, lowest.dtype.type(-np.inf)))

    def dice_at(self, threshold: float) -> float:
        """Dice of ``score > threshold`` with the labels, all items pooled; 1.0 where both are
        empty."""
        fp, tp = (
            _above(scores, weights, threshold)
            for scores, weights in zip(self.sorted_scores, self.sorted_weights, strict=True)
        )
        found = tp + fp + self.positives
        return float(2 * tp / found) if found else 1.0

    def roc_points(self) -> tuple[np.ndarray, np.ndarray]:
        """(false positive rate, true positive rate), both ascending from 0 to 1, for drawing."""
        self._need_both("ROC")
        keep = _thin(len(self.tp), DRAWN)
        # A tie is a slope: it starts at the TPR before it.
        before = np.concatenate([[0.0], self.tp])[keep]
        fpr = np.stack([self.fp_above[keep], self.fp[keep]], 1).ravel() / self.negatives
        tpr = np.stack([before, self.tp[keep]], 1).ravel() / self.positives
        return np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], tpr, [1.0]])

    def precision_recall_points(self) -> tuple[np.ndarray, np.ndarray]:
        """(recall ascending, precision) for drawing as steps."""
        keep = _thin(len(self.tp), DRAWN)
        return self.tp[keep] / self.positives, self.tp[keep] / (self.tp[keep] + self.fp[keep])

    def _need_both(self, metric: str) -> None:
        if not self.positives or not self.negatives:
            found = f"{self.positives:g} positives and {self.negatives:g} negatives"
            raise Fault(
                "ONE_CLASS",
                f"{metric} needs both classes, found {found}",
                "add cases of the missing class",
            )


def curve(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Curve:
    """The curve of ``scores`` (N,) (higher = more anomalous) against ``labels`` (N,) (truthy =
    anomalous).

    float32 and float64 keep their type, anything else becomes float64; ``weights`` (N,) are >= 0.
    Raises `Fault` where a score is not finite. 1e8 float32 scores: about 15 s and 2 GB on one core.
    """
    scores = np.asarray(scores).ravel()
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    labels = np.asarray(labels).ravel().astype(bool, copy=False)
    if len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores but {len(labels)} labels")
    # NaN and infinities survive min and max, so no mask of the whole array is needed.
    if len(scores) and not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
        raise Fault(
            "NONFINITE_SCORE",
            "scores are not all finite",
            "check the restored images",
            exit=BAD_MODEL,
        )
    if weights is not None:
        weights = np.asarray(weights, dtype=np.float64).ravel()
        scores, labels, weights = scores[weights > 0], labels[weights > 0], weights[weights > 0]
    return _curve(_sorted(scores, labels, weights), _sorted(scores, ~labels, weights))


def region_curve(found: Curve, scores: np.ndarray, weights: np.ndarray) -> Curve:
    """The curve of the same negatives against positives with other weights, as 1 / voxels of their
    region, which makes the true positive rate the mean overlap per region (PRO). scores, weights
    (P,): of the positives."""
    scores = np.asarray(scores, dtype=found.sorted_scores[0].dtype)
    positive = _sorted(
        scores, np.ones(len(scores), dtype=bool), np.asarray(weights, dtype=np.float64)
    )
    return _curve(positive, (found.sorted_scores[0], found.sorted_weights[0]))


def _curve(
    positives: tuple[np.ndarray, np.ndarray | None], negatives: tuple[np.ndarray, np.ndarray | None]
) -> Curve:
    (positive, positive_weights), (negative, negative_weights) = positives, negatives
    first = np.ones(len(positive), dtype=bool)  # of its tied scores
    np.not_equal(positive[1:], positive[:-1], out=first[1:])
    distinct = positive[first][::-1]
    return Curve(
        scores=distinct,
        tp=_reaching(positive, positive_weights, distinct, "left"),
        fp=_reaching(negative, negative_weights, distinct, "left"),
        fp_above=_reaching(negative, negative_weights, distinct, "right"),
        positives=_total(positive, positive_weights),
        negatives=_total(negative, negative_weights),
        sorted_scores=(negative, positive),
        sorted_weights=(negative_weights, positive_weights),
    )


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of ``scores`` (N,) against ``labels`` (N,)."""
    return curve(scores, labels).auroc


def dice(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Dice of two boolean arrays; None where the reference is empty, since it is undefined there,
    not 0 and not 1."""
    reference = np.count_nonzero(truth)
    if not reference:
        return None
    return 2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + reference)


def _sorted(
    scores: np.ndarray, chosen: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """The chosen scores, ascending, and the cumulative weights from the highest: entry i = weight
    of scores[i:]."""
    picked = scores[chosen]
    if weights is None:
        picked.sort()
        return picked, None
    order = np.argsort(picked, kind="stable")
    from_top = np.cumsum(weights[chosen][order][::-1])[::-1]
    return picked[order], np.concatenate([from_top, [0.0]])


def _reaching(
    scores: np.ndarray, weights: np.ndarray | None, at: np.ndarray, side: str
) -> np.ndarray:
    """Weight of the ascending ``scores`` that are >= ``at`` (side left) or > ``at`` (side right),
    as float64."""
    first = np.searchsorted(scores, at, side=side)  # type: ignore[call-overload]
    if weights is not None:
        return weights[first]
    return np.subtract(len(scores), first, dtype=np.float64)


def _above(scores: np.ndarray, weights: np.ndarray | None, threshold: float) -> float:
    return float(
        _reaching(scores, weights, np.asarray([threshold], dtype=scores.dtype), "right")[0]
    )


def _total(scores: np.ndarray, weights: np.ndarray | None) -> float:
    return float(len(scores) if weights is None else weights[0])


def _area(end: np.ndarray, start: np.ndarray, heights: np.ndarray, limit: float) -> float:
    """Area up to ``limit``, divided by it: flat at heights[i] from end[i] to start[i], then a slope
    to heights[i + 1] at end[i + 1]."""
    flat = np.minimum(start, limit) - np.minimum(end, limit)
    begin, width = start[:-1], end[1:] - start[:-1]
    used = np.clip(limit - begin, 0, width)
    share = np.divide(used, width, out=np.zeros_like(width), where=width > 0)
    slope = np.dot(used, heights[:-1] + np.diff(heights) * share / 2)
    return float((np.dot(flat, heights) + slope) / limit)


def _thin(count: int, most: int) -> np.ndarray:
    """Indices of at most ``most`` points of ``count``, ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
