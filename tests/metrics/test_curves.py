"""The curve is exact: it equals scikit-learn and brute force, ties included, and stays quick and
small."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from pseudohealthy.errors import Fault
from pseudohealthy.metrics.curves import curve, dice

# Few distinct values make ties the rule.
samples = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(label for _, label in rows) < len(rows)
)


def brute_dice(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    found = scores > threshold
    return 2 * np.sum(found & labels) / (found.sum() + labels.sum())


@given(samples)
@settings(max_examples=200, deadline=None)
def test_auroc_and_average_precision_equal_scikit_learn_with_ties(rows):
    scores, labels = np.array([s for s, _ in rows], np.float32) / 7, np.array([y for _, y in rows])
    found = curve(scores, labels)
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )


@given(samples, st.lists(st.integers(0, 4), min_size=40, max_size=40))
@settings(max_examples=100, deadline=None)
def test_weights_are_repetitions(rows, repeats):
    scores, labels = np.array([s for s, _ in rows], np.float64), np.array([y for _, y in rows])
    weights = np.array(repeats[: len(rows)])
    if not weights[labels].sum() or not weights[~labels].sum():
        return
    weighted = curve(scores, labels, weights)
    repeated = curve(np.repeat(scores, weights), np.repeat(labels, weights))
    assert weighted.auroc == pytest.approx(repeated.auroc, abs=1e-12)
    assert weighted.average_precision == pytest.approx(repeated.average_precision, abs=1e-12)
    assert weighted.best_dice()[0] == pytest.approx(repeated.best_dice()[0], abs=1e-12)
    assert weighted.dice_at(3) == pytest.approx(repeated.dice_at(3), abs=1e-12)


@given(samples)
@settings(max_examples=100, deadline=None)
def test_best_dice_is_the_best_of_all_thresholds_and_its_threshold_reproduces_it(rows):
    scores, labels = np.array([s for s, _ in rows], np.float32) / 7, np.array([y for _, y in rows])
    found = curve(scores, labels)
    value, threshold = found.best_dice()
    assert value == pytest.approx(
        max(brute_dice(scores, labels, t) for t in [-1.0, *scores]), abs=1e-12
    )
    assert brute_dice(scores, labels, threshold) == pytest.approx(value, abs=1e-12)
    for t in (-1.0, 0.3, float(scores[0])):
        assert found.dice_at(t) == pytest.approx(
            brute_dice(scores, labels, np.float32(t)), abs=1e-12
        )


def test_fpr_at_95_tpr_equals_the_roc_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = rng.random(4000) < 0.2
    scores = (rng.normal(size=4000) + labels).round(2)
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert curve(scores, labels).fpr_at_tpr(0.95) == pytest.approx(fpr[np.argmax(tpr >= 0.95)])
    assert curve(scores, labels).fpr_at_tpr(1.0) == pytest.approx(fpr[np.argmax(tpr >= 1.0)])


def test_the_drawn_roc_encloses_the_reported_area():
    rng = np.random.default_rng(2)
    labels = rng.random(500) < 0.4
    found = curve((rng.normal(size=500) + labels).round(1), labels)
    assert np.trapezoid(*found.roc_points()[::-1]) == pytest.approx(found.auroc, abs=1e-12)


def test_one_class_is_a_fault_and_never_nan():
    for labels in ([0, 0], [1, 1]):
        with pytest.raises(Fault, match="ONE_CLASS"):
            _ = curve(np.array([0.1, 0.2]), np.array(labels)).auroc
    with pytest.raises(Fault, match="ONE_CLASS"):
        curve(np.array([0.1, 0.2]), np.array([0, 0])).best_dice()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    with pytest.raises(Fault, match="NONFINITE_SCORE"):
        curve(np.array([0.1, bad, 0.3]), np.array([0, 1, 0]))


def test_dice_of_an_empty_reference_is_undefined():
    nothing, something = np.zeros(4, bool), np.array([True, False, True, False])
    assert dice(something, nothing) is None
    assert dice(nothing, something) == 0
    assert dice(something, something) == 1


def test_ten_million_scores_take_seconds_and_few_bytes_each():
    rng = np.random.default_rng(0)
    scores = rng.random(10_000_000, dtype=np.float32)
    labels = rng.random(10_000_000, dtype=np.float32) < 0.02
    tracemalloc.start()
    start = time.process_time()
    found = curve(scores, labels)
    summary = found.auroc, found.average_precision, found.best_dice()
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary[0] == pytest.approx(0.5, abs=0.01)
    assert seconds < 6  # of the processor; 1e8 in under 60 s
    assert peak < 3.5 * 4 * len(scores)  # 1e8 in under 1.4 GB beside the scores and labels
