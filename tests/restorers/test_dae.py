"""The denoising autoencoder: noise that is coarse, of unit spread, nowhere at home, and only where
there is tissue."""

from __future__ import annotations

import torch

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.restorers.autoencoder import Autoencoder
from pseudohealthy.restorers.base import Batch


def dae(**settings) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(
        size=64, channels=2, kind="dae", network={"width": 8, "levels": 2}, **settings
    )


def test_coarse_noise_is_smooth_on_its_grid_and_its_grid_lies_elsewhere_for_every_item():
    model, x = dae(coarse=8), torch.zeros(200, 2, 64, 64)
    noise = model.coarse_noise(x, Draw(0, range(200)))
    assert noise.shape == x.shape and abs(noise.mean()) < 0.02
    step = (noise[..., 1:] - noise[..., :-1]).abs().mean()
    far = (noise[..., 16:] - noise[..., :-16]).abs().mean()
    assert step < 0.2 * far
    # Bilinear values vary most on the grid's points: were the grid fixed, so would be where the
    # spread is largest
    spread = noise.std((0, 1))
    assert spread.min() > 0.7 * spread.max(), "a fixed grid has .5"
    again = model.coarse_noise(x[:1], Draw(0, [7]))
    assert torch.equal(again[0], noise[7]), "an item's noise is its own, whatever the batch"


def test_training_removes_the_noise_and_leaves_the_background_alone(monkeypatch):
    model = dae(corruption=0.5, coarse=8)
    images, inside = torch.zeros(4, 2, 64, 64), torch.zeros(4, 64, 64, dtype=torch.bool)
    inside[:, 16:48, 16:48] = True
    seen = {}
    forward = model.network.forward
    monkeypatch.setattr(
        model.network, "forward", lambda x, draw: seen.update(x=x) or forward(x, draw)
    )
    loss = model.loss(Batch(images, inside, None, Draw(0, range(4))), "network")
    assert loss.shape == (4,) and (loss > 0).all()
    changed = seen["x"] - images
    assert changed[:, :, ~inside[0]].abs().max() == 0
    assert 0.2 < changed[:, :, inside[0]].std() < 0.5
