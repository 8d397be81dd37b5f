"""Figures of the twin itself: against the true healthy image where it is known, and inside against
outside the lesion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case
from pseudohealthy.evaluation.restoration import HIGHEST_PSNR, TwinErrors, psnr, sentences
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Canvas

SIDE = 24
CANVAS = Canvas(size=SIDE, normalise="range", value_range=(0, 255), foreground="all")


@pytest.fixture
def pairs(tmp_path):
    """Four cases: image with a bright square, its mask, and the true twin on disk."""
    rng, found = np.random.default_rng(0), []
    for number in range(4):
        healthy = rng.integers(20, 200, (SIDE, SIDE)).astype(np.uint8)
        mask = np.zeros((1, SIDE, SIDE), bool)
        mask[0, 4:10, 5:12] = True
        Image.fromarray(healthy).save(tmp_path / f"{number}.png")
        image = np.where(mask[0], 255, healthy).astype(np.float32)
        case = Case(
            f"c{number}",
            f"p{number % 3}",
            "test",
            ANOMALOUS,
            "",
            root=tmp_path,
            extra={"twin": f"{number}.png"},
        )
        truth = CANVAS.fit(Scan.from_array(healthy)).planes
        found.append((case, CANVAS.fit(Scan.from_array(image), mask=mask), truth))
    return found


def records(pairs, method, restore):
    twins = TwinErrors()
    for case, fitted, truth in pairs:
        twins.add(method, case, CANVAS, fitted, restore(fitted, truth))
    return {record.metric: record for record in twins.records("absolute residual")}


def test_an_exact_twin_is_exact_in_every_measure(pairs):
    found = records(pairs, "ddpm", lambda fitted, truth: truth)
    assert found["twin_mae_inside"].value == found["twin_mae_outside"].value == 0
    assert found["twin_ssim"].value == pytest.approx(1) and found["twin_psnr"].value == HIGHEST_PSNR
    assert found["twin_perceptual"].value == pytest.approx(0, abs=1e-6)
    assert "LPIPS" in found["twin_perceptual"].postprocessing, (
        "which distance it was is part of the record"
    )
    assert "l1_ratio" not in found, "nothing changed outside: no ratio"
    assert found["twin_ssim"].n_patients == 3 and found["twin_ssim"].n_cases == 4


def test_noise_costs_similarity_and_psnr_equals_scikit_image(pairs):
    torch.manual_seed(0)
    noise = {case.case_id: 0.1 * torch.randn(1, 1, SIDE, SIDE) for case, _, _ in pairs}
    by_plane = iter(noise.values())
    found = records(pairs, "ddpm", lambda fitted, truth: truth + next(by_plane))
    expected = [
        peak_signal_noise_ratio(truth.numpy(), (truth + noise[case.case_id]).numpy(), data_range=2)
        for case, _, truth in pairs
    ]
    assert found["twin_psnr"].value == pytest.approx(np.mean(expected), abs=1e-3)
    assert 0 < found["twin_ssim"].value < 1 and found["twin_perceptual"].value > 0
    assert psnr(torch.tensor(0.25), peak=2.0).item() == pytest.approx(10 * np.log10(16))


def test_the_l1_ratio_is_residual_in_the_lesion_over_the_rest(pairs):
    def dimmer(fitted, truth):
        return fitted.planes - 0.1 - 0.3 * fitted.mask[:, None]

    found = records(pairs, "ddpm", dimmer)["l1_ratio"]
    assert found.value == pytest.approx(4, abs=1e-4) and found.ci95 == pytest.approx(
        (4, 4), abs=1e-4
    )
    assert any("4.00 times" in line for line in sentences([found]))
    blur = records(pairs, "ddpm", lambda fitted, truth: fitted.planes - 0.1)["l1_ratio"]
    assert blur.value == pytest.approx(1, abs=1e-4)


def test_without_a_mask_nothing_is_measured(pairs):
    twins, (case, fitted, truth) = TwinErrors(), pairs[0]
    fitted.mask = None
    twins.add("ddpm", case, CANVAS, fitted, truth)
    assert twins.records("") == []
