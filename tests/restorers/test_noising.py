"""The tables that methods of partial diffusion share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudohealthy.diffusion.losses import weight
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import Fault
from pseudohealthy.restorers import restorer_class
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.noising import Diffusion, OneStep, Walk

TINY = {"width": 8, "multipliers": (1, 2), "blocks": 1, "block": {"groups": 4}}


def test_the_range_of_beta_can_be_set():
    table = Diffusion(betas=(2e-4, 0.01)).denoiser(nn.Identity()).schedule
    torch.testing.assert_close(
        table.beta[[1, 1000]], torch.tensor([2e-4, 0.01], dtype=torch.float64)
    )


@pytest.mark.parametrize("betas, schedule", [((0.02, 1e-4), "linear"), ((1e-4, 0.01), "cosine")])
def test_a_range_of_beta_that_means_nothing_is_refused_by_its_name(betas, schedule):
    with pytest.raises(Fault, match=r"Ddpm\.diffusion\.betas = "):
        Ddpm(size=16, channels=1, network=TINY, diffusion={"betas": betas, "schedule": schedule})


@pytest.mark.parametrize("target", ["noise", "clean", "velocity"])
@pytest.mark.parametrize(
    "weighting, of_clean",
    [("min-snr", lambda snr: min(snr, 5.0)), ("p2", lambda snr: snr / (1 + snr))],
)
def test_a_weight_is_the_papers_in_the_error_of_the_clean_image(target, weighting, of_clean):
    """An error of the clean image, told as one of noise or velocity, counts the same."""
    table = Schedule("linear", 1000)
    for t in (1, 200, 600, 1000):
        a, s = float(table.signal[t]), float(table.sigma[t])
        # Of the target, for an error of 1 in x0.
        error = {"clean": 1.0, "noise": a / s, "velocity": 1 / s}[target]
        found = weight(
            table, torch.tensor([t]), target, weighting, torch.ones(1, dtype=torch.float64)
        )
        assert float(found) * error**2 == pytest.approx(of_clean(a**2 / s**2), rel=1e-6)


def test_the_weighting_reaches_the_loss():
    images = torch.rand(4, 1, 16, 16) * 2 - 1
    batch = lambda: Batch(images, images[:, 0] > -2, None, Draw(0, [0, 1, 2, 3]))  # noqa: E731 (a fresh draw each time)
    found = {}
    for weighting in ("none", "min-snr", "p2"):
        torch.manual_seed(0)
        model = Ddpm(size=16, channels=1, network=TINY, diffusion={"weighting": weighting})
        found[weighting] = model.loss(batch(), "denoiser")
    t = Draw(0, [0, 1, 2, 3]).integers(1, 1001)
    for weighting in ("min-snr", "p2"):
        expected = weight(model.denoiser.schedule, t, "noise", weighting, images.new_ones(4))
        torch.testing.assert_close(found[weighting] / found["none"], expected)


def test_second_order_is_for_steps_without_noise():
    with pytest.raises(ValueError, match="order = 2 with eta 1"):
        Walk(order=2)
    assert Walk(order=2, eta=0.0, calls=4).levels(8) == [8, 6, 4, 2, 0]


def test_a_method_of_one_start_refuses_several():
    assert OneStep(start_levels=(7,)).start() == 7
    with pytest.raises(Fault, match=r"walk\.start_levels = \[7, 9\]; give one level"):
        OneStep(start_levels=(7, 9)).start()


def test_a_start_above_what_was_trained_is_refused_by_the_setting_that_says_so():
    for diffusion, named in (
        ({"levels": 100}, "levels = 100"),
        ({"max_level": 50}, "max_level = 50"),
    ):
        with pytest.raises(
            Fault, match=rf"walk\.start_levels = 200 lies above restorer\.diffusion\.{named}"
        ):
            Ddpm(size=16, channels=1, network=TINY, diffusion=diffusion, walk={"start_levels": 200})


@pytest.mark.parametrize(
    "method, given",
    [
        ("guided", {"diffusion": {"target": "clean"}}),
        ("guided", {"diffusion": Diffusion(target="clean")}),
        ("guided", {"walk": Walk(start_levels=(500,), draws=2, eta=0.0)}),
        ("latent", {"walk": {"clip": False}}),
        ("thor", {"walk": {"draws": 3}}),
        ("ddim", {"walk": {"eta": 0.5}}),
    ],
)
def test_what_a_method_decides_itself_is_refused_from_python_too(method, given):
    with pytest.raises(Fault, match=r"is unknown|has no such setting here; leave it out"):
        restorer_class(method)(size=16, channels=1, **given)
