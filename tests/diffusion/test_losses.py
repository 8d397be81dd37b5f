"""The hybrid loss: its two terms against their definitions, and who learns from which."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.losses import (
    divergence,
    grey_log_likelihood,
    hybrid,
    log_variance,
    variational_bound,
)
from pseudohealthy.diffusion.schedule import Schedule

LINEAR = Schedule("linear", 1000)


def test_divergence_is_that_of_normal_distributions():
    mean_p, log_p, mean_q, log_q = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mean_p, (log_p / 2).exp()), normal(mean_q, (log_q / 2).exp())
    )
    torch.testing.assert_close(divergence(mean_p, log_p, mean_q, log_q), expected)


def total_probability(levels, low):
    return (
        grey_log_likelihood(levels, torch.tensor(0.4), torch.tensor(math.log(0.05**2)), low=low)
        .exp()
        .sum()
        .item()
    )


@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_probabilities_of_all_grey_levels_sum_to_one(low):
    assert total_probability(torch.linspace(low, 1, 256), low) == pytest.approx(1, abs=1e-5)


def test_published_bins_count_unit_range_data_twice():
    """Bins as wide as for [-1, 1] overlap on data in [0, 1]: probabilities that sum to two."""
    assert total_probability(torch.linspace(0, 1, 256), -1.0) == pytest.approx(2, abs=1e-3)


def test_a_perfect_estimate_with_the_posterior_variance_costs_nothing_above_level_1():
    clean, noise = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    t = torch.tensor([2, 300, 1000])
    x = Denoiser(nn.Identity(), LINEAR).noised(clean, noise, t)
    bound = variational_bound(LINEAR, clean, x, t, clean, torch.full_like(x, -1))
    assert bound.abs().max() < 1e-4
    assert variational_bound(LINEAR, clean, x, t, clean + 0.3, torch.full_like(x, -1))[0] > 0.01


def test_learned_variance_runs_from_the_posterior_s_to_beta():
    small, large = LINEAR.posterior_log_variance[300], LINEAR.beta[300].log()
    assert log_variance(torch.tensor(-1.0), small, large) == small
    assert log_variance(torch.tensor(1.0), small, large) == large


class Answer(nn.Module):
    """Answers with its own parameter: estimate in the first channel, variance in the second."""

    def __init__(self):
        super().__init__()
        self.out = nn.Parameter(torch.zeros(1, 2, 4, 4))

    def forward(self, x, t):
        return self.out.expand(len(x), -1, -1, -1)


def test_the_bound_teaches_the_variance_only():
    network = Answer()
    denoiser = Denoiser(network, LINEAR, learned_variance=True)
    clean, noise = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    error, bound = hybrid(denoiser, clean, noise, torch.tensor([1, 400]))
    assert error.shape == bound.shape == (2,)
    torch.testing.assert_close(error, noise.square().flatten(1).mean(1))
    bound.sum().backward()
    assert network.out.grad[:, 0].abs().max() == 0 < network.out.grad[:, 1].abs().min()


def test_the_bound_weighs_less_in_a_short_schedule():
    clean, noise, t = torch.rand(1, 1, 4, 4), torch.randn(1, 1, 4, 4), torch.tensor([10])
    short = Schedule("linear", 100)
    denoiser = Denoiser(Answer(), short, learned_variance=True)
    x = denoiser.noised(clean, noise, t)
    plain = variational_bound(short, clean, x, t, denoiser(x, t).clean, torch.zeros_like(x))
    torch.testing.assert_close(hybrid(denoiser, clean, noise, t)[1], plain / 10)
