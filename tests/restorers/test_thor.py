"""THOR: what the paper's method does, and what the released code does instead."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.interop.thor import repair
from pseudohealthy.maps.morphology import (
    close,
    dilate,
    gaussian,
    harmonic_mean,
    peak_normalised,
    region,
)
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers import thor_published
from pseudohealthy.restorers.consensus import Consensus
from pseudohealthy.restorers.stitched import Stitched
from pseudohealthy.restorers.thor import Thor
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.train import train
from small import merged

TINY = {
    "width": 16,
    "multipliers": (1, 2),
    "blocks": 1,
    "block": {"scale_shift": True, "groups": 4},
}
HEALTHY = -0.4  # what the exact denoiser below believes every pixel of a healthy image to be


class Exact(nn.Module):
    """The network of someone who knows that healthy images are constant: the noise is all the
    rest."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.asked = schedule, []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(int(t[0]) + 1)
        a, s = self.schedule.at(t + 1, x)
        return (x - a * HEALTHY) / s


def thor(quirks="none", size=48, **settings) -> Thor:
    settings = merged({"walk": {"start_levels": 30}, "harmonise": {"levels": (20, 10)}}, settings)
    restorer = Thor(
        size=size, channels=1, network=TINY, perceptual={"trunk": "none"}, quirks=quirks, **settings
    ).eval()
    restorer.denoiser.network = Exact(restorer.denoiser.schedule)
    return restorer


def lesioned(count=1, size=48) -> Tensor:
    x = torch.full((count, 1, size, size), HEALTHY)
    x[:, :, 20:28, 20:28] = 0.8
    return x


def restore(restorer, x, keys=None):
    with torch.no_grad():
        return restorer.restore(x, Draw(0, keys or list(range(len(x)))))


def test_morphology_and_filter_are_those_of_scipy():
    maps = torch.rand(2, 1, 30, 44, generator=torch.Generator().manual_seed(0))
    for got, function in (
        (dilate(maps, 13), ndimage.grey_dilation),
        (close(maps, 13), ndimage.grey_closing),
    ):
        expected = np.stack(
            [function(m[0].numpy(), size=(13, 13), mode="nearest")[None] for m in maps]
        )
        assert np.array_equal(got.numpy(), expected)
    expected = np.stack([ndimage.gaussian_filter(m[0].numpy(), 2)[None] for m in maps])
    np.testing.assert_allclose(gaussian(maps, 2).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(
        gaussian(maps, 2, (0, 1, 2, 3)).numpy(), ndimage.gaussian_filter(maps.numpy(), 2), atol=1e-6
    )


def test_harmonic_mean_needs_every_map_to_agree():
    maps = torch.tensor([[0.2, 0.0, 1.0], [0.4, 1.0, 1.0]])
    torch.testing.assert_close(
        harmonic_mean(maps), torch.tensor([2 / (1 / 0.2 + 1 / 0.4), 0.0, 1.0])
    )


def test_operators_see_one_image_at_a_time():
    maps = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [1, 0.1, 0]
    ).view(3, 1, 1, 1)
    for operator in (lambda m: gaussian(m, 2), peak_normalised, lambda m: region(m, 13)):
        torch.testing.assert_close(operator(maps), torch.cat([operator(m[None]) for m in maps]))
    assert peak_normalised(maps).amax((1, 2, 3)).tolist() == pytest.approx([1, 1, 0], abs=1e-5)


def test_a_lesion_goes_and_the_rest_of_the_image_stays():
    x = lesioned()
    x[..., 40:, :] = HEALTHY + 0.05  # a trait of this image that no healthy model knows
    found = restore(thor(), x)
    assert (found.healthy[..., 20:28, 20:28] - HEALTHY).abs().max() < 0.1
    assert found.map.argmax() // 48 in range(18, 30)
    assert found.map[0, 20:28, 20:28].mean() > 20 * found.map[0, 42:, :].mean()


def test_the_blend_keeps_the_image_where_there_is_no_anomaly():
    x, restorer = lesioned(), thor()
    x[..., 44:, 44:] = HEALTHY - 0.02
    clean = torch.full_like(x, HEALTHY)
    blend = restorer.blend(x, clean, restorer.difference(x, clean))
    assert (blend[..., 20:28, 20:28] - HEALTHY).abs().max() < 1e-3
    torch.testing.assert_close(blend[..., 46:, 46:], x[..., 46:, 46:], rtol=0, atol=1e-3)


def test_a_harmonised_level_is_asked_about_again_and_the_published_code_does_not():
    x = lesioned()
    intended = thor()
    restore(intended, x)
    assert intended.denoiser.network.asked == [
        *range(30, 19, -1),
        *range(20, 9, -1),
        *range(10, 0, -1),
    ]
    published = thor("published")
    restore(published, x)
    # 0-based 30..0; blends skip their own level.
    assert published.denoiser.network.asked == list(range(31, 0, -1))
    for restorer in (intended, published):
        assert len(restorer.denoiser.network.asked) == restorer.network_calls()


def test_skipped_levels_never_skip_a_harmonisation():
    restorer = thor(walk={"calls": 4, "eta": 0.0})
    assert restorer.levels(30) == [30, 23, 20, 15, 10, 8, 0]
    restore(restorer, lesioned())
    assert (
        restorer.denoiser.network.asked.count(20) == restorer.denoiser.network.asked.count(10) == 2
    )


class Echo(nn.Module):
    """The network of someone who takes every state for an image without noise."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_dark_pixels_stay_dark_and_the_published_code_turns_them_grey():
    """Images live in [-1, 1]; the released code clips its blend at 0, which is mid-grey there."""
    dark = {}
    for quirks in ("none", "published"):
        restorer = thor(quirks, harmonise={"levels": (1,)})
        restorer.denoiser.network = Echo()
        dark[quirks] = restore(restorer, lesioned()).healthy[..., 40:, 40:].mean()
    assert dark["none"] == pytest.approx(HEALTHY, abs=0.03)
    assert dark["published"] > -0.1


def test_images_of_a_batch_are_alone_and_in_the_published_code_they_are_not():
    x = lesioned(2)
    x[1, :, 24:40, 24:40] = 0.2  # another lesion, over a corner of the first one's place
    clean = torch.full_like(x, HEALTHY)
    intended = thor()
    together, single = intended.difference(x, clean)[:1], intended.difference(x[:1], clean[:1])
    torch.testing.assert_close(together, single, rtol=0, atol=1e-6)
    published = thor("published")
    together = thor_published.difference(published, x, clean)[:1]
    single = thor_published.difference(published, x[:1], clean[:1])
    assert (together - single).abs().max() > 1e-3


def test_the_perceptual_distance_gets_images_in_its_range_and_the_published_code_scales_twice():
    class Spy(nn.Module):
        description = "spy"

        def forward(self, a, b):
            self.low = min(a.min().item(), b.min().item())
            return (a - b).abs().mean(1, keepdim=True)

    x = lesioned() - 0.5
    for quirks, low in (("none", -0.9), ("published", -2.8)):
        restorer = thor(quirks)
        restorer.perceptual = Spy()
        restore(restorer, x)
        assert restorer.perceptual.low == pytest.approx(low, abs=0.02)


def test_a_healthy_image_scores_low_and_in_the_published_code_every_image_peaks():
    """The released maps are divided by their own maximum: an image that is healthy but for noise
    looks as bad."""
    healthy = lesioned() * 0 + HEALTHY
    healthy += 0.02 * torch.randn(healthy.shape, generator=torch.Generator().manual_seed(0))
    ratio = {}
    for quirks in ("none", "published"):
        peak = [
            restore(
                thor(quirks, walk={"start_levels": 12}, harmonise={"levels": (10,)}), x
            ).map.max()
            for x in (healthy, lesioned())
        ]
        ratio[quirks] = float(peak[0] / peak[1])
    assert ratio["none"] < 0.05
    assert ratio["published"] > 0.5


def test_simplex_fields_belong_to_images_and_the_published_code_shares_one():
    x = lesioned(2)
    maps = {quirks: restore(real(quirks), x).map for quirks in ("none", "published")}
    assert not torch.equal(maps["none"][0], maps["none"][1])
    torch.testing.assert_close(maps["published"][0], maps["published"][1])


def real(quirks) -> Thor:
    """With a network that answers in earnest, so that the noise matters."""
    torch.manual_seed(0)
    restorer = Thor(
        size=48,
        channels=1,
        network=TINY,
        perceptual={"trunk": "none"},
        quirks=quirks,
        diffusion={"noise": "simplex"},
        walk={"start_levels": 6},
        harmonise={"levels": (3,)},
    ).eval()
    with torch.no_grad():
        for parameter in restorer.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(0, 0.05)
    return restorer


@pytest.mark.parametrize("method", [Thor, Stitched, Consensus])
def test_waves_can_be_matched_to_the_lesions_wherever_simplex_noise_can_be_chosen(method):
    waves = {"octaves": 2, "frequency": 16.0, "standardise": True}
    restorer = method(size=16, channels=1, network=TINY, diffusion={"noise": "simplex", **waves})
    draw = restorer.noisy(Draw(0, [0]))
    assert draw.kind == "simplex" and waves.items() <= draw.settings.items()


def test_the_report_names_the_distance():
    assert "stand-in for LPIPS" in thor().describe()
    assert "released code" in thor("published").describe()


def test_listed_levels_that_are_not_below_the_start_are_left_out():
    """So the start is swept with one list; at the paper's start the list is the paper's."""
    defaults = inspect.signature(Thor.__init__).parameters
    assert defaults["walk"].default.start_levels == (350,) and defaults[
        "harmonise"
    ].default.levels == (300, 150, 50)
    visited = {
        depth: thor(walk={"start_levels": depth}, harmonise={"levels": (50, 300, 150)}).harmonised
        for depth in (51, 100, 151, 300, 301, 350, 700)
    }
    assert visited == {
        51: (50,),
        100: (50,),
        151: (150, 50),
        300: (150, 50),
        301: (300, 150, 50),
        350: (300, 150, 50),
        700: (300, 150, 50),
    }
    swept = thor(walk={"start_levels": 15})
    restore(swept, lesioned())
    assert swept.denoiser.network.asked == [*range(15, 9, -1), *range(10, 0, -1)]
    assert len(swept.denoiser.network.asked) == swept.network_calls()
    assert "mean over levels 10" in swept.describe() and thor().describe().endswith(
        "mean over levels"
    )


def test_the_published_code_blends_where_its_walk_begins(monkeypatch):
    """Its loop looks a level up in the list whatever the start, so also at the first one, and never
    above."""
    noised = []
    monkeypatch.setattr(
        thor_published, "region", lambda maps, side: noised.append(1) or region(maps, side)
    )
    for depth, times in ((20, 2), (15, 1), (30, 2)):
        noised.clear()
        restore(thor("published", walk={"start_levels": depth}), lesioned())
        assert len(noised) == times


def test_settings_that_cannot_work_are_refused():
    for settings in (
        {"harmonise": {"levels": (30,)}},
        {"harmonise": {"levels": ()}},
        {"walk": {"start_levels": 10}},
        {"harmonise": {"levels": (20, 20)}},
        {"harmonise": {"side": 12}},
        {"quirks": "published", "walk": {"calls": 5}},
    ):
        with pytest.raises(Fault) as caught:
            thor(**settings)
        assert caught.value.code == "RECIPE"


def test_weights_that_answer_twice_the_noise_less_one_are_repaired():
    """The published brain trainer rescales the output before the loss; its sampler takes the output
    as it is."""
    net = UNet(**TINY).eval()
    noise = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.abs().max() == 0:
                parameter.normal_(0, 0.01)
        right = net(noise, 999)
        assert not repair(net, noise)
        net.out[2].weight.mul_(2)
        net.out[2].bias.mul_(2).sub_(1)
        assert repair(net, noise)
        torch.testing.assert_close(net(noise, 999), right)


def test_a_run_says_that_the_distance_was_a_stand_in(tiny, pictures, tmp_path):
    recipe = tiny()
    network = recipe.restorer["network"]
    recipe.restorer = {
        "name": "thor",
        "walk": {"start_levels": 30, "calls": 2, "eta": 0.0},
        "harmonise": {"levels": (20,)},
        "perceptual": {"trunk": "none"},
        "network": network,
    }
    run = train(recipe, pictures, tmp_path / "run", steps=1, device="cpu")
    result = evaluate(run, pictures, device="cpu", controls=False, limit=4)
    # Of twins, not of maps.
    words = [record.postprocessing for record in result.records if record.metric != "l1_ratio"]
    assert words and all("stand-in for LPIPS" in text for text in words)
    assert run.record["parameters"] == sum(
        p.numel() for p in run.restorer()[0].denoiser.parameters()
    )
