"""Networks of the published systems: same weights by name, same output."""

from __future__ import annotations

import os

import pytest
import torch

from pseudohealthy.diffusion.guidance import log_probability
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.unet import UNet

# 256 x 256 takes seconds and gigabytes; vectors that someone points us at are always run.
heavy = () if os.environ.get("PSEUDOHEALTHY_PARITY") else pytest.mark.slow


def multipliers(setting):
    return tuple(int(m) for m in (setting.split(",") if isinstance(setting, str) else setting))


def factors(size: int, resolutions: str) -> tuple[int, ...]:
    """Spatial sizes with attention, as the published flags give them, as downsampling factors."""
    return tuple(size // int(side) for side in resolutions.split(","))


def wolleb_unet(c):
    return UNet(
        channels=c["in_channels"],
        learned_variance=True,
        width=c["base"],
        multipliers=multipliers(c["mult"]),
        blocks=c["res_blocks"],
        attention={
            "at": factors(c["image_size"], c["attention_resolutions"]),
            "heads": c["num_heads"],
        },
        condition={"classes": 2 if c["class_cond"] else 0},
    )


def wolleb_classifier(c):
    return Classifier(
        in_channels=c["in_channels"],
        size=c["image_size"],
        width=c.get("base") or c["width"],
        multipliers=multipliers(c["mult"]),
        blocks=c["depth"],
        attention={
            "at": factors(c["image_size"], c["attention_resolutions"]),
            "head_channels": c["head_channels"],
        },
    )


def patched_unet(c):
    return UNet(
        width=c["base"],
        multipliers=multipliers(c["mult"]),
        blocks=c["res_blocks"],
        attention={"head_channels": c["head_channels"], "order": "new"},
        block={"scale_shift": True, "residual_sampling": True},
        condition={"vector": c.get("cond_dim", 0)},
    )


def load(network, state):
    """Strictly, without the schedule buffers and the prefix of a training module."""
    inner = {
        k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")
    } or state
    network.load_state_dict(inner)
    return network.eval()


@torch.no_grad()
def test_wolleb_unet_forward(parity):
    case = parity("wolleb_unet_forward")
    for run in case.runs:
        a = case.tensors(run["name"])
        network = load(wolleb_unet(run["unet"]), case.weights(run["name"]))
        case.close(network(a["x"], a["t"], label=a["y"]), a["out"], "out")
        case.close(network(a["x"], a["t"], label=1 - a["y"]), a["out_other_label"], "out")


def test_wolleb_classifier_forward(parity):
    case = parity("wolleb_classifier_forward")
    for run in case.runs:
        a = case.tensors(run["name"])
        network = load(wolleb_classifier(run["classifier"]), case.weights(run["name"]))
        case.close(network(a["x"], a["t"]).detach(), a["logits"], "logits")
        gradients = []
        for x, t, y in zip(a["x"], a["t"], a["y"], strict=True):  # levels differ: one at a time
            x = x[None].requires_grad_()
            (gradient,) = torch.autograd.grad(
                log_probability(network, int(y))(x, int(t) + 1).sum(), x
            )
            gradients.append(gradient)
        case.close(torch.cat(gradients), a["grad"], "grad")


@torch.no_grad()
@pytest.mark.parametrize("name", ["pddpm_unet_forward", "cddpm_unet_forward"])
def test_patched_and_conditioned_unet_forward(parity, name):
    case = parity(name)
    weights = case.weights()
    network = load(patched_unet(case.info["unet"]), weights)
    for run in case.runs:
        a = case.tensors(run["name"])
        case.close(network(a["x"], a["t"], vector=a.get("cond")), a["out"], "out")
    schedule = Schedule("cosine", len(weights["betas"]))
    torch.testing.assert_close(
        schedule.alpha_bar[1:].float(), weights["alphas_cumprod"], rtol=1e-5, atol=1e-8
    )
    torch.testing.assert_close(
        schedule.posterior_clean[1:].float(), weights["posterior_mean_coef1"]
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("full_pddpm_unet", patched_unet),
        ("full_cddpm_unet", patched_unet),
        pytest.param("full_wolleb_unet", wolleb_unet, marks=heavy),
        pytest.param("full_wolleb_classifier", wolleb_classifier, marks=heavy),
    ],
)
def test_published_configuration(parity, name, build):
    case = parity(name)
    a = case.tensors()
    with torch.device("meta"):
        network = build(case.info["network"])
    assert sum(p.numel() for p in network.parameters()) == case.info["parameters"]
    network = load(network.to_empty(device="cpu"), case.generated())
    condition = {"label": a["y"]} if "y" in a else {"vector": a["cond"]} if "cond" in a else {}
    out = network(case.enlarged(a["x_small"]), a["t"], **condition)
    case.close(case.thinned(out), a["out_sub"], "out_sub")
    expected = a["out_mean_std"].float()
    torch.testing.assert_close(torch.stack([out.mean(), out.std()]), expected, rtol=1e-3, atol=1e-4)
