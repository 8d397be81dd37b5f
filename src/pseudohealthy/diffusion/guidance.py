"""Classifier guidance as an edit of the sampler.

Dhariwal & Nichol 2021, algorithm 2; Wolleb et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .sampler import Edit
from .schedule import Schedule


def log_probability(classifier: nn.Module, label: int | Tensor) -> Callable[[Tensor, int], Tensor]:
    """A function (x, level) that gives log p(label | x) per item, (B,).

    Gradients reach the input only: the weights are detached, which halves the cost of guidance.

    Args:
        classifier: Of noisy images, called as (x, level - 1).
    """
    weights = {
        name: value.detach() for name, value in classifier.state_dict(keep_vars=True).items()
    }

    def score(x: Tensor, t: int) -> Tensor:
        indices = torch.full((len(x),), max(t - 1, 0), device=x.device)
        logits = functional_call(classifier, weights, (x, indices)).float()
        # A clone: a label from inference mode cannot take part in a gradient.
        labels = torch.as_tensor(label, device=x.device).expand(len(x)).clone()
        return logits.log_softmax(1).gather(1, labels[:, None])[:, 0]

    return score


def guide(log_p: Callable[[Tensor, int], Tensor], scale: float, schedule: Schedule) -> Edit:
    """An edit for `sample` that moves every estimate towards higher ``log_p(x, level)``.

    noise <- noise - scale * sigma * gradient; the clean estimate follows from x = signal * clean +
    sigma * noise. The level is the true one, also when the sampler skips levels. Nothing happens at
    level 0, which has no noise.

    Args:
        log_p: Per item, (B,).
        scale: Guidance scale.
    """

    def edit(clean: Tensor, noise: Tensor, x: Tensor, now: int) -> tuple[Tensor, Tensor]:
        if now == 0 or scale == 0:
            return clean, noise
        a, s = schedule.at(now, x)
        noise = noise - scale * s * input_gradient(log_p, x, now)
        return (x - s * noise) / a, noise

    return edit


def input_gradient(log_p: Callable[[Tensor, int], Tensor], x: Tensor, level: int) -> Tensor:
    """Gradient of ``log_p(x, level)`` by x (B, C, H, W), even under `no_grad` or inference mode."""
    with torch.inference_mode(False), torch.enable_grad():
        state = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(log_p(state, level).sum(), state)
    return gradient
