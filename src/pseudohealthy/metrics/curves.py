"""Ranking metrics, exact and from one sort: AUROC, average precision, FPR at a TPR, best Dice.

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

    Args:
        scores: (K,), the distinct positive scores, descending.
        tp: (K,), weight of positives with a score at least that high; weights are 1 unless given.
        fp: (K,), of negatives with a score at least that high.
        fp_above: (K,), of negatives strictly higher; it differs from fp by the ties.
        positives: total weight.
        negatives: total weight.
        sorted_scores: of negatives and positives, ascending.
        sorted_weights: cumulative from the highest score, see `_sorted`.
        areas: AUROC and average precision of the curve that this one is a thinned copy of.
    """

    scores: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fp_above: np.ndarray
    positives: float
    negatives: float
    sorted_scores: tuple[np.ndarray, np.ndarray]  # ascending: negatives, positives
    sorted_weights: tuple[np.ndarray | None, np.ndarray | None]
    areas: tuple[float, float] | None = None

    @property
    def prevalence(self) -> float:
        """Share of positives."""
        return self.positives / (self.positives + self.negatives)

    @property
    def auroc(self) -> float:
        """Area under the ROC curve: the chance that a positive scores higher than a negative.

        Ties count half.
        """
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
        """Return the lowest false positive rate at which at least ``tpr`` of the positives are
        found."""
        self._need_both("FPR at a TPR")
        # Less a rounding error of the product, which could ask for one positive more.
        index = int(np.searchsorted(self.tp, tpr * self.positives * (1 - 1e-12)))
        return float(self.fp[min(index, len(self.fp) - 1)] / self.negatives)

    def area_to(self, fpr: float = 0.3) -> float:
        """Return the area under the ROC curve up to this false positive rate, divided by the rate.

        It is 1 for a perfect ranking. With regions as weights (`region_curve`) it is the AUPRO
        (Bergmann et al. 2019, limit 0.3).
        """
        self._need_both("the area")
        return _area(
            np.concatenate([[0.0], self.fp]) / self.negatives,
            np.append(self.fp_above, self.negatives) / self.negatives,
            np.concatenate([[0.0], self.tp]) / self.positives,
            fpr,
        )

    def thinned(self, most: int = 10_000) -> Curve:
        """Return at most ``most`` points without scores, for drawing; the areas stay the full
        curve's."""
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
        """Return the highest Dice over all thresholds, and that threshold.

        It is an oracle where the labels are the test set's. ``score > threshold`` reproduces it
        exactly: the threshold is the next number below the lowest score passed.
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
        """Return the Dice of ``score > threshold`` with the labels, pooled; 1.0 where both are
        empty."""
        fp, tp = (
            _above(scores, weights, threshold)
            for scores, weights in zip(self.sorted_scores, self.sorted_weights, strict=True)
        )
        total = tp + fp + self.positives
        return float(2 * tp / total) if total else 1.0

    def roc_points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (false positive rate, true positive rate), both ascending from 0 to 1, for
        drawing."""
        self._need_both("ROC")
        keep = _thin(len(self.tp), DRAWN)
        # A tie is a slope: it starts at the TPR before it.
        previous = np.concatenate([[0.0], self.tp])[keep]
        fpr = np.stack([self.fp_above[keep], self.fp[keep]], 1).ravel() / self.negatives
        tpr = np.stack([previous, self.tp[keep]], 1).ravel() / self.positives
        return np.concatenate([[0.0], fpr, [1.0]]), np.concatenate([[0.0], tpr, [1.0]])

    def precision_recall_points(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (recall ascending, precision) for drawing as steps."""
        keep = _thin(len(self.tp), DRAWN)
        return self.tp[keep] / self.positives, self.tp[keep] / (self.tp[keep] + self.fp[keep])

    def _need_both(self, metric: str) -> None:
        if not self.positives or not self.negatives:
            classes = f"{self.positives:g} positives and {self.negatives:g} negatives"
            raise Fault(
                "ONE_CLASS",
                f"{metric} needs both classes, found {classes}",
                "add cases of the missing class",
            )


def curve(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> Curve:
    """Return the curve of scores against labels.

    float32 and float64 scores keep their type, anything else becomes float64. 1e8 float32 scores
    take about 15 s and 2 GB on one core.

    Args:
        scores: (N,), higher = more anomalous.
        labels: (N,), truthy = anomalous.
        weights: (N,), >= 0.

    Raises:
        Fault: NONFINITE_SCORE (exit 5) where a score is not finite.
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


def region_curve(voxel_curve: Curve, scores: np.ndarray, weights: np.ndarray) -> Curve:
    """Return the curve of the same negatives against positives with other weights.

    With 1 / voxels of their region the true positive rate is the mean overlap per region (PRO).

    Args:
        voxel_curve: whose negatives are taken.
        scores: (P,) of the positives.
        weights: (P,) of the positives.
    """
    scores = np.asarray(scores, dtype=voxel_curve.sorted_scores[0].dtype)
    positive = _sorted(
        scores, np.ones(len(scores), dtype=bool), np.asarray(weights, dtype=np.float64)
    )
    return _curve(positive, (voxel_curve.sorted_scores[0], voxel_curve.sorted_weights[0]))


def _curve(
    positives: tuple[np.ndarray, np.ndarray | None], negatives: tuple[np.ndarray, np.ndarray | None]
) -> Curve:
    (positive, positive_weights), (negative, negative_weights) = positives, negatives
    starts = np.ones(len(positive), dtype=bool)  # of its tied scores
    np.not_equal(positive[1:], positive[:-1], out=starts[1:])
    distinct = positive[starts][::-1]
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
    """Return the area under the ROC curve of ``scores`` (N,) against ``labels`` (N,)."""
    return curve(scores, labels).auroc


def dice(prediction: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the Dice of two boolean arrays; None where the reference is empty.

    It is undefined there, not 0 and not 1.
    """
    reference = np.count_nonzero(truth)
    if not reference:
        return None
    return 2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + reference)


def _sorted(
    scores: np.ndarray, mask: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the masked scores, ascending, and their cumulative weights from the highest.

    Entry i of those is the weight of scores[i:].
    """
    values = scores[mask]
    if weights is None:
        values.sort()
        return values, None
    order = np.argsort(values, kind="stable")
    from_top = np.cumsum(weights[mask][order][::-1])[::-1]
    return values[order], np.concatenate([from_top, [0.0]])


def _reaching(
    scores: np.ndarray, weights: np.ndarray | None, at: np.ndarray, side: str
) -> np.ndarray:
    """Return the weight of the ascending ``scores`` that are >= ``at`` (left) or > ``at`` (right).

    As float64.
    """
    index = np.searchsorted(scores, at, side=side)  # type: ignore[call-overload]
    if weights is not None:
        return weights[index]
    return np.subtract(len(scores), index, dtype=np.float64)


def _above(scores: np.ndarray, weights: np.ndarray | None, threshold: float) -> float:
    return float(
        _reaching(scores, weights, np.asarray([threshold], dtype=scores.dtype), "right")[0]
    )


def _total(scores: np.ndarray, weights: np.ndarray | None) -> float:
    return float(len(scores) if weights is None else weights[0])


def _area(end: np.ndarray, start: np.ndarray, heights: np.ndarray, limit: float) -> float:
    """Return the area up to ``limit``, divided by it.

    The line is flat at heights[i] from end[i] to start[i], then slopes to heights[i + 1] at end[i +
    1].
    """
    flat = np.minimum(start, limit) - np.minimum(end, limit)
    begin, width = start[:-1], end[1:] - start[:-1]
    within = np.clip(limit - begin, 0, width)
    share = np.divide(within, width, out=np.zeros_like(width), where=width > 0)
    slope = np.dot(within, heights[:-1] + np.diff(heights) * share / 2)
    return float((np.dot(flat, heights) + slope) / limit)


def _thin(count: int, most: int) -> np.ndarray:
    """Return the indices of at most ``most`` points of ``count``, ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
