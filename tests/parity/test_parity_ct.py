"""Patched CT diffusion: network, windows, losses and sliding-window score of the published code,
with its draws."""

from __future__ import annotations

import math
import os
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.io.scan import Scan
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.ssim import ssim
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers.ct import CtPatched
from pseudohealthy.restorers.patched import Box

heavy = () if os.environ.get("PSEUDOHEALTHY_PARITY") else pytest.mark.slow
PUBLISHED_SSIM = {"data_range": 1.0, "border": "zeros"}


class Stored:
    """A Draw whose fields are the stored ones, one for each copy."""

    def __init__(self, fields: list[Tensor]):
        self.fields = fields

    def fork(self, tag):
        return self

    def repeat(self, copies):
        return self

    def noise(self, like: Tensor) -> Tensor:
        return torch.cat([self.fields.pop(0) for _ in range(len(like))])


def settings(c):
    return {"width": c["ch"], "multipliers": tuple(c["ch_mult"]), "blocks": c["num_res_blocks"]}


def network(c) -> CtUNet:
    return CtUNet(channels=c["in_ch"], quirks="published", **settings(c))


def fields(arrays) -> list[Tensor]:
    return [arrays[name] for name in sorted(arrays) if name.startswith("noise_")]


@torch.no_grad()
def test_ct_pddpm_unet_forward(parity):
    case = parity("ct_pddpm_unet_forward")
    for run in case.runs:
        kind = f"{run['channels']}ch"
        net = network(case.info[f"unet_{kind}"]).eval()
        net.load_state_dict(case.weights(kind))
        a = case.tensors(run["name"])
        case.close(net(a["x"], a["t"]), a["out"], "out")


@torch.no_grad()
@pytest.mark.parametrize("name", [pytest.param("full_ct_pddpm_unet", marks=heavy)])
def test_published_ct_configuration(parity, name):
    case = parity(name)
    a = case.tensors()
    with torch.device("meta"):
        net = network(case.info["network"])
    assert sum(p.numel() for p in net.parameters()) == case.info["parameters"]
    net = net.to_empty(device="cpu").eval()
    net.load_state_dict(case.generated())
    out = net(case.enlarged(a["x_small"]), a["t"])
    case.close(case.thinned(out), a["out_sub"], "out_sub")
    torch.testing.assert_close(
        torch.stack([out.mean(), out.std()]), a["out_mean_std"].float(), rtol=1e-3, atol=1e-4
    )


def test_ct_windows(parity):
    """The windows are the same; the published code then truncates to 8 bits, at most one step
    darker."""
    a = parity("ct_pddpm_operators").tensors("window")
    hu = a["hu"].numpy()
    size = 8 * math.ceil(max(hu.shape) / 8)  # nothing is resized
    for name in ("brain", "subdural", "bone"):
        canvas = Canvas(size=size, normalise="window", windows=(name,), foreground="all")
        fitted = canvas.fit(Scan.from_array(hu))
        place = fitted.placement
        rows, columns = (
            slice(-first, n - first)
            for first, n in zip((place.top, place.left), hu.shape, strict=True)
        )
        planes = fitted.planes[0, 0, rows, columns].numpy()
        np.testing.assert_allclose((planes + 1) / 2, a[name].numpy(), atol=1e-6)
        lost = planes - a[f"{name}_scaled"].numpy()
        assert lost.min() > -1e-6 and lost.max() < 2 / 255 + 1e-6


def test_ct_losses_schedule_and_noising(parity):
    case = parity("ct_pddpm_operators")
    a = case.tensors("ssim")
    for x, y, loss in (("a", "b", "loss"), ("a3", "b3", "loss3"), ("a", "a", "loss_same")):
        case.close(1 - ssim(a[x], a[y], **PUBLISHED_SSIM).mean(), a[loss], "ssim")
    tables = case.tensors("schedule")
    levels = len(tables["cosine_betas"])
    schedule = Schedule("cosine", levels, floor=1e-4)
    # The published tables are float32: differences of cosines near 1 lose three digits in the
    # betas, one in their product.
    torch.testing.assert_close(schedule.beta[1:].float(), tables["cosine_betas"], rtol=1e-3, atol=0)
    for own, name in ((schedule, "cosine"), (Schedule("linear", levels), "linear")):
        expected = tables[f"{name}_alphas_cumprod"]
        torch.testing.assert_close(own.alpha_bar[1:].float(), expected, rtol=1e-5, atol=5e-7)
    a = case.tensors("noising")
    signal, sigma = schedule.at(a["t"] + 1, a["x"])
    torch.testing.assert_close(
        signal * a["x"] + sigma * a["noise_000"], a["out"], atol=1e-5, rtol=1e-5
    )


def restorer(case, images: Tensor, **options) -> CtPatched:
    network = {**settings(case.info["unet"]), "dropout": 0.0}
    channels, size = images.shape[1], images.shape[-1]
    made = CtPatched(
        size=size, channels=channels, network={"ct": network}, quirks="published", **options
    )
    made.denoiser.network.load_state_dict(case.weights())
    return made.eval()


def test_ct_training_loss_and_gradient(parity):
    case = parity("ct_pddpm_operators")
    a = case.tensors("train")
    model, side = restorer(case, a["x"]), a["noise_000"].shape[-1]
    boxes = [Box(y, y + side, x, x + side) for y, x in a["coords_yx"].tolist()]
    losses = model.patch_loss(a["x"], torch.stack(fields(a)), a["t"] + 1, boxes)
    case.close(losses.mean(), a["loss"], "loss", atol=1e-5)
    losses.mean().backward()
    gradient = model.denoiser.network.final[2].weight.grad
    case.close(gradient, a["grad_final_2_weight"], "grad", atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        model.ssim_weight = 0
        mse = model.patch_loss(a["x"], torch.stack(fields(a)), a["t"] + 1, boxes).mean()
    case.close(mse, a["mse"], "loss", atol=1e-6)


@torch.no_grad()
def test_ct_sliding_window_map_and_score(parity):
    case = parity("ct_pddpm_operators")
    a = case.tensors("score")
    said = re.search(r"window (\d+), stride (\d+), t=(\d+)", case.info["conventions"]["score"][0])
    patch, stride, step = map(int, said.groups())
    options = {
        "windows": {"side": patch, "stride": stride},
        "walk": {"start_levels": (Schedule.level(step),)},
    }
    model, stored = restorer(case, a["x"], **options, reading={"score": "published"}), fields(a)
    assert len(model.grid(*a["x"].shape[-2:])) == len(stored)
    found = model.restore(a["x"], Stored(stored))
    assert not stored
    case.close(found.map[0], a["map"], "score")
    case.close(found.score[0], a["score"], "score")
