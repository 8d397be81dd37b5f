from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from pseudohealthy.maps import AnomalyMap, median, smooth


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Image, twin and full foreground; the residual is +0.5 in one square and -0.25 in another."""
    image = torch.zeros(2, 1, 16, 16)
    image[0, 0, 2:6, 2:6], image[0, 0, 9:13, 9:13] = 0.5, -0.25
    return image, torch.zeros_like(image), torch.ones(2, 16, 16, dtype=torch.bool)


@pytest.mark.parametrize(
    "kind, bright, dark",
    [("absolute", 0.5, 0.25), ("squared", 0.25, 0.0625), ("positive", 0.5, 0), ("negative", 0, 0.25)],
)
def test_the_kinds_of_residual(pair, kind, bright, dark):
    maps = AnomalyMap(kind=kind).residual_map(*pair)
    assert maps.shape == (2, 16, 16)
    assert maps[0, 3, 3] == bright and maps[0, 10, 10] == dark
    assert maps[0, 0].sum() == 0 and maps[1].sum() == 0


def test_channels_are_summed_not_averaged():
    image = torch.zeros(1, 3, 12, 12)
    image[:, :, 5, 5] = torch.tensor([0.1, -0.2, 0.4])
    maps = AnomalyMap().residual_map(image, torch.zeros_like(image), torch.ones(1, 12, 12, dtype=torch.bool))
    assert maps[0, 5, 5].item() == pytest.approx(0.7)


def test_smoothing_the_signed_residual_cancels_noise_that_its_magnitude_would_keep():
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    inside = torch.ones(1, 64, 64, dtype=torch.bool)
    signed = AnomalyMap(smooth=2.0).residual_map(noise, torch.zeros_like(noise), inside)
    after = AnomalyMap(smooth_after=2.0).residual_map(noise, torch.zeros_like(noise), inside)
    assert signed.mean() < 0.25 * after.mean()


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
def test_smooth_is_scipys_gaussian(sigma):
    x = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = ndimage.gaussian_filter(x.numpy(), (0, 0, sigma, sigma), mode="mirror", truncate=3.0)
    assert torch.allclose(smooth(x, sigma), torch.from_numpy(wanted), atol=1e-12)
    assert smooth(x, 0) is x


def test_smoothing_far_beyond_the_image_still_works():
    assert torch.isfinite(smooth(torch.rand(1, 1, 10, 10), 30.0)).all()


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
    assert AnomalyMap(erode=2).inside(torch.ones(1, 16, 16)).sum() == 12 * 12  # the image's edge is a rim, too
    assert AnomalyMap().inside(inside).sum() == inside.sum()


def test_scores():
    maps = torch.arange(100.0).reshape(1, 10, 10)
    inside = torch.ones(1, 10, 10, dtype=torch.bool)
    assert AnomalyMap(score="mean").score_of(maps, inside) == 49.5
    assert AnomalyMap(score="max").score_of(maps, inside) == 99
    assert AnomalyMap(score="top", share=0.02).score_of(maps, inside) == 98.5
    assert AnomalyMap(score="top", share=1e-6).score_of(maps, inside) == 99  # never fewer than one pixel
    inside[0, 5:] = False
    assert AnomalyMap(score="max").score_of(maps, inside) == 49  # what lies outside does not count
    assert AnomalyMap().score_of(maps, torch.zeros_like(inside)) == 0.0


def test_its_words_name_every_step():
    words = AnomalyMap(kind="positive", smooth=1, smooth_after=2, median=3, erode=1).describe()
    assert words == (
        "positive residual, signed residual smoothed by sigma 1 px, map smoothed by sigma 2 px, median 3 px, "
        "foreground eroded by 1 px"
    )
    assert AnomalyMap().describe() == "absolute residual"
