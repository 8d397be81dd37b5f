"""Mask, stitch, re-sample: only what is suspicious is painted anew."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.restorers.stitched import Stitched
from small import merged

TINY = {
    "width": 16,
    "multipliers": (1, 2),
    "blocks": 1,
    "block": {"scale_shift": True, "groups": 4},
}
SIZE, HEALTHY = 64, -0.4


class Exact(nn.Module):
    """Healthy images are constant: the noise is all the rest."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.calls = schedule, 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        a, s = self.schedule.at(t + 1, x)
        return (x - a * HEALTHY) / s


def stitched(**settings) -> Stitched:
    settings = merged(
        {
            "walk": {"start_levels": 20},
            "repaint": {"level": 6, "repeats": 2},
            "perceptual": {"trunk": "none"},
        },
        settings,
    )
    restorer = Stitched(size=SIZE, channels=1, network=TINY, **settings).eval()
    restorer.denoiser.network = Exact(restorer.denoiser.schedule)
    return restorer


def lesioned() -> Tensor:
    x = torch.full((2, 1, SIZE, SIZE), HEALTHY)
    x += 0.002 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x[0, :, 26:38, 26:38] = 0.7
    return x


@torch.no_grad()
def restore(restorer, x):
    return restorer.restore(x, Draw(0, list(range(len(x)))))


def test_the_lesion_is_painted_over_and_everything_else_is_the_image_itself():
    restorer, x = stitched(), lesioned()
    found = restore(restorer, x)
    mask = restorer.mask(restorer.suspicion(x, found.trail[0])).bool()
    assert mask[0, 0, 26:38, 26:38].all() and mask[0].float().mean() < 0.5
    assert torch.equal(found.healthy[~mask], x[~mask])  # bit for bit: nothing is lost to sampling
    assert (found.healthy[0, :, 26:38, 26:38] - HEALTHY).abs().max() < 0.05
    assert found.map[0, 26:38, 26:38].mean() > 20 * found.map[0, 54:, 54:].mean()
    assert found.map[0].max() > 5 * found.map[1].max()  # the image without a lesion


def test_without_a_threshold_each_image_gives_up_its_most_suspicious_twentieth():
    restorer, x = stitched(threshold=0.0, side=1), lesioned()
    mask = restorer.mask(restorer.suspicion(x, torch.full_like(x, HEALTHY)))
    assert (mask.flatten(1).mean(1) <= 0.055).all()


def test_every_call_is_counted():
    for settings in (
        {},
        {"repaint": {"calls": 3}, "walk": {"calls": 5, "eta": 0.0}},
        {"repaint": {"repeats": 1}},
    ):
        restorer = stitched(**settings)
        restore(restorer, lesioned())
        assert restorer.denoiser.network.calls == restorer.network_calls()


def test_the_report_names_the_distance():
    assert "stand-in for LPIPS" in stitched().describe()


def test_settings_that_cannot_work_are_refused():
    for settings in ({"side": 4}, {"repaint": {"repeats": 0}}, {"repaint": {"level": 0}}):
        with pytest.raises(Fault):
            stitched(**settings)
