"""The probe tells from its answers what a network was trained for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.interop.probe import head, probe
from pseudohealthy.networks.unet import UNet
from small import filled

LINEAR = Schedule("linear", 1000)


class Knowing(nn.Module):
    """A network that has learned one image by heart, in one range, and noise of at least one
    strength."""

    def __init__(self, unit=False, weakest=0.0, twice=False):
        super().__init__()
        image = head(1, 32)
        self.image, self.weakest, self.twice = image if unit else image * 2 - 1, weakest, twice

    def forward(self, x, t):
        a, s = LINEAR.at(t + 1, x)
        noise = (x - a * self.image) / s
        noise = noise if noise.std() > self.weakest else torch.zeros_like(x)
        return 2 * noise - 1 if self.twice else noise


@pytest.mark.parametrize(
    ("network", "answer", "data_range", "noise"),
    [
        (Knowing(), "noise", "signed", "undecided"),
        (Knowing(unit=True), "noise", "unit", "undecided"),
        (Knowing(weakest=0.9), "noise", "signed", "gaussian"),
        (Knowing(twice=True), "2 noise - 1", "undecided", "undecided"),
    ],
)
def test_the_probe_tells_what_a_network_was_trained_for(network, answer, data_range, noise):
    found = probe(Denoiser(network, LINEAR), 1, 32)
    assert (found.answer, found.data_range, found.noise) == (answer, data_range, noise)


def test_the_probe_is_undecided_about_untrained_weights():
    found = probe(Denoiser(filled(UNet(width=32, multipliers=(1, 2), blocks=1)), LINEAR), 1, 32)
    assert (found.data_range, found.noise) == ("undecided", "undecided")
