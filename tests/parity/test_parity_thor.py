"""THOR: network, map operators and the released inference loop give the published implementation's
numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pseudohealthy.interop import thor as interop
from pseudohealthy.maps.morphology import close, dilate, gaussian, harmonic_mean, peak_normalised
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers import thor_published
from pseudohealthy.restorers.thor import Thor


class Stub(torch.nn.Module):
    """The perceptual network of the reference vectors: mean squared difference in a 3 x 3 box."""

    description = "stub"

    def forward(self, a, b):
        return F.avg_pool2d((a - b).square().mean(1, keepdim=True), 3, 1, 1)


@torch.no_grad()
def test_thor_unet_forward(parity, network):
    case = parity("thor_unet_forward")
    state = case.weights()
    net, _ = network(interop, state, head_channels=case.info["unet"]["num_head_channels"])
    changed = {k: torch.randn_like(v.float()) if "proj_attn" in k else v for k, v in state.items()}
    other, _ = network(interop, changed, head_channels=case.info["unet"]["num_head_channels"])
    for run in case.runs:
        a = case.tensors(run["name"])
        case.close(net(a["x"], a["t"]), a["out"], "out")
        # The stored projection has no effect.
        assert torch.equal(other(a["x"], a["t"]), net(a["x"], a["t"]))


@torch.no_grad()
def test_full_thor_unet(parity, network):
    case = parity("full_thor_unet")
    a = case.tensors()
    state = case.generated()
    assert sum(v.numel() for v in state.values()) == case.info["parameters"]
    net, _ = network(interop, state, head_channels=case.info["network"]["num_head_channels"])
    assert sum(p.numel() for p in net.parameters()) == case.info["parameters"]
    out = net(case.enlarged(a["x_small"]), a["t"])
    case.close(case.thinned(out), a["out_sub"], "out_sub")


def test_thor_map_operators(parity):
    case = parity("thor_map_operators")
    a = case.tensors()

    def close_to(got, expected):
        case.close(got, expected, "default")

    flat = a["maps"].flatten(0, 1)
    close_to(close(flat, 13).reshape(a["maps"].shape), a["closing13"])
    close_to(dilate(flat, 13).reshape(a["maps"].shape), a["dilation13"])
    weight = ((dilate(close(flat, 13), 13) + flat) / 2).clamp(0, 1).reshape(a["maps"].shape)
    close_to(weight, a["w"])
    close_to(harmonic_mean(a["hmean_in"]), a["hmean"])
    close_to(harmonic_mean(a["hmean_in"]).clamp(0, 0.999), a["hmean_clipped"])
    blend = weight[0] * a["x0"] + (1 - weight[0]) * a["X"]
    close_to(blend, a["blend_unclipped"])
    close_to(blend.clamp(0, 1), a["blend_official"])
    close_to(blend.clamp(-1, 1), a["blend_intended"])
    distance = Stub()(4 * a["r"] - 3, 4 * a["y"] - 3)
    close_to(distance, a["P"])
    close_to(gaussian(distance, 2, axes=(0, 1, 2, 3)), a["S_official"])
    close_to(gaussian(distance, 2), a["S_per_image"])
    product = gaussian(distance, 2, axes=(0, 2, 3)).clamp(0, 1) * (a["r"] - a["y"]).abs()
    close_to(product, a["product_unnormalised"])
    close_to(peak_normalised(product), a["m_official"])


@torch.no_grad()
def test_thor_inference(parity, network, stored):
    case = parity("thor_inference")
    tolerance = case.info["tolerance"]["with_float32_schedule_tables"]
    state = {k: v.float() for k, v in case.weights().items()}
    for run in case.runs:
        a = case.tensors(run["name"])
        net, settings = network(
            interop, state, head_channels=case.info["unet"]["num_head_channels"]
        )
        own = {k: v for k, v in settings.items() if k not in UNet.dictated}
        restorer = Thor(
            size=a["x"].shape[-1],
            channels=1,
            network=own,
            diffusion={"noise": run["noise"]},
            walk={"start_levels": run["T_test"]},
            harmonise={"levels": tuple(run["t_harmonization"])},
            perceptual={"trunk": "none"},
            quirks="published",
        ).eval()
        restorer.denoiser.network.load_state_dict(net.state_dict())
        restorer.perceptual = Stub()
        steps = run["t_visualization"]
        found = thor_published.restore(
            restorer, 2 * a["x"] - 1, stored(a), every=steps[0] - steps[1]
        )

        def check(got, expected, quantity):
            torch.testing.assert_close(got, expected, rtol=0, atol=tolerance[quantity]["atol"])

        maps = torch.stack(
            [thor_published.difference(restorer, 2 * a["x"] - 1, clean) for clean in found.trail]
        )
        check(maps, a["m_t"], "m_t")
        check((torch.stack(found.trail) + 1) / 2, a["x0_01"], "x_rec")
        check(found.map[:, None], a["map"], "map")
        check(found.score.reshape(a["score"].shape), a["score"], "map")
        check((found.healthy + 1) / 2, a["x_rec"], "x_rec")
