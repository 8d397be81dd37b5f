"""AnoDDPM: network and partial diffusion give the published implementation's numbers."""

from __future__ import annotations

import os

import pytest
import torch

from pseudohealthy.interop import anoddpm as interop
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.ddpm import Ddpm

heavy = () if os.environ.get("PSEUDOHEALTHY_PARITY") else pytest.mark.slow


@torch.no_grad()
def test_anoddpm_unet_forward(parity, network):
    case = parity("anoddpm_unet_forward")
    state, heads = case.weights(), case.info["unet"]["n_heads"]
    trained, _ = network(interop, state, heads=heads)
    published, _ = network(interop, state, heads=1)
    for run in case.runs:
        a = case.tensors(run)
        case.close(trained(a["x"], a["t"]), a["out"], "out")
        case.close(published(a["x"], a["t"]), a["out_1_head"], "out")
        assert (
            a["out"] - a["out_1_head"]
        ).abs().max() > 1e-3  # loads just as well, and answers something else


@torch.no_grad()
@pytest.mark.parametrize("name", [pytest.param("full_anoddpm_unet", marks=heavy)])
def test_full_anoddpm_unet(parity, name, network):
    case = parity(name)
    a = case.tensors()
    net, _ = network(interop, case.generated(), heads=case.info["network"]["n_heads"])
    assert sum(p.numel() for p in net.parameters()) == case.info["parameters"]
    out = net(case.enlarged(a["x_small"]), a["t"])
    case.close(case.thinned(out), a["out_sub"], "out_sub")


@torch.no_grad()
def test_anoddpm_partial_diffusion(parity, network, stored):
    case = parity("anoddpm_partial_diffusion")
    net, settings = network(interop, case.weights(), heads=case.info["unet"]["n_heads"])
    own = {k: v for k, v in settings.items() if k not in UNet.dictated}
    for run in case.runs:
        a = case.tensors(run["name"])
        noise = "simplex" if run["noise"] == "simplex" else "gaussian"
        restorer = Ddpm(
            size=a["x"].shape[-1],
            channels=1,
            network=own,
            diffusion={"noise": noise},
            walk={"start_levels": (run["lam"],), "variance": "large"},
            quirks="published",
        ).eval()
        restorer.denoiser.network.load_state_dict(net.state_dict())
        case.close(
            restorer.denoiser.noised(a["x"], a["noise_000"], run["lam"]), a["x_lambda"], "out"
        )
        healthy = restorer.restore(a["x"], stored(a)).healthy
        case.close(healthy, a["out"], "out")
        everywhere = torch.ones_like(a["x"][:, 0])
        maps = AnomalyMap(kind="squared").residual_map(a["x"], healthy, everywhere)
        torch.testing.assert_close(maps[:, None], a["map"], rtol=0, atol=1e-4)
        assert torch.equal(maps[:, None] > 0.5, a["mask"])
