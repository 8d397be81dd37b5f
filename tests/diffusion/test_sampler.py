"""The sampler against closed forms: the exact denoiser of Gaussian data, mean 0.3, variance
0.25."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from pseudohealthy.diffusion.denoiser import Estimate
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import ancestral, ddim, sample, second_order, walk
from pseudohealthy.diffusion.schedule import Schedule

MEAN, VARIANCE = 0.3, 0.25
LINEAR = Schedule("linear", 1000)


def exact(x, t):
    """E[x0 | x_t] of Gaussian data; the noise follows."""
    a, s = LINEAR.at(t, x)
    clean = MEAN + a * VARIANCE * (x - a * MEAN) / (a**2 * VARIANCE + s**2)
    return Estimate(clean, torch.where(s > 0, (x - a * clean) / s.clamp(min=1e-12), 0.0))


def run(x, levels, **settings):
    return sample(exact, x, levels, schedule=LINEAR, clip=False, **settings)


def data(size=150, seed=0):
    return MEAN + VARIANCE**0.5 * torch.randn(
        1, 1, size, size, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_sampling_all_levels_gives_the_data_distribution(eta):
    x = run(
        (data(200) - MEAN) / VARIANCE**0.5, walk(1000, 0, 1000), step=ancestral(Draw(1, ["x"]), eta)
    )
    assert x.mean().item() == pytest.approx(MEAN, abs=1e-2)
    assert x.var().item() == pytest.approx(VARIANCE, abs=1e-2)


def test_deterministic_encoding_and_decoding_give_the_image_back():
    x = data(64)
    back = run(run(x, walk(0, 500, 500)), walk(500, 0, 500))
    assert (back - x).abs().mean() < 1e-2


@pytest.mark.parametrize(
    ("steps", "without", "noisy"),
    [(10, 0.219, 0.189), (25, 0.235, 0.218), (50, 0.245, 0.233), (250, 0.248, 0.245)],
)
def test_skipping_levels_shrinks_contrast_by_the_known_amount_and_second_order_does_not(
    steps, without, noisy
):
    a, s = LINEAR.at(250, torch.zeros(1, 1, 1, 1))
    x = a * data(400) + s * torch.randn(1, 1, 400, 400, generator=torch.Generator().manual_seed(5))
    levels = walk(250, 0, steps)
    assert run(x, levels).var().item() == pytest.approx(without, abs=4e-3)
    assert run(x, levels, step=ancestral(Draw(2, ["x"]))).var().item() == pytest.approx(
        noisy, abs=4e-3
    )
    assert run(x, levels, step=second_order()).var().item() == pytest.approx(0.25, abs=4e-3)


@pytest.mark.parametrize("variance", ["posterior", "large", "learned"])
def test_eta_one_is_the_textbook_ancestral_step(variance):
    t = 400
    x, z, v = (
        torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    clean = exact(x, t).clean

    def denoise(x, now):
        estimate = exact(x, now)
        return Estimate(estimate.clean, estimate.noise, v)

    step = ancestral(lambda like: z, variance=variance)
    got = sample(denoise, x, [t, t - 1], step=step, clip=False, schedule=LINEAR)
    # Ho et al. 2020, equations 6 and 7; Nichol & Dhariwal 2021, equation 15
    beta, bar, before = (
        float(q) for q in (LINEAR.beta[t], LINEAR.alpha_bar[t], LINEAR.alpha_bar[t - 1])
    )
    mean = before**0.5 * beta / (1 - bar) * clean + (1 - beta) ** 0.5 * (1 - before) / (1 - bar) * x
    small = beta * (1 - before) / (1 - bar)
    share = (v + 1) / 2
    log_variance = {
        "posterior": torch.tensor(small).log(),
        "large": torch.tensor(beta).log(),
        "learned": share * torch.tensor(beta).log() + (1 - share) * torch.tensor(small).log(),
    }[variance]
    assert torch.allclose(got, mean + (0.5 * log_variance).exp() * z, atol=1e-5)


def test_no_noise_is_added_on_the_last_step_or_upwards():
    def forbidden(like):
        raise AssertionError("noise was drawn")

    x = data(8)
    sample(exact, x, [1, 0], step=ancestral(forbidden), schedule=LINEAR)
    sample(exact, x, walk(0, 100, 5), step=ancestral(forbidden), schedule=LINEAR)


def test_clipping_bounds_the_clean_estimate_and_the_noise_follows():
    x, seen = torch.full((1, 1, 2, 2), 3.0), []

    def edit(clean, noise, state, now):
        seen.append((clean, noise, state, now))
        return clean, noise

    out = sample(exact, x, [100, 50, 0], edit=edit, schedule=LINEAR)
    assert out.max() <= 1
    for clean, noise, state, now in seen:
        a, s = LINEAR.at(now, state)
        assert clean.abs().max() <= 1 and torch.allclose(a * clean + s * noise, state, atol=1e-6)


def test_an_edit_may_replace_the_estimate():
    target = torch.full((1, 1, 2, 2), -0.5)
    out = sample(exact, data(2), [100, 50, 0], edit=lambda c, n, x, t: (target, n), schedule=LINEAR)
    assert torch.allclose(out, target)


def test_the_condition_reaches_the_denoiser_and_the_callback_sees_every_level():
    labels, levels = [], []

    def denoise(x, t, label):
        labels.append(label)
        return exact(x, t)

    sample(
        denoise,
        data(2),
        [20, 10, 0],
        schedule=LINEAR,
        callback=lambda now, x, c: levels.append(now),
        label=1,
    )
    assert labels == [1, 1] and levels == [20, 10]


def test_a_variance_that_the_network_has_not_learned_is_named():
    for variance, wrong in (
        ("learned", "no learned variance"),
        ("small", "unknown variance 'small'"),
    ):
        with pytest.raises(ValueError, match=wrong):
            sample(
                exact,
                data(2),
                [20, 10],
                step=ancestral(torch.randn_like, variance=variance),
                schedule=LINEAR,
            )


@pytest.mark.parametrize(
    ("start", "stop", "steps"), [(250, 0, 10), (0, 999, 7), (1000, 0, 1000), (5, 0, 50), (0, 3, 2)]
)
def test_a_walk_is_even_monotone_and_holds_both_ends(start, stop, steps):
    levels = walk(start, stop, steps)
    gaps = [b - a for a, b in pairwise(levels)]
    assert levels[0] == start and levels[-1] == stop
    assert len(gaps) == min(steps, abs(stop - start)) and all(g * (stop - start) > 0 for g in gaps)
    assert max(gaps) - min(gaps) <= 1
    with pytest.raises(ValueError, match="step"):
        walk(start, stop, 0)


def on_the_way(x, p, q):
    """Where the exact probability-flow ODE takes states of Gaussian data from level p to q."""
    (a, s), (b, r) = ((float(LINEAR.signal[t]), float(LINEAR.sigma[t])) for t in (p, q))
    return b * MEAN + ((b**2 * VARIANCE + r**2) / (a**2 * VARIANCE + s**2)) ** 0.5 * (x - a * MEAN)


@pytest.mark.parametrize(("start", "stop"), [(20, 500), (500, 20)], ids=["upwards", "downwards"])
def test_the_error_of_skipped_levels_falls_with_the_order(start, stop):
    x = on_the_way(torch.linspace(-1, 1, 101, dtype=torch.float64)[None, None, None], 0, start)

    def error(steps, order):
        step = second_order() if order == 2 else ddim
        return (
            (run(x, walk(start, stop, steps), step=step) - on_the_way(x, start, stop))
            .abs()
            .max()
            .item()
        )

    for order, falls in ((1, 2.0), (2, 4.0)):
        assert error(20, order) / error(40, order) == pytest.approx(falls, rel=0.15)
        assert error(40, order) / error(80, order) == pytest.approx(falls, rel=0.15)
    assert error(20, 2) < error(40, 1), (
        "twenty steps of second order are better than forty of first"
    )


def test_encoding_and_decoding_an_image_with_few_steps_of_second_order():
    x = data(32)
    errors = []
    for made in (lambda: ddim, second_order):
        latent = run(x, walk(0, 250, 20), step=made())
        errors.append((run(latent, walk(250, 0, 20), step=made()) - x).abs().mean())
    assert errors[1] < errors[0] / 10
