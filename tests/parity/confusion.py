"""Counts of right and wrong under their right names, and what two released evaluations called them:
no command of ours prints the latter, the vectors hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Confusion:
    """True and false positives and negatives; a rate without its denominator is nan."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def precision(self) -> float:
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Also sensitivity, true positive rate."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        return _share(self.tn, self.tn + self.fp)

    @property
    def fpr(self) -> float:
        return _share(self.fp, self.fp + self.tn)

    @property
    def fdr(self) -> float:
        """False discovery rate, 1 - precision."""
        return _share(self.fp, self.fp + self.tp)

    @property
    def dice(self) -> float:
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        return _share(self.tp, self.tp + self.fp + self.fn)


def confusion(prediction: np.ndarray, truth: np.ndarray) -> Confusion:
    """Of two boolean arrays of one shape."""
    prediction, truth = np.asarray(prediction, dtype=bool), np.asarray(truth, dtype=bool)
    tp = int(np.count_nonzero(prediction & truth))
    found, reference = int(np.count_nonzero(prediction)), int(np.count_nonzero(truth))
    return Confusion(tp, found - tp, prediction.size - found - reference + tp, reference - tp)


def published_behrendt(counts: Confusion) -> dict[str, float]:
    """The names that the released pDDPM and cDDPM evaluation prints: the four counts are permuted,
    so that its specificity is FP / (FP + FN), and its FPR is the false discovery rate."""
    named = Confusion(tp=counts.tn, fp=counts.fn, tn=counts.fp, fn=counts.tp)
    return {
        "TP": named.tp,
        "FP": named.fp,
        "TN": named.tn,
        "FN": named.fn,
        "specificity": named.specificity,
        "TPR": counts.recall,
        "FPR": counts.fdr,
    }


def published_anoddpm(counts: Confusion) -> dict[str, float]:
    """The names that the released AnoDDPM evaluation prints: false positives and negatives are
    exchanged."""
    named = Confusion(tp=counts.tp, fp=counts.fn, tn=counts.tn, fn=counts.fp)
    return {"precision": named.precision, "recall": named.recall, "FPR": named.fpr}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
