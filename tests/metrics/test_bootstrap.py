"""Intervals resample patients; the quick paths equal the slow one; coverage is near what is
claimed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pseudohealthy.metrics import bootstrap
from pseudohealthy.metrics.curves import curve


def cohort(rng, patients, voxels, *, prevalence=0.01, shift=1.5):
    """Scores and labels per patient, with a patient effect on the scores."""
    truths = [rng.random(voxels) < prevalence for _ in range(patients)]
    maps = [
        (rng.gamma(2, 1, voxels) + shift * t + rng.normal(0, 0.3)).astype(np.float32)
        for t in truths
    ]
    return maps, truths


def histograms(maps, truths):
    found = curve(np.concatenate(maps), np.concatenate(truths))
    binned = bootstrap.Histograms(found, len(maps))
    for row, (values, truth) in enumerate(zip(maps, truths, strict=True)):
        binned.add(row, values, truth)
    return found, binned


@pytest.mark.parametrize("prevalence", [0.3, 0.01, 0.0005])
@pytest.mark.parametrize("shift", [0.5, 3, 10])
def test_the_binned_point_estimate_agrees_with_the_exact_value_to_a_thousandth(prevalence, shift):
    maps, truths = cohort(np.random.default_rng(5), 10, 100_000, prevalence=prevalence, shift=shift)
    found, binned = histograms(maps, truths)
    point = binned.point()
    assert len(binned.edges) > 2000  # it is binned, not exact by accident
    assert point["auroc"] == pytest.approx(found.auroc, abs=1e-3)
    assert point["average_precision"] == pytest.approx(found.average_precision, abs=1e-3)
    assert point["best_dice"] == pytest.approx(found.best_dice()[0], abs=1e-3)


def test_few_distinct_scores_make_every_resample_exact():
    rng = np.random.default_rng(6)
    maps, truths = cohort(rng, 12, 20, prevalence=0.3)
    _, binned = histograms(maps, truths)
    weight = bootstrap.weights(12, 50, seed=1)
    quick = binned.resampled(weight)
    for row, drawn in enumerate(weight.astype(int)):
        chosen = np.repeat(np.arange(12), drawn)
        slow = curve(
            np.concatenate([maps[i] for i in chosen]), np.concatenate([truths[i] for i in chosen])
        )
        assert quick["auroc"][row] == pytest.approx(slow.auroc, abs=1e-6)
        assert quick["average_precision"][row] == pytest.approx(slow.average_precision, abs=1e-6)
        assert quick["best_dice"][row] == pytest.approx(slow.best_dice()[0], abs=1e-6)


def test_the_quick_interval_equals_the_slow_one():
    rng = np.random.default_rng(7)
    values, sizes = rng.random(30), rng.integers(1, 5, 30)
    weight = bootstrap.weights(30, 400, seed=3)
    quick = bootstrap.percentile(bootstrap.ratio_of_sums(weight, values, sizes))
    slow = bootstrap.interval(
        lambda rows: sum(v for v, _ in rows) / sum(s for _, s in rows),
        list(zip(values, sizes, strict=True)),
        n=400,
        seed=3,
    )
    assert quick == pytest.approx(slow, abs=1e-6)


def test_patients_not_slices_are_resampled():
    """40 copies of each slice add nothing: the interval stays that of 15 patients."""
    rng = np.random.default_rng(8)
    maps = [rng.normal(label / 2, 1, 1).astype(np.float32) for label in [0] * 8 + [1] * 7]
    truths = [np.array([label > 0]) for label in [0] * 8 + [1] * 7]
    weight = bootstrap.weights(15, 1000)
    once = bootstrap.percentile(histograms(maps, truths)[1].resampled(weight)["auroc"])
    copies = histograms([np.repeat(m, 40) for m in maps], [np.repeat(t, 40) for t in truths])[1]
    assert bootstrap.percentile(copies.resampled(weight)["auroc"]) == pytest.approx(once, abs=1e-6)
    assert once[1] - once[0] > 0.1


def test_coverage_is_near_95_percent_where_slices_of_a_patient_agree():
    """True mean 0, 40 patients of 5 nearly equal slices each, 300 studies: about 95 % of intervals
    hold the truth."""
    rng = np.random.default_rng(9)
    weight = bootstrap.weights(40, 500)
    held = 0
    for _ in range(300):
        slices = rng.normal(size=(40, 1)) + 0.1 * rng.normal(size=(40, 5))
        low, high = bootstrap.percentile(
            bootstrap.ratio_of_sums(weight, slices.sum(1), np.full(40, 5))
        )
        held += low <= 0 <= high
    assert 0.90 <= held / 300 <= 0.98  # resampling the 200 slices would hold it in about 60 %


def test_pairing_removes_what_two_methods_share():
    rng = np.random.default_rng(10)
    hardness, weight = rng.normal(size=50), bootstrap.weights(50, 1000)
    first, second = (
        bootstrap.ratio_of_sums(weight, hardness + gain, np.ones(50)) for gain in (0.1, 0.0)
    )
    (low, high), share = bootstrap.paired_difference(first, second)
    assert (
        low == pytest.approx(0.1, abs=1e-6) and high == pytest.approx(0.1, abs=1e-6) and share == 0
    )
    alone = bootstrap.percentile(first)
    assert alone[1] - alone[0] > 0.3


def test_the_same_seed_gives_the_same_draws_and_undefined_resamples_are_left_out():
    assert np.array_equal(bootstrap.weights(9, 20, seed=4), bootstrap.weights(9, 20, seed=4))
    assert not np.array_equal(bootstrap.weights(9, 20, seed=4), bootstrap.weights(9, 20, seed=5))
    assert (bootstrap.weights(9, 20).sum(1) == 9).all()
    assert bootstrap.percentile(np.array([1.0, 1.0, np.nan])) == (1.0, 1.0)
    assert bootstrap.percentile(np.array([1.0, np.nan, np.nan])) is None
    assert bootstrap.interval(np.mean, [3.0]) is None


def test_two_thousand_resamples_of_millions_of_voxels_are_quick():
    maps, truths = cohort(np.random.default_rng(11), 100, 50_000)
    _, binned = histograms(maps, truths)
    start = time.process_time()
    drawn = binned.resampled(bootstrap.weights(100))
    assert len(drawn["auroc"]) == 2000 and np.isfinite(drawn["average_precision"]).all()
    assert time.process_time() - start < 10


def test_holm_equals_its_definition_and_keeps_the_order():
    rng = np.random.default_rng(12)
    p = rng.random(9) ** 3
    order, running = np.argsort(p), 0.0
    expected = np.empty(9)
    for rank, index in enumerate(order):
        running = max(running, (9 - rank) * p[index])
        expected[index] = min(1.0, running)
    assert bootstrap.holm(p) == pytest.approx(expected.tolist())
    assert bootstrap.holm([0.03, float("nan"), 0.04])[::2] == pytest.approx([0.06, 0.06])
    assert bootstrap.holm([]) == []


def test_p_values_are_uniform_without_a_difference_and_1_for_equal_methods():
    rng = np.random.default_rng(13)
    weight = bootstrap.weights(40, 400)
    found = []
    for _ in range(300):
        first, second = (
            bootstrap.ratio_of_sums(weight, rng.normal(size=40), np.ones(40)) for _ in "ab"
        )
        found.append(bootstrap.two_sided(first, second))
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.10
    assert bootstrap.two_sided(first, first) == 1
    assert bootstrap.two_sided(first + 9, first) == pytest.approx(2 / 401)


def test_fpr_at_95_tpr_of_few_scores_is_exact_in_every_resample():
    rng = np.random.default_rng(14)
    maps, truths = cohort(rng, 12, 20, prevalence=0.3)
    _, binned = histograms(maps, truths)
    weight = bootstrap.weights(12, 30, seed=2)
    quick = binned.resampled(weight)["fpr_at_95_tpr"]
    for row, drawn in enumerate(weight.astype(int)):
        chosen = np.repeat(np.arange(12), drawn)
        slow = curve(
            np.concatenate([maps[i] for i in chosen]), np.concatenate([truths[i] for i in chosen])
        )
        assert quick[row] == pytest.approx(slow.fpr_at_tpr(0.95), abs=1e-6)
