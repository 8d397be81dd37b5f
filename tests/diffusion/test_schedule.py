"""Schedules: level 0 is clean, levels count from 1, tables are the published formulas."""

from __future__ import annotations

import math

import pytest
import torch

from pseudohealthy.diffusion.schedule import Schedule


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_level_zero_is_clean_and_variance_is_preserved(kind):
    schedule = Schedule(kind, 1000)
    assert len(schedule.signal) == len(schedule.sigma) == len(schedule.beta) == 1001
    assert (schedule.signal[0], schedule.sigma[0], schedule.beta[0]) == (1, 0, 0)
    assert torch.allclose(
        schedule.signal**2 + schedule.sigma**2, torch.ones(1001, dtype=torch.float64)
    )
    assert (schedule.sigma.diff() > 0).all()


def test_published_indices_are_one_below_levels():
    schedule = Schedule("linear", 1000)
    assert schedule.alpha_bar[Schedule.level(0)].item() == pytest.approx(0.9999, abs=1e-12)
    cosine = Schedule("cosine", 1000)
    # values of the published pDDPM tables at 0-based steps
    for index, value in {0: 0.999959, 249: 0.847012, 499: 0.493844, 749: 0.144272}.items():
        assert cosine.alpha_bar[Schedule.level(index)].item() == pytest.approx(value, abs=1e-6)


def test_cosine_follows_equation_17_where_beta_is_not_clipped():
    schedule, t = Schedule("cosine", 1000), 400
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in (0, t)]
    assert schedule.alpha_bar[t].item() == pytest.approx(f[1] / f[0], rel=1e-12)
    assert schedule.beta.max() == 0.999
    assert Schedule("cosine", 1000, floor=1e-4).beta[1:].min() == 1e-4


def test_short_linear_schedules_end_as_noisy_as_long_ones():
    short, long = Schedule("linear", 100), Schedule("linear", 1000)
    assert short.alpha_bar[-1] < 1e-4 and long.alpha_bar[-1] < 1e-4
    assert (Schedule("linear", 10).beta < 1).all()


def test_posterior_is_the_product_of_the_two_gaussians():
    schedule, t = Schedule("linear", 1000), 300
    # precision and mean of q(x_{t-1} | x_0) q(x_t | x_{t-1}) at x_0 = 0.7, x_t = -0.2
    prior, step = 1 - schedule.alpha_bar[t - 1], schedule.beta[t]
    precision = 1 / prior + (1 - step) / step
    mean = (schedule.signal[t - 1] * 0.7 / prior + (1 - step).sqrt() * -0.2 / step) / precision
    assert schedule.posterior_variance[t].item() == pytest.approx(1 / precision.item(), rel=1e-9)
    got = schedule.posterior_clean[t] * 0.7 + schedule.posterior_state[t] * -0.2
    assert got.item() == pytest.approx(mean.item(), rel=1e-9)


def test_levels_broadcast_per_item():
    schedule, x = Schedule("linear", 1000), torch.zeros(3, 2, 4, 4)
    signal, sigma = schedule.at(torch.tensor([0, 10, 1000]), x)
    assert signal.shape == sigma.shape == (3, 1, 1, 1) and signal.dtype == x.dtype
    assert sigma[0] == 0 and sigma[2] > 0.99
    assert schedule.at(10, x)[0].flatten()[0] == signal[1, 0, 0, 0]


@pytest.mark.parametrize(("kind", "steps"), [("quadratic", 10), ("linear", 0)])
def test_nonsense_is_refused(kind, steps):
    with pytest.raises(ValueError, match=r"schedule"):
        Schedule(kind, steps)
