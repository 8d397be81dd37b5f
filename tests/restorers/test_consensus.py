"""Consensus: averaged one-step estimates, signed smoothing, and healthy residuals as the
yardstick."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.consensus import Consensus
from pseudohealthy.workflows.train import train
from small import merged

TINY = {
    "width": 16,
    "multipliers": (1, 2),
    "blocks": 1,
    "block": {"scale_shift": True, "groups": 4},
}
SIZE = 24


class Inventive(nn.Module):
    """A network whose clean estimate is grey plus detail that hangs on the noise: different in
    every draw."""

    def __init__(self, schedule, detail: float):
        super().__init__()
        self.schedule, self.detail = schedule, detail

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, s = self.schedule.at(t + 1, x)
        return (x - a * self.detail * torch.sign(x.roll(7, -1)) * (x.roll(3, -2) > 0)) / s


def consensus(detail=0.2, **settings) -> Consensus:
    settings = merged(
        {"walk": {"start_levels": (300, 400), "draws": 4}, "calibration": "pixel"}, settings
    )
    restorer = Consensus(size=SIZE, channels=1, network=TINY, **settings).eval()
    restorer.denoiser.network = Inventive(restorer.denoiser.schedule, detail)
    return restorer


def images(count: int, seed: int = 0, noise: float = 0.05) -> Tensor:
    """Healthy: grey, with a left half that varies ten times as much as the right one."""
    x = noise * torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    x[..., SIZE // 2 :] *= 0.1
    return x


def batches(count=40, size=8, foreground=None):
    for start in range(0, count, size):
        x = images(size, seed=start + 1)
        inside = (
            torch.ones(size, SIZE, SIZE, dtype=torch.bool)
            if foreground is None
            else foreground.expand(size, -1, -1)
        )
        yield Batch(x, inside, None, Draw(0, [("val", start + i) for i in range(size)]))


@torch.no_grad()
def restore(restorer, x):
    return restorer.restore(x, Draw(1, list(range(len(x)))))


def test_more_draws_agree_better_on_what_is_healthy():
    x = torch.zeros(2, 1, SIZE, SIZE)
    error = [restore(consensus(walk={"draws": n}), x).healthy.std().item() for n in (1, 4, 16)]
    assert error[0] > 1.5 * error[1] > 2 * error[2]


def test_smoothing_before_the_magnitude_silences_detail_and_keeps_a_lesion():
    x = torch.zeros(1, 1, SIZE, SIZE)
    x[..., 8:14, 8:14] = 0.3
    contrast = {}
    for sigma in (0.0, 1.5):
        found = restore(consensus(sigma=sigma, walk={"draws": 1}, calibration="none"), x).map[0]
        contrast[sigma] = (found[9:13, 9:13].mean() / found[18:, 18:].mean()).item()
    assert contrast[1.5] > 1.5 * contrast[0.0]


def test_calibration_measures_in_healthy_spreads():
    """Where health varies much, a residual means little: the same lesion stands out on the quiet
    side."""
    restorer = consensus(detail=0.0, sigma=1.0, floor=0.1)
    x = torch.zeros(1, 1, SIZE, SIZE)
    x[..., 10:14, 3:7] = x[..., 10:14, 17:21] = 0.05
    before = restore(restorer, x).map[0]
    with torch.no_grad():
        assert restorer.calibrate(batches(), AnomalyMap())
    after = restore(restorer, x).map[0]
    loud, quiet = (slice(10, 14), slice(3, 7)), (slice(10, 14), slice(17, 21))
    assert before[quiet].mean() == pytest.approx(before[loud].mean().item(), rel=1e-3)
    assert after[quiet].mean() > 2 * after[loud].mean()
    # On other healthy images the map is about one spread high.
    healthy = restore(restorer, images(16, seed=999)).map
    assert 0.4 < healthy[..., : SIZE // 2].square().mean().sqrt() < 1.3


def test_calibration_by_level_weighs_levels_and_leaves_pixels_alone():
    restorer = consensus(calibration="level")
    with torch.no_grad():
        assert restorer.calibrate(batches(), AnomalyMap())
    assert (restorer.residual_spread.flatten(1).std(1) < 1e-6).all() and (
        restorer.residual_mean == 0
    ).all()
    inside = restorer.residuals(images(64, seed=77), restore(restorer, images(64, seed=77)).trail)
    got = inside.square().mean((0, 2, 3, 4)).sqrt()
    torch.testing.assert_close(restorer.residual_spread[:, 0, 0, 0], got, rtol=0.1, atol=0)


def test_calibration_does_not_depend_on_batches_or_on_an_earlier_one():
    with torch.no_grad():
        first, second = consensus(), consensus()
        first.calibrate(batches(size=8), AnomalyMap())
        second.calibrate(batches(size=8), AnomalyMap())
        second.calibrate(batches(size=8), AnomalyMap())
        assert torch.equal(first.residual_spread, second.residual_spread)
        whole = consensus()
        parts = list(batches(16, size=16))
        x, keys = parts[0].images, parts[0].draw.keys
        whole.calibrate(parts, AnomalyMap())
        split = consensus()
        split.calibrate(
            [
                Batch(x[i : i + 4], parts[0].foreground[i : i + 4], None, Draw(0, keys[i : i + 4]))
                for i in range(0, 16, 4)
            ],
            AnomalyMap(),
        )
        torch.testing.assert_close(whole.residual_spread, split.residual_spread)
        torch.testing.assert_close(whole.residual_mean, split.residual_mean)


def test_few_images_borrow_the_spread_of_all_pixels():
    one, many = consensus(detail=0.0), consensus(detail=0.0)
    with torch.no_grad():
        one.calibrate(batches(1, size=1), AnomalyMap())
        many.calibrate(batches(80), AnomalyMap())
    spread = [r.residual_spread[0, 0] for r in (one, many)]
    ratio = [(s[:, :10].mean() / s[:, 14:].mean()).item() for s in spread]
    assert 1 <= ratio[0] < ratio[1]
    assert all(s.min() > 0 for s in spread)


def test_background_that_never_varies_does_not_explode():
    restorer = consensus(detail=0.0)
    inside = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    inside[..., :12] = True

    def head_only():
        for batch in batches(foreground=inside):
            batch.images[..., 12:] = 0
            yield batch

    with torch.no_grad():
        restorer.calibrate(head_only(), AnomalyMap())
    spread = restorer.residual_spread[0, 0]
    assert spread[:, 20].min() > 0.4 * spread[:, 4].mean()


def test_its_yardstick_is_its_own_whatever_the_map_asks_for():
    plain, asked = consensus(), consensus()
    with torch.no_grad():
        plain.calibrate(batches(8), AnomalyMap())
        asked.calibrate(batches(8), AnomalyMap(standardise="level", smooth=3.0))
    assert torch.equal(plain.residual_spread, asked.residual_spread)
    assert plain.residual_spread.shape == (2, 1, SIZE, SIZE)  # a level each


def test_one_sided_maps():
    x = torch.zeros(1, 1, SIZE, SIZE)
    x[..., 4:8, 4:8], x[..., 16:20, 16:20] = 0.5, -0.5
    for side, seen, unseen in (("brighter", 6, 18), ("darker", 18, 6)):
        found = restore(consensus(detail=0.0, side=side), x).map[0]
        assert found[seen, seen] > 0.3 and found[unseen, unseen] == 0


def test_the_report_says_whether_it_was_calibrated():
    restorer = consensus()
    assert "not standardised" in restorer.describe()
    with torch.no_grad():
        assert not restorer.calibrate(iter(()), AnomalyMap())
        restorer.calibrate(batches(8), AnomalyMap())
    assert "spreads (by pixel) of 8 healthy validation planes" in restorer.describe()
    assert not consensus(calibration="none").calibrate(batches(8), AnomalyMap())
    assert restorer.network_calls() == 8


def test_a_finished_run_is_calibrated_on_patients_that_do_not_set_its_threshold(
    tiny, pictures, tmp_path
):
    recipe = tiny()
    network = recipe.restorer["network"]
    recipe.restorer = {
        "name": "consensus",
        "walk": {"start_levels": (200,), "draws": 2},
        "calibration": "pixel",
        "network": network,
    }
    run = train(recipe, pictures, tmp_path / "run", steps=2, device="cpu")
    model, sha256 = run.restorer()
    # Of 8 healthy ones.
    assert model.calibration_planes == 4 and run.read_json("threshold.json")["n_patients"] == 4
    assert model.residual_spread.unique().numel() > 2
    assert run.record["weights_sha256"] == sha256  # of the weights with what was learnt
    detector = Detector(run, device="cpu")
    assert "spreads (by pixel) of 4 healthy validation planes" in detector.made()["postprocessing"]
    finding = detector(sorted((pictures / "test" / "bad").iterdir())[0])
    assert finding.map.max() > 0
