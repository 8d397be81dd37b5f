"""Latent diffusion: noise on the code, and a twin that does not take the autoencoder's blur for
disease."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.restorers.base import Batch
from pseudohealthy.restorers.latent import Latent
from small import merged

SIZE = 16
NETWORK = {
    "width": 16,
    "multipliers": (1, 2),
    "blocks": 1,
    "block": {"scale_shift": True, "groups": 4},
}


class Knowing(nn.Module):
    """A network that knows the clean code: the noise is all the rest."""

    def __init__(self, schedule, code: Tensor):
        super().__init__()
        self.schedule, self.code = schedule, code

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a, s = self.schedule.at(t + 1, x)
        return (x - a * self.code.repeat_interleave(len(x) // len(self.code), 0)) / s


def latent(**settings) -> Latent:
    torch.manual_seed(0)
    settings = merged(
        {"walk": {"start_levels": (100, 200), "calls": 5, "eta": 0.0, "draws": 2}}, settings
    )
    restorer = Latent(
        size=SIZE, channels=1, network=NETWORK, autoencoder={"width": 8, "levels": 3}, **settings
    )
    restorer.code_mean.fill_(0.3)
    restorer.code_square.fill_(0.25)
    return restorer.eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 1.6 - 0.8


def codes(restorer: Latent, x: Tensor) -> Tensor:
    return restorer.autoencoder.encoded(x)[0]


@torch.no_grad()
def restore(restorer: Latent, x: Tensor) -> Tensor:
    return restorer.restore(x, Draw(0, list(range(len(x))))).healthy


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"walk": {"eta": 1.0, "calls": 0, "start_levels": (30,)}},
        {"walk": {"calls": 1}},
        {"kind": "ae"},
    ],
)
def test_with_a_perfect_denoiser_the_twin_is_the_image_itself_however_blurred_the_autoencoder(
    settings,
):
    restorer, x = latent(**settings), images()
    restorer.denoiser.network = Knowing(
        restorer.denoiser.schedule, restorer.standard(codes(restorer, x)).detach()
    )
    torch.testing.assert_close(restore(restorer, x), x, rtol=0, atol=1e-4)
    restorer.against = "image"
    blurred = restorer.autoencoder(x)[0].detach().clamp(-1, 1)
    assert (blurred - x).abs().mean() > 0.1  # untrained: it hardly knows the image
    torch.testing.assert_close(restore(restorer, x), blurred, rtol=0, atol=1e-4)


def test_what_the_restored_code_lacks_is_the_residual():
    restorer, x = latent(), images(1)
    sick = x.clone()
    sick[..., 4:12, 4:12] = 0.8
    with torch.no_grad():
        restorer.denoiser.network = Knowing(
            restorer.denoiser.schedule, restorer.standard(codes(restorer, x))
        )
        expected = sick + restorer.autoencoder(x)[0] - restorer.autoencoder(sick)[0]
    torch.testing.assert_close(restore(restorer, sick), expected.clamp(-1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("levels", "side"), [(3, 4), (4, 2)])
def test_the_code_is_spatial_and_small(levels, side):
    restorer = Latent(
        size=SIZE, channels=3, code=5, network=NETWORK, autoencoder={"width": 8, "levels": levels}
    )
    code = codes(restorer, torch.zeros(2, 3, SIZE, SIZE))
    assert code.shape == (2, 5, side, side)
    assert restorer.autoencoder.decoded(code).shape == (2, 3, SIZE, SIZE)


def test_training_learns_the_scale_of_the_code_and_validation_does_not():
    restorer = latent()
    batch = Batch(
        images(8), torch.ones(8, SIZE, SIZE, dtype=torch.bool), None, Draw(0, list(range(8)))
    )
    before = restorer.code_mean.clone()
    restorer.loss(batch, "denoiser")
    assert torch.equal(restorer.code_mean, before) and restorer.code_batches == 0
    restorer.train()
    for _ in range(3):
        restorer.loss(batch, "denoiser")
    standard = restorer.standard(codes(restorer, batch.images))
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(standard.std((0, 2, 3)), torch.ones(4), rtol=0, atol=0.01)


def test_the_denoiser_does_not_teach_the_encoder_nor_the_other_way_round():
    restorer = latent().train()
    batch = Batch(images(2), torch.ones(2, SIZE, SIZE, dtype=torch.bool), None, Draw(0, [0, 1]))
    for part, other in (("denoiser", "autoencoder"), ("autoencoder", "denoiser")):
        restorer.zero_grad(set_to_none=True)
        restorer.loss(batch, part).mean().backward()
        assert all(p.grad is None for p in restorer.get_submodule(other).parameters())
        assert any(p.grad is not None for p in restorer.get_submodule(part).parameters())


def test_a_divergence_pulls_the_code_to_a_standard_normal():
    batch = Batch(images(2), torch.ones(2, SIZE, SIZE, dtype=torch.bool), None, Draw(0, [0, 1]))
    free, pulled = (latent(beta=beta).loss(batch, "autoencoder") for beta in (0.0, 0.1))
    assert (pulled > free).all()
    plain = latent(kind="ae").autoencoder(batch.images)
    assert plain[1] is None


def test_statistics_of_codes_are_the_mean_over_processes(monkeypatch):
    """Four processes with the same batch know what one of them knows."""
    from pseudohealthy.restorers.latent import dist

    alone, together = latent(), latent()
    code = codes(alone, images(4)).detach()
    alone.follow(code)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda found: found.mul_(4))
    together.follow(code)
    torch.testing.assert_close(together.code_mean, alone.code_mean)
    torch.testing.assert_close(together.code_square, alone.code_square)
