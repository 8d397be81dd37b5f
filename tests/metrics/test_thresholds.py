"""Thresholds know where they come from, and the healthy quantile keeps its promise."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.filters import threshold_otsu

from pseudohealthy.errors import Fault
from pseudohealthy.metrics.thresholds import Threshold, healthy_quantile, otsu, validation


@pytest.mark.parametrize("q", [0.5, 0.95, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("n", [3, 100, 10_000])
def test_at_most_the_promised_share_of_healthy_values_lies_above_the_quantile(q, n):
    values = np.random.default_rng(n).exponential(size=n).astype(np.float32)
    threshold = healthy_quantile(values, q)
    assert np.mean(values > threshold.value) <= 1 - q + 1e-12
    assert threshold.value in values


def test_a_quantile_of_healthy_values_is_not_their_minimum():
    values = np.linspace(0, 1, 101)
    assert healthy_quantile(values, 0.99).value >= 0.99


def test_identity_maps_give_nothing_above_their_threshold():
    zeros = np.zeros(1000, np.float32)
    assert not (zeros > healthy_quantile(zeros, 0.99).value).any()
    assert not (zeros > otsu(zeros).value).any()


def test_a_threshold_names_its_source_quantile_and_patients_and_survives_json():
    threshold = healthy_quantile(np.arange(100.0), 0.95, n_patients=12)
    assert "healthy-quantile 0.95" in str(threshold) and "12 patients" in str(threshold)
    assert Threshold.from_dict(threshold.as_dict()) == threshold


def test_the_threshold_of_validation_has_the_best_dice():
    scores, labels = np.array([0.1, 0.4, 0.5, 0.9]), np.array([0, 0, 1, 1])
    found = validation(scores, labels, n_patients=2)
    assert (scores > found.value).tolist() == [False, False, True, True]
    assert found.source == "validation"
    assert found.detail == {"dice": 1.0, "n_values": 4, "n_patients": 2}


def test_otsu_equals_scikit_image():
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(0, 1, 5000), rng.normal(6, 1, 1000)])
    assert otsu(values).value == pytest.approx(threshold_otsu(values), abs=1e-9)


def test_what_is_no_threshold_is_refused():
    for bad in (np.array([]), np.array([0.1, np.nan])):
        with pytest.raises(Fault):
            healthy_quantile(bad, 0.9)
    with pytest.raises(Fault, match="QUANTILE"):
        healthy_quantile(np.ones(3), 99)
    with pytest.raises(Fault, match="THRESHOLD_SOURCE"):
        Threshold(0.5, "magic")
    with pytest.raises(Fault, match="NONFINITE"):
        Threshold(float("nan"), "given")
    with pytest.raises(Fault, match="THRESHOLD_FILE"):
        Threshold.from_dict({"value": 1})
