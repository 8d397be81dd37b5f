"""A denoiser means the same thing whatever its network was trained on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.schedule import Schedule

SCHEDULE = Schedule("linear", 1000)


class Oracle(nn.Module):
    """Answers with a fixed tensor and remembers the steps it was asked about."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x, t, **condition):
        self.asked, self.condition = t, condition
        return self.answer


@pytest.mark.parametrize("target", ["noise", "clean", "velocity"])
@pytest.mark.parametrize("t", [1, 250, 900, torch.tensor([1, 700])])
def test_a_perfect_network_gives_back_image_and_noise(target, t):
    clean, noise = torch.rand(2, 1, 4, 4) * 2 - 1, torch.randn(2, 1, 4, 4)
    denoiser = Denoiser(nn.Identity(), SCHEDULE, target=target)
    x = denoiser.noised(clean, noise, t)
    denoiser.network = Oracle(denoiser.target_of(clean, noise, t))
    estimate = denoiser(x, t)
    assert torch.allclose(estimate.clean, clean, atol=2e-4) and torch.allclose(
        estimate.noise, noise, atol=2e-4
    )
    assert estimate.spread is None


@pytest.mark.parametrize("target", ["noise", "clean", "velocity"])
def test_estimates_are_consistent_with_the_state(target):
    x, t = torch.randn(3, 2, 4, 4), torch.tensor([1, 400, 999])
    estimate = Denoiser(Oracle(torch.randn(3, 2, 4, 4)), SCHEDULE, target=target)(x, t)
    a, s = SCHEDULE.at(t, x)
    assert torch.allclose(a * estimate.clean + s * estimate.noise, x, atol=1e-4)


def test_the_network_sees_published_steps_and_the_condition():
    network = Oracle(torch.zeros(2, 1, 4, 4))
    Denoiser(network, SCHEDULE)(torch.zeros(2, 1, 4, 4), 500, label=1)
    assert network.asked.tolist() == [499, 499] and network.condition == {"label": 1}


def test_at_level_zero_the_image_is_its_own_clean_estimate():
    x = torch.rand(2, 1, 4, 4)
    network = Oracle(torch.randn(2, 1, 4, 4))
    estimate = Denoiser(network, SCHEDULE, target="clean")(x, 0)
    assert torch.equal(estimate.clean, x) and network.asked.tolist() == [0, 0]


def test_learned_variance_is_the_second_half_of_the_channels():
    answer = torch.randn(2, 4, 4, 4)
    estimate = Denoiser(Oracle(answer), SCHEDULE, learned_variance=True)(
        torch.zeros(2, 2, 4, 4), 10
    )
    assert torch.equal(estimate.noise, answer[:, :2]) and torch.equal(
        estimate.spread, answer[:, 2:]
    )


def test_half_precision_networks_give_full_precision_estimates():
    network = Oracle(torch.randn(1, 1, 4, 4).bfloat16())
    assert Denoiser(network, SCHEDULE)(torch.zeros(1, 1, 4, 4), 3).clean.dtype == torch.float32


def test_unknown_target_is_refused():
    with pytest.raises(ValueError, match="epsilon"):
        Denoiser(nn.Identity(), SCHEDULE, target="epsilon")
