"""Lesions are counted one by one: found, missed and imagined, by size; AUPRO equals its
definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from pseudohealthy.metrics import bootstrap
from pseudohealthy.metrics.curves import curve, region_curve
from pseudohealthy.metrics.lesions import compare_regions, region_weights, size_classes


def masks(seed, share=0.15, shape=(3, 12, 12)):
    rng = np.random.default_rng(seed)
    return tuple(
        ndimage.binary_opening(rng.random(shape) < 0.7, iterations=1)
        | (rng.random(shape) < share / 5)
        for _ in "ab"
    )


@pytest.mark.parametrize("seed", range(8))
def test_regions_equal_a_loop_over_them(seed):
    found, truth = masks(seed)
    result = compare_regions(found, truth)
    cube = np.ones((3, 3, 3))
    true, lesions = ndimage.label(truth, cube)
    called, calls = ndimage.label(found, cube)
    for index in range(lesions):
        lesion = true == index + 1
        touching = np.isin(called, [n for n in np.unique(called[lesion]) if n])
        assert result.detected[index] == bool((lesion & found).any())
        assert result.overlap[index] == pytest.approx(
            (lesion & touching).sum() / (lesion | touching).sum()
        )
    assert len(result.false_sizes) == sum(not truth[called == n + 1].any() for n in range(calls))


def test_nothing_found_and_nothing_there():
    nothing, something = np.zeros((1, 5, 5), bool), np.ones((1, 5, 5), bool)
    assert len(compare_regions(something, nothing).false_sizes) == 1 and not len(
        compare_regions(something, nothing).sizes
    )
    assert not compare_regions(nothing, something).detected.any() and not len(
        compare_regions(nothing, nothing).sizes
    )


def test_size_classes_are_millilitres_where_known_and_thors_pixels_elsewhere():
    assert size_classes(np.array([99, 100, 999, 1000]), 0.001, 1).tolist() == [0, 1, 1, 2]
    assert size_classes(np.array([71, 72, 570, 571]), None, 128 * 128).tolist() == [0, 1, 1, 2]
    assert size_classes(np.array([71 * 4, 71 * 4 + 1]), None, 256 * 256).tolist() == [0, 1]


def brute_pro(values, truth, limit):
    """Mean overlap per region against the false positive rate at every threshold, trapezoids, cut
    at the limit."""
    labels, count = ndimage.label(truth, np.ones((3, 3, 3)))
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(values)[::-1]:
        found = values >= threshold
        rates.append(found[~truth].mean())
        overlaps.append(np.mean([found[labels == n + 1].mean() for n in range(count)]))
    ends = (
        np.interp(limit, rates, overlaps)
        if limit not in rates
        else max(o for r, o in zip(rates, overlaps, strict=True) if r <= limit)
    )
    kept = [(r, o) for r, o in zip(rates, overlaps, strict=True) if r <= limit] + [(limit, ends)]
    return np.trapezoid([o for _, o in kept], [r for r, _ in kept]) / limit


@pytest.mark.parametrize("levels", [4, 1000])
@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_aupro_equals_its_definition_with_ties(levels, limit):
    rng = np.random.default_rng(levels)
    _, truth = masks(3, share=0.05)
    truth &= rng.random(truth.shape) < 0.2
    values = (np.round(rng.random(truth.shape) * levels) / levels + 0.3 * truth).astype(np.float32)
    found = region_curve(curve(values, truth), values[truth], region_weights(truth))
    assert found.area_to(limit) == pytest.approx(brute_pro(values, truth, limit), abs=1e-6)
    binned = bootstrap.Histograms(found, 1)
    weights = np.ones(truth.size)
    weights[truth.ravel()] = region_weights(truth)
    binned.add(0, values.ravel(), truth.ravel(), weights)
    if limit == bootstrap.AREA_LIMIT:
        assert binned.point()["area_to_30"] == pytest.approx(found.area_to(limit), abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=4, max_size=40))
@settings(max_examples=40, deadline=None)
def test_the_area_up_to_a_rate_equals_scikit_learn(rows):
    scores, labels = np.array([s for s, _ in rows], np.float64), np.array([y for _, y in rows])
    if labels.all() or not labels.any():
        return
    found = curve(scores, labels)
    assert found.area_to(1.0) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    # scikit-learn standardises: 1/2 (1 + (area - lowest) / (highest - lowest)), McClish 1989
    low, high = 0.3**2 / 2, 0.3
    mcclish = (1 + (found.area_to(0.3) * 0.3 - low) / (high - low)) / 2
    assert mcclish == pytest.approx(roc_auc_score(labels, scores, max_fpr=0.3), abs=1e-12)


def test_a_large_lesion_weighs_as_much_as_a_small_one():
    truth = np.zeros((1, 20, 20), bool)
    truth[0, 2:12, 2:12] = True
    truth[0, 16, 16] = True
    values = np.where(truth, 1.0, np.linspace(0, 0.5, 400).reshape(1, 20, 20))
    values[0, 16, 16] = -1
    plain = curve(values, truth)
    assert plain.auroc > 0.98
    assert region_curve(plain, values[truth], region_weights(truth)).area_to(0.3) == pytest.approx(
        0.5
    )


def test_a_thinned_curve_keeps_its_areas_and_few_points():
    rng = np.random.default_rng(2)
    labels = rng.random(50_000) < 0.4
    found = curve(rng.normal(size=50_000) + labels, labels)
    thin = found.thinned(500)
    assert (thin.auroc, thin.average_precision) == (found.auroc, found.average_precision)
    assert len(thin.tp) <= 500 and not len(thin.sorted_scores[0])
    assert np.trapezoid(*thin.roc_points()[::-1]) == pytest.approx(found.auroc, abs=2e-3)
