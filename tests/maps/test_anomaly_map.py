from __future__ import annotations

import shutil

import pytest
import torch
from scipy import ndimage

from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import median, smooth
from pseudohealthy.restorers.apply import mapped as read_map
from pseudohealthy.restorers.apply import restore_planes
from pseudohealthy.restorers.base import Batch, Restorer
from pseudohealthy.restorers.controls import HealthyMean, Identity, Intensity
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.train import resume
from small import on_gpu


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, twin and full foreground; the residual is +0.5 in one square and -0.25 in another."""
    image = torch.zeros(2, 1, 16, 16)
    image[0, 0, 2:6, 2:6], image[0, 0, 9:13, 9:13] = 0.5, -0.25
    return image, torch.zeros_like(image), torch.ones(2, 16, 16, dtype=torch.bool)


@pytest.mark.parametrize(
    "kind, bright, dark",
    [
        ("absolute", 0.5, 0.25),
        ("squared", 0.25, 0.0625),
        ("positive", 0.5, 0),
        ("negative", 0, 0.25),
    ],
)
def test_the_kinds_of_residual(pair, kind, bright, dark):
    maps = AnomalyMap(kind=kind).residual_map(*pair)
    assert maps.shape == (2, 16, 16)
    assert maps[0, 3, 3] == bright and maps[0, 10, 10] == dark
    assert maps[0, 0].sum() == 0 and maps[1].sum() == 0


def test_channels_are_summed_not_averaged():
    image = torch.zeros(1, 3, 12, 12)
    image[:, :, 5, 5] = torch.tensor([0.1, -0.2, 0.4])
    maps = AnomalyMap().residual_map(
        image, torch.zeros_like(image), torch.ones(1, 12, 12, dtype=torch.bool)
    )
    assert maps[0, 5, 5].item() == pytest.approx(0.7)


def test_smoothing_the_signed_residual_cancels_noise_that_its_magnitude_would_keep():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(1, 64, 64, dtype=torch.bool)
    signed = AnomalyMap(smooth=2.0).residual_map(noise, torch.zeros_like(noise), inside)
    after = AnomalyMap(smooth_after=2.0).residual_map(noise, torch.zeros_like(noise), inside)
    assert signed.mean() < 0.25 * after.mean()


def test_the_gate_keeps_dark_places_from_lending_to_their_neighbours(pair):
    image, twin, inside = (
        pair  # the residual is .5 in one bright square; a dark square is as far from its twin
    )
    twin = twin.clone()
    image = torch.where(image > 0, 1.0, torch.where(image < 0, -1.0, image))
    twin[0, 0, 9:13, 9:13] = -2.0
    maps = AnomalyMap(kind="positive", smooth_after=1.5, gate=32).residual_map(image, twin, inside)
    alone = AnomalyMap(kind="positive", smooth_after=1.5).residual_map(image, twin, inside)
    assert alone[0, 11, 11] > 0.5 and alone[0, 3, 7] > 0.05  # spills, and the dark square counts
    assert maps[0, 11, 11] == 0 and maps[0, 3, 7] < 1e-8
    # What is bright lends as before.
    assert maps[0, 3, 3] == pytest.approx(alone[0, 3, 3].item(), rel=1e-3)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_smooth_is_scipys_gaussian(sigma):
    x = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3.0)
    assert torch.allclose(smooth(x, sigma), torch.from_numpy(wanted), atol=1e-12)
    assert smooth(x, 0) is x


def test_smoothing_far_beyond_the_image_leaves_its_mean_nearly_everywhere():
    images = torch.rand(2, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    got = smooth(images, 30.0)
    assert (got - images.mean((2, 3), keepdim=True)).abs().max() < 0.05
    assert (got[0] - got[1]).abs().max() > 1e-3, "each image its own"


@pytest.mark.parametrize("side", [3, 5])
def test_median_is_scipys(side):
    x = torch.rand(2, 15, 12, generator=torch.Generator().manual_seed(2))
    wanted = ndimage.median_filter(x.numpy(), (1, side, side), mode="mirror")
    assert torch.equal(median(x, side), torch.from_numpy(wanted))
    assert median(x, 0) is x


def test_nothing_is_found_outside_the_foreground_and_the_rim_can_be_left_out(pair):
    image, twin, _ = pair
    inside = torch.zeros(2, 16, 16, dtype=torch.bool)
    inside[:, 1:8, 1:8] = True
    maps = AnomalyMap(smooth=1.0).residual_map(image, twin, inside)
    assert maps[0, 3, 3] > 0 and maps[~inside].abs().max() == 0
    eroded = AnomalyMap(erode=2).inside(inside)
    assert eroded[0].sum() == 9 and eroded[0, 3:6, 3:6].all()
    # The image's edge is a rim, too.
    assert AnomalyMap(erode=2).inside(torch.ones(1, 16, 16)).sum() == 12 * 12
    assert AnomalyMap().inside(inside).sum() == inside.sum()


def test_scores():
    maps = torch.arange(100.0).reshape(1, 10, 10)
    inside = torch.ones(1, 10, 10, dtype=torch.bool)
    assert AnomalyMap(score="mean").score_of(maps, inside) == 49.5
    assert AnomalyMap(score="max").score_of(maps, inside) == 99
    assert AnomalyMap(score="top", share=0.02).score_of(maps, inside) == 98.5
    # Never fewer than one pixel.
    assert AnomalyMap(score="top", share=1e-6).score_of(maps, inside) == 99
    inside[0, 5:] = False
    assert AnomalyMap(score="max").score_of(maps, inside) == 49  # what lies outside does not count
    assert AnomalyMap().score_of(maps, torch.zeros_like(inside)) == 0.0


def test_its_words_name_every_step():
    words = AnomalyMap(kind="positive", smooth=1, smooth_after=2, median=3, erode=1).describe()
    assert (
        words
        == "positive residual, signed residual smoothed by sigma 1 px, map smoothed by sigma 2 px,"
        " median 3 px, foreground eroded by 1 px"
    )
    assert (
        AnomalyMap(standardise="level").describe()
        == "absolute residual, in healthy spreads by level"
    )
    assert AnomalyMap(standardise="level").describe("own map") == "own map"
    assert AnomalyMap().describe() == "absolute residual"


SIZE = 16


def healthy(count: int, seed: int = 0) -> torch.Tensor:
    """Images around the twin 0, whose left half varies ten times as much as the right one and is
    too bright by 0.1."""
    x = 0.02 * torch.randn(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    x[..., : SIZE // 2] = 10 * x[..., : SIZE // 2] + 0.1
    return x


def calibrated(restorer: Restorer, amap: AnomalyMap, count: int = 200) -> bool:
    inside = torch.ones(20, SIZE, SIZE, dtype=torch.bool)
    return restorer.calibrate(
        (
            Batch(healthy(20, seed), inside, None, Draw(0, list(range(20))))
            for seed in range(count // 20)
        ),
        amap,
    )


def mapped(restorer: Restorer, amap: AnomalyMap, images: torch.Tensor) -> torch.Tensor:
    inside = torch.ones(len(images), SIZE, SIZE, dtype=torch.bool)
    restoration = restore_planes(restorer, images, Draw(0, list(range(len(images)))), torch.float32)
    return read_map(restorer, amap, restoration, images, inside)[0]


def test_by_pixel_a_residual_counts_in_spreads_of_healthy_residuals_at_its_place():
    amap, restorer = AnomalyMap(standardise="pixel"), HealthyMean(size=SIZE, channels=1)
    lesion = torch.zeros(1, 1, SIZE, SIZE)
    lesion[..., 4:8, :] = 0.3
    before = mapped(restorer, amap, lesion)
    # Nothing has been learnt yet.
    assert torch.equal(before, mapped(restorer, AnomalyMap(), lesion))
    assert calibrated(restorer, amap) and restorer.calibration_planes == 200
    after = mapped(restorer, amap, lesion)[0]
    # Loud on the left: the same 0.3 means less.
    assert after[5, SIZE // 2 :].min() > 2 * after[5, : SIZE // 2].max()
    others = mapped(restorer, amap, healthy(64, seed=99))
    root_mean_square = others.square().mean((0, 1)).sqrt()
    assert (root_mean_square[: SIZE // 2] > 0.6).all() and (root_mean_square < 1.3).all()
    assert (restorer.residual_mean[..., : SIZE // 2].mean() - 0.1).abs() < 0.02


def test_by_level_the_map_only_changes_its_unit():
    amap, restorer = AnomalyMap(standardise="level", smooth=1.0), HealthyMean(size=SIZE, channels=1)
    assert calibrated(restorer, amap)
    x = healthy(64, seed=99)
    unit = restorer.residual_spread[0, 0, 0]
    torch.testing.assert_close(
        mapped(restorer, amap, x), mapped(restorer, AnomalyMap(smooth=1.0), x) / unit
    )
    assert 0.9 < mapped(restorer, amap, x).square().mean().sqrt() < 1.1


def test_only_residual_maps_are_standardised():
    amap, control = AnomalyMap(standardise="pixel"), Intensity(size=SIZE, channels=1)
    assert not calibrated(control, amap) and control.calibration_planes == 0
    x = healthy(2)
    assert torch.equal(mapped(control, amap, x), mapped(control, AnomalyMap(), x))
    assert not calibrated(HealthyMean(size=SIZE, channels=1), AnomalyMap())  # not asked for
    assert not calibrated(Identity(size=SIZE, channels=1), amap, count=0)  # nothing seen


def test_an_existing_run_is_standardised_by_resuming_it(tiny_run, pictures, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    with pytest.raises(Fault, match="resume"):
        Detector(Run.open(tmp_path / "run"), device="cpu", settings=["map.standardise=pixel"])
    run = resume(tmp_path / "run", data=pictures, settings=["map.standardise=pixel"], device="cpu")
    before, after = (
        Run.open(folder).read_json("threshold.json") for folder in (tiny_run, run.folder)
    )
    assert before["value"] < 0.8 < after["value"]  # in spreads, of each pixel about its own mean
    assert after["n_patients"] == 4  # those it has not learnt from
    detector = Detector(run, device="cpu")
    assert detector.restorer.calibration_planes == 4
    assert "in healthy spreads by pixel" in detector.made()["postprocessing"]
    assert detector(sorted((pictures / "test" / "bad").iterdir())[0]).map.max() > after["value"]
    with pytest.raises(Fault, match=r"smooth = 2"):
        Detector(run, device="cpu", settings=["map.smooth=2"])
    Detector(run, device="cpu", settings=["map.standardise=none", "map.smooth=2"])
    again = resume(run.folder, data=pictures, settings=["map.standardise=none"], device="cpu")
    assert again.read_json("threshold.json")["value"] == before["value"]


@pytest.mark.gpu
@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_the_filter_of_cuda_is_that_of_the_cpu(sigma):
    images = torch.rand(2, 3, 12, 17, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        smooth(on_gpu(images), sigma).cpu().as_subclass(torch.Tensor), smooth(images, sigma)
    )
