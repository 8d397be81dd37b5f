"""Autoencoders: what goes through the bottleneck, and what the divergence is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import Fault
from pseudohealthy.networks.autoencoder import ConvAutoencoder

X = torch.rand(3, 2, 16, 16) * 2 - 1


def build(**settings):
    torch.manual_seed(0)
    return ConvAutoencoder(channels=2, size=16, width=8, **settings)


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize(
    "settings", [{"kind": "ae"}, {"kind": "ae", "latent": 0}, {"kind": "vae"}, {"kind": "dae"}]
)
def test_the_reconstruction_has_the_image_s_shape_and_only_a_vae_a_divergence(settings, stem):
    reconstruction, divergence = build(**settings, levels=3, stem=stem)(X)
    assert reconstruction.shape == X.shape
    assert (divergence is not None) == (settings["kind"] == "vae")


def test_divergence_is_that_of_two_gaussians():
    network = build(kind="vae", latent=5)
    with torch.no_grad():
        network.code.weight.zero_()
        network.code.bias.copy_(torch.cat([torch.full((5,), 0.7), torch.full((5,), -1.2)]))
    posterior = torch.distributions.Normal(0.7, torch.tensor(-1.2).mul(0.5).exp())
    expected = 5 * torch.distributions.kl_divergence(
        posterior, torch.distributions.Normal(0.0, 1.0)
    )
    assert torch.allclose(network(X)[1], expected.expand(3))


def test_a_vae_samples_with_a_draw_and_is_deterministic_without():
    network = build(kind="vae", latent=5)
    plain = network(X)[0]
    assert torch.equal(plain, network(X)[0])
    sampled = network(X, Draw(0, range(3)))[0]
    assert not torch.allclose(plain, sampled)
    assert torch.equal(sampled, network(X, Draw(0, range(3)))[0])


def test_only_the_code_passes_the_bottleneck():
    network = build(kind="ae", latent=1)
    assert not torch.allclose(network(X)[0][0], network(X)[0][1])
    with torch.no_grad():
        network.code.weight.zero_()
    reconstruction = network(X)[0]
    # Nothing of the image reaches the output.
    assert torch.allclose(reconstruction[0], reconstruction[1])


@pytest.mark.parametrize("kind", ["ae", "dae"])
def test_it_learns(kind):
    network = build(kind=kind, latent=16)
    smooth = F.interpolate(X[..., :2, :2], size=16, mode="bilinear")
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    errors = []
    for _ in range(40):
        error = (network(smooth)[0] - smooth).square().mean()
        optimiser.zero_grad()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    assert errors[-1] < 0.6 * errors[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gan"}, "gan"),
        ({"width": 12}, "multiple of 8"),
        ({"size": 20}, "8 divides"),
        ({"kind": "vae", "latent": 0}, "latent > 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises((ValueError, Fault), match=message):
        ConvAutoencoder(**settings)
