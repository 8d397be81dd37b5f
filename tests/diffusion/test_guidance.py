"""Classifier guidance moves the sample by the amount the closed form says, and touches no
weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudohealthy.diffusion.denoiser import Estimate
from pseudohealthy.diffusion.guidance import guide, log_probability
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.diffusion.schedule import Schedule

LINEAR = Schedule("linear", 1000)
MEAN, VARIANCE = 0.3, 0.25


def exact(x, t):
    a, s = LINEAR.at(t, x)
    clean = MEAN + a * VARIANCE * (x - a * MEAN) / (a**2 * VARIANCE + s**2)
    return Estimate(clean, (x - a * clean) / s)


def test_one_guided_estimate_is_the_formula():
    x, t, scale = torch.randn(2, 1, 4, 4), 300, 5.0
    a, s = LINEAR.at(t, x)
    estimate = exact(x, t)
    slope = torch.randn(1, 1, 4, 4)
    clean, noise = guide(lambda x, t: (slope * x).flatten(1).sum(1), scale, LINEAR)(
        estimate.clean, estimate.noise, x, t
    )
    assert torch.allclose(noise, estimate.noise - scale * s * slope, atol=1e-5)
    assert torch.allclose(clean, estimate.clean + scale * s**2 / a * slope, atol=1e-5)


@pytest.mark.parametrize("steps", [1000, 250])
def test_guidance_moves_the_mean_to_that_of_the_conditional(steps):
    """With log p(y|x0) = w x0, data N(m, v) become N(m + w v, v); at level t, log p(y|x_t) has the
    slope below."""
    w = 0.8

    def log_p(x, t):
        a, s = LINEAR.at(t, x)
        return (w * a * VARIANCE / (a**2 * VARIANCE + s**2) * x).flatten(1).sum(1)

    x = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    settings = {"schedule": LINEAR, "clip": False}
    plain = sample(exact, x, walk(1000, 0, steps), **settings)
    guided = sample(exact, x, walk(1000, 0, steps), edit=guide(log_p, 1.0, LINEAR), **settings)
    assert (guided - plain).mean().item() == pytest.approx(w * VARIANCE, abs=1e-2)
    assert guided.var().item() == pytest.approx(VARIANCE, abs=2e-2)


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.asked = nn.Linear(16, 2), []

    def forward(self, x, t):
        self.asked.append(t.tolist())
        return self.head(x.flatten(1))


def test_the_classifier_sees_published_steps_of_the_true_level_when_levels_are_skipped():
    classifier = Recorder()
    edit = guide(log_probability(classifier, 0), 1.0, LINEAR)
    sample(exact, torch.randn(2, 1, 4, 4), [900, 500, 20, 0], edit=edit, schedule=LINEAR)
    assert classifier.asked == [[899, 899], [499, 499], [19, 19]]


def test_gradients_reach_the_input_only_and_training_goes_on_afterwards():
    classifier = Recorder()
    with torch.inference_mode():
        edit = guide(log_probability(classifier, torch.tensor([0, 1])), 1.0, LINEAR)
        sample(exact, torch.randn(2, 1, 4, 4), [500, 0], edit=edit, schedule=LINEAR)
    assert all(p.requires_grad and p.grad is None for p in classifier.parameters())
    with torch.no_grad():
        classifier.head.weight.add_(1.0)  # later updates of the weights are seen by the same edit
    x = torch.randn(2, 1, 4, 4)
    expected = classifier(x, torch.tensor([0, 0])).log_softmax(1)[[0, 1], [0, 1]]
    assert torch.allclose(log_probability(classifier, torch.tensor([0, 1]))(x, 1), expected)


def test_guidance_raises_the_probability_of_the_label():
    torch.manual_seed(0)
    classifier = Recorder()
    log_p = log_probability(classifier, 0)
    x = torch.randn(4, 1, 4, 4)
    plain, guided = (
        sample(exact, x, walk(500, 0, 10), edit=guide(log_p, scale, LINEAR), schedule=LINEAR)
        for scale in (0.0, 5.0)
    )
    assert (log_p(guided, 1) > log_p(plain, 1)).all()
