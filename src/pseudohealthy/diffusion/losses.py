"""Weights of the loss by noise level, and the hybrid loss of a denoiser with learned variance.

The hybrid loss is the squared error plus the variational bound: Nichol & Dhariwal 2021, "Improved
denoising diffusion probabilistic models", equations 4 to 7, 15 and 16; the likelihood of the last
step as in Ho et al. 2020, equation 13. This is what Wolleb et al. 2022 train with.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from .denoiser import Denoiser, Target
from .schedule import Schedule

Weighting = Literal["none", "min-snr", "p2"]

MIN_SNR = 5.0  # the paper's gamma
GREYS = 255  # steps between the ends of the data's range: 8-bit images


def weight(
    schedule: Schedule, t: Tensor, target: Target, weighting: Literal["min-snr", "p2"], like: Tensor
) -> Tensor:
    """Weight of the squared error of the target at noise levels t (B,) in 1..T.

    Both papers weight the error of the clean image by a function of snr = a^2 / s^2: min(snr, 5)
    ("min-snr", Hang et al., ICCV 2023, section 3.4) or snr / (1 + snr) = a^2 ("p2", Choi et al.,
    CVPR 2022, equation 8 with k = gamma = 1). An error of the noise is snr times one of the clean
    image, an error of the velocity 1 / s^2 times.

    Args:
        t: Of the items, (B,).
    """
    a, s = schedule.at(t, like)
    snr = a**2 / s**2
    clean = snr.clamp(max=MIN_SNR) if weighting == "min-snr" else a**2
    of_target = {"clean": torch.ones_like(snr), "noise": 1 / snr, "velocity": s**2}[target]
    return clean * of_target


def hybrid(
    denoiser: Denoiser,
    clean: Tensor,
    noise: Tensor,
    t: Tensor,
    *,
    low: float = -1.0,
    **condition: Any,
) -> tuple[Tensor, Tensor]:
    """Squared error of the noise and weighted variational bound, each (B,), whose sum is L_hybrid.

    Equation 16. The bound is in bits per dimension and teaches only the variance: the estimate is
    detached inside it. Its weight T/1000 is the paper's 0.001 on the sum over levels.

    Args:
        denoiser: With learned variance.
        clean, noise: (B, C, H, W), clean in [low, 1].
        t: Noise levels (B,) in 1..T.
    """
    x = denoiser.noised(clean, noise, t)
    estimate = denoiser(x, t, **condition)
    assert estimate.spread is not None, "the hybrid loss needs a denoiser with learned variance"
    error = (estimate.noise - noise).float().square().flatten(1).mean(1)
    guess, v = estimate.clean.detach().float(), estimate.spread.float()
    bound = variational_bound(denoiser.schedule, clean, x, t, guess, v, low=low)
    return error, bound * (denoiser.schedule.steps / 1000)


def variational_bound(
    schedule: Schedule,
    clean: Tensor,
    x: Tensor,
    t: Tensor,
    guess: Tensor,
    v: Tensor,
    *,
    low: float = -1.0,
) -> Tensor:
    """One term of the bound per item, (B,) in bits per dimension.

    Above level 1 the divergence KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), at level 1 the
    negative log-likelihood of the clean image.

    Args:
        clean: Images (B, C, H, W).
        x: Their states at noise levels t (B,).
        guess: Estimates of the clean images, not clipped.
        v: Raw variance channels.
    """

    def table(values: Tensor) -> Tensor:
        return schedule.gather(values, t, x)

    state = table(schedule.posterior_state) * x
    mean_true, mean = (table(schedule.posterior_clean) * image + state for image in (clean, guess))
    log_true = table(schedule.posterior_log_variance)
    log_model = log_variance(v, log_true, table(schedule.beta.log()))
    nats = torch.where(
        t.reshape(-1, 1, 1, 1) > 1,
        divergence(mean_true, log_true, mean, log_model),
        -grey_log_likelihood(clean, mean, log_model, low=low),
    )
    return nats.flatten(1).mean(1) / math.log(2)


def log_variance(v: Tensor, small: Tensor | float, large: Tensor | float) -> Tensor:
    """Logarithm of the learned variance (equation 15), `small` where v = -1 and `large` where v =
    1."""
    share = (v + 1) / 2
    return share * large + (1 - share) * small


def divergence(mean_p: Tensor, log_p: Tensor, mean_q: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) in nats by element, of normal distributions with these means and log variances."""
    distance = (mean_p - mean_q).square() * torch.exp(-log_q)
    return 0.5 * (log_q - log_p - 1 + torch.exp(log_p - log_q) + distance)


def grey_log_likelihood(x: Tensor, mean: Tensor, log_var: Tensor, *, low: float = -1.0) -> Tensor:
    """Log-probability in nats, by element, of the grey level of x under a normal distribution.

    Each of the 256 grey levels in [low, 1] has the interval around it, the outermost two also
    everything beyond them.
    """
    half = (1 - low) / 2 / GREYS
    inverse = torch.exp(-0.5 * log_var)
    upper, lower = (normal_cdf(inverse * (x - mean + side)) for side in (half, -half))
    rim = 0.255 * half  # published: 0.001 on [-1, 1]
    inner = torch.where(x > 1 - rim, 1 - lower, upper - lower)
    return torch.where(x < low + rim, upper, inner).clamp(min=1e-12).log()


def normal_cdf(x: Tensor) -> Tensor:
    """Distribution function of the standard normal, by tanh as in the published codes."""
    return 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
