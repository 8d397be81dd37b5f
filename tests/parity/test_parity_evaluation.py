"""Evaluation operators: correct figures from the defaults, published ones from the published
variants.

Volumes of the reference are stored (x, y, z); here planes come first: (z, x, y).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from confusion import confusion, published_anoddpm, published_behrendt

from pseudohealthy.evaluation.protocols import behrendt, boxes, thor, wolleb
from pseudohealthy.evaluation.restoration import psnr
from pseudohealthy.maps import volume_filters
from pseudohealthy.metrics import thresholds
from pseudohealthy.metrics.curves import curve, dice


@pytest.fixture
def group(parity):
    """group(prefix) -> the arrays of one group of operators."""
    case = parity("evaluation_operators")

    def arrays(prefix: str) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in case.tensors(prefix).items()}

    arrays.info = case.info
    return arrays


def planes_first(volume: np.ndarray) -> np.ndarray:
    return np.moveaxis(volume, 2, 0)


def dice_above(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    value = dice(scores > threshold, labels)
    assert value is not None
    return value


def test_volume_clean_up(group):
    a = group("postproc")
    volume, brain, eroded, truth = (
        planes_first(a[name]) for name in ("residual", "brain_mask", "eroded_mask", "segmentation")
    )
    steps = volume.shape[2] // behrendt.SHARE
    assert steps == group.info["erosion_iterations"]
    assert np.array_equal(volume_filters.erode(brain, steps), eroded)
    assert np.array_equal(volume * eroded, planes_first(a["residual_eroded"]))
    published = behrendt.process(volume, brain, published=True)
    assert np.array_equal(published, planes_first(a["residual_median5"]))
    assert np.array_equal(
        behrendt.process(volume, brain), planes_first(a["median_then_erode_paper"])
    )
    assert np.array_equal(behrendt.regions_kept(a["cc_in"], published=True), a["cc_out"])
    assert np.array_equal(behrendt.regions_kept(a["cc_in"]), a["cc_out_paper_less_than_7"])
    assert published[brain > 0].mean() == pytest.approx(float(a["volume_score"]), abs=1e-6)
    found = curve(published, truth)
    assert found.average_precision == pytest.approx(float(a["auprc"]), abs=1e-6)
    assert found.auroc == pytest.approx(float(a["auroc"]), abs=1e-6)


def test_volume_thresholds(group):
    a = group("postproc")
    volume, truth = planes_first(a["residual_median5"]), planes_first(a["segmentation"])
    halved = behrendt.bisection(volume, truth)
    assert halved.value == pytest.approx(float(a["bisection_threshold"]), abs=1e-6)
    assert halved.detail["dice"] == pytest.approx(float(a["bisection_dice"]), abs=1e-6)
    kept = behrendt.regions_kept(volume > np.float32(halved.value), published=True)
    assert np.array_equal(kept, planes_first(a["binary_after_cc"]))
    assert dice(kept, truth) == pytest.approx(float(a["dice_after_cc"]), abs=1e-6)
    exact = thresholds.validation(volume, truth)
    assert exact.detail["dice"] == pytest.approx(float(a["exhaustive_dice"]), abs=1e-6)
    assert dice_above(volume, truth, exact.value) == pytest.approx(
        float(a["exhaustive_dice"]), abs=1e-6
    )


def test_bisection_misses_the_optimum_that_the_exact_search_finds(group):
    a = group("bisection")
    halved, exact = behrendt.bisection(a["x"], a["y"]), thresholds.validation(a["x"], a["y"])
    assert halved.value == pytest.approx(float(a["official_threshold"]), abs=1e-6)
    assert halved.detail["dice"] == pytest.approx(float(a["official_dice"]), abs=1e-6)
    assert exact.detail["dice"] == pytest.approx(float(a["exhaustive_dice"]), abs=1e-6)
    assert np.array_equal(a["x"] > exact.value, a["x"] > a["exhaustive_threshold"])
    assert exact.detail["dice"] >= halved.detail["dice"]


def test_confusion(group):
    a = group("confusion")
    counts = confusion(a["prediction"], a["segmentation"])
    assert (counts.tp, counts.fp, counts.tn, counts.fn) == tuple(a["correct_TP_FP_TN_FN"])
    assert counts.specificity == pytest.approx(float(a["correct_specificity"]))
    assert counts.fpr == pytest.approx(float(a["correct_FPR"]))
    assert counts.fdr == pytest.approx(float(a["correct_FDR"]))
    named = published_behrendt(counts)
    assert tuple(named[name] for name in ("TP", "FP", "TN", "FN")) == tuple(
        a["official_TP_FP_TN_FN"]
    )
    for name in ("specificity", "TPR", "FPR"):
        assert named[name] == pytest.approx(float(a[f"official_{name}"]))


def test_per_slice_dice_is_axial_and_published_sagittal(group):
    volumes, a = group("postproc"), group("per_slice")
    found = planes_first(volumes["residual_median5"] > volumes["bisection_threshold"])
    truth = planes_first(volumes["segmentation"])
    np.testing.assert_allclose(
        behrendt.dice_per_slice(found, truth), a["correct_axial_axis2_dice"], atol=1e-6
    )
    np.testing.assert_allclose(
        behrendt.dice_per_slice(found, truth, axis=1), a["official_axis0_dice"], atol=1e-6
    )


def test_otsu_of_one_image(group):
    a = group("otsu")
    values = np.abs(a["original"] - a["reconstruction"]).sum(0)
    np.testing.assert_allclose(values, a["map"], atol=1e-6)
    threshold = thresholds.otsu(a["map"])
    assert threshold.value == pytest.approx(float(a["threshold"]), abs=1e-6)
    assert np.array_equal(a["map"] > threshold.value, a["mask"] > 0)
    overlap, area = wolleb.slice_figures(a["map"], a["label"] > 0)
    assert overlap == pytest.approx(float(a["dice"]), abs=1e-6)
    assert area == pytest.approx(float(a["auroc"]), abs=1e-6)


def test_thor_pooled_dice(group):
    a = group("thor_pooled")
    truths = a["masks"] > 0
    found = curve(a["maps"], truths)
    tried = thor.dice_curve(found)
    np.testing.assert_allclose(tried, a["dice_curve"], atol=1e-6)
    assert tried.max() == pytest.approx(float(a["best_dice"]), abs=1e-6)
    assert thor.TRIED[tried.argmax()] == pytest.approx(float(a["best_threshold"]), abs=1e-6)
    assert found.best_dice()[0] >= tried.max()
    assert found.average_precision == pytest.approx(float(a["auprc"]), abs=1e-6)
    exact = np.asarray(
        [
            curve(values, truth).best_dice()[0]
            for values, truth in zip(a["maps"], truths, strict=True)
        ]
    )
    stored = a["per_image_best_dice"]
    assert np.all(exact >= stored - 1e-6)
    by_image = [
        thor.dice_curve(curve(values, truth)).max()
        for values, truth in zip(a["maps"], truths, strict=True)
    ]
    assert np.allclose(exact, stored, atol=1e-6) or np.allclose(by_image, stored, atol=1e-6)


def test_wrist_rule(group):
    a = group("wrist")
    for index, values in enumerate(a["maps"][:, 0]):
        rule = boxes.wrist_rule(
            values, a["boxes"][index] > 0, a["negatives"][index] > 0, float(a["threshold"])
        )
        stored = [a[name][index] for name in ("TP", "FP", "Precision", "Recall", "F1")]
        np.testing.assert_allclose(
            [rule.tp, rule.fp, rule.precision, rule.recall, rule.f1], stored, atol=1e-6
        )


def test_wrist_threshold(group):
    a = group("wrist_threshold")
    threshold, rates = boxes.published_rate_threshold(a["maps"])
    np.testing.assert_allclose(rates, a["mean_fpr_percent"], atol=1e-6)
    assert threshold.value == pytest.approx(float(a["threshold_smallest_with_fpr_le_5"]), abs=1e-9)
    official = float(a["threshold_official"])
    assert rates[np.isclose(np.linspace(0, 1, 1000, endpoint=False), official)][0] == pytest.approx(
        float(a["fpr_at_official"]), abs=1e-6
    )
    assert rates[round(threshold.value * 1000)] == pytest.approx(
        float(a["fpr_at_official"]), abs=1e-6
    )
    exact = boxes.healthy_rate_threshold(list(a["maps"]))
    assert np.mean(a["maps"] > exact.value) <= 0.05 and exact.value <= threshold.value + 1e-6


def test_anoddpm_figures(group):
    a = group("anoddpm")
    found = (a["real"] - a["reconstruction"]) ** 2 > 0.5
    assert np.array_equal(found, a["predicted"] > 0)
    truth = a["mask"] > 0
    each = [
        (2 * (p & t).sum() + 1e-6) / (p.sum() + t.sum() + 1e-6)
        for p, t in zip(found, truth, strict=True)
    ]
    assert np.mean(each) == pytest.approx(float(a["dice"]), abs=1e-6)
    counts = confusion(found, truth)
    assert counts.iou == pytest.approx(float(a["iou"]), abs=1e-6)
    for name, right in (
        ("precision", counts.precision),
        ("recall", counts.recall),
        ("FPR", counts.fpr),
    ):
        assert right == pytest.approx(float(a[f"correct_{name}"]), abs=1e-6)
        assert published_anoddpm(counts)[name] == pytest.approx(
            float(a[f"official_{name}"]), abs=1e-6
        )
    error = torch.from_numpy(a["real"] - a["reconstruction"])
    assert psnr(error.square().mean(), float(a["real"].max())).item() == pytest.approx(
        float(a["psnr"]), abs=1e-4
    )
