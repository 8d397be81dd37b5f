"""Wolleb et al. 2022: the published loops and losses, with their own draws."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from test_parity_networks import factors, multipliers

from pseudohealthy.diffusion.guidance import input_gradient, log_probability
from pseudohealthy.diffusion.losses import hybrid
from pseudohealthy.diffusion.sampler import sample
from pseudohealthy.restorers.guided import Guided

# A walk of 78 guided calls; vectors that someone points us at are always run.
heavy = () if os.environ.get("PSEUDOHEALTHY_PARITY") else pytest.mark.slow


class Stored:
    """Draws out of a case, in the order in which they were used."""

    def __init__(self, arrays):
        self.fields = [arrays[name] for name in sorted(arrays) if name.startswith("noise_")]

    def noise(self, like):
        return self.fields.pop(0)

    __call__ = noise


def restorer(unet, classifier, start=500, **guidance):
    c, k = unet, classifier
    network = {
        "width": c["base"],
        "multipliers": multipliers(c["mult"]),
        "blocks": c["res_blocks"],
        "attention": {
            "heads": c["num_heads"],
            "at": factors(c["image_size"], c["attention_resolutions"]),
        },
    }
    noisy = {
        "width": k["base"],
        "multipliers": multipliers(k["mult"]),
        "blocks": k["depth"],
        "attention": {
            "at": factors(k["image_size"], k["attention_resolutions"]),
            "head_channels": k["head_channels"],
        },
    }
    return Guided(
        size=c["image_size"],
        channels=c["in_channels"],
        network=network,
        classifier=noisy,
        walk={"start_levels": start},
        quirks="published",
        guidance={"data_range": "unit", "conditional": c["class_cond"], **guidance},
    )


def loaded(model, case, unet, classifier=None):
    model.denoiser.network.load_state_dict(case.weights(named(unet)))
    if classifier:
        model.classifier.load_state_dict(case.weights(named(classifier)))
    return model.eval().requires_grad_(False)


def named(file):
    return Path(file).stem.removeprefix("weights_")


def unit(restoration):
    return (restoration.healthy + 1) / 2


@pytest.mark.parametrize("name", ["c4", pytest.param("c1", marks=heavy)])
def test_guided_ddim(parity, name):
    case = parity("wolleb_guided_ddim")
    run = next(r for r in case.runs if r["name"] == name)
    a = case.tensors(name)
    weights = run["unet_weights"], f"weights_classifier_{name}.safetensors"
    model = loaded(
        restorer(run["unet"], run["classifier"], run["L"], scale=run["s"]), case, *weights
    )
    x = a["x"] * 2 - 1

    level = int(a["grad_t"]) + 1
    gradient = input_gradient(
        log_probability(model.classifier, int(a["grad_y"])), a["grad_x"], level
    )
    case.close(gradient, a["grad"], "grad")

    noisy = model.denoiser.noised(a["x"], a["noise_000"], 1)
    torch.testing.assert_close(noisy, a["x_noisy"])
    up, _ = model.walks()
    states = [noisy]
    for pair in pairwise(up):
        states.append(
            sample(
                model.estimate,
                states[-1],
                pair,
                clip=False,
                schedule=model.denoiser.schedule,
                label=run["y"],
            )
        )
    case.close(states[1], a["encode_first"], "latent")
    case.close(states[-1], a["latent"], "latent")

    out = unit(model.restore(x, Stored(a)))
    case.close(out, a["out"], "out")
    case.close((a["x"] - out).abs().sum(1), a["anomaly_map"], "anomaly_map")
    silent = Stored({"noise_000": torch.zeros_like(a["x"])})
    out = unit(model.restore(x, silent))
    case.close(out, a["out_zero_noise"], "out")
    case.close((a["x"] - out).abs().sum(1), a["anomaly_map_zero_noise"], "anomaly_map")
    model.scale = 0.0
    case.close(unit(model.restore(x, Stored(a))), a["out_s0"], "out")


def test_ddpm_ablation(parity):
    case = parity("wolleb_ddpm_ablation")
    a, info = case.tensors(), case.info
    settings = {"scale": info["s"], "sampler": "ddpm"}
    model = loaded(
        restorer(info["unet"], info["classifier"], info["noise_level"], **settings),
        case,
        *info["weight_files"],
    )
    out = unit(model.restore(a["x"] * 2 - 1, Stored(a)))
    case.close(out, a["out"], "out")
    case.close((a["x"] - out).abs().sum(1), a["anomaly_map"], "out")
    model.scale = 0.0
    case.close(unit(model.restore(a["x"] * 2 - 1, Stored(a))), a["out_s0"], "out")


def test_training_losses(parity):
    case = parity("wolleb_training_losses")
    classifier = {
        "base": 32,
        "mult": "1",
        "depth": 1,
        "image_size": 32,
        "attention_resolutions": "1",
        "head_channels": 32,
    }
    model = loaded(restorer(case.info["unet"], classifier), case, *case.info["weight_files"])
    network = model.denoiser.network.requires_grad_()
    for run in case.runs:
        a = case.tensors(run["name"])
        error, bound = hybrid(
            model.denoiser, a["x"], a["noise_000"], a["t"] + 1, low=model.low, label=a["y"]
        )
        case.close(error, a["mse"], "mse")
        case.close(bound, a["vb"], "vb")
        network.zero_grad()
        (error + bound).mean().backward()
        case.close(network.out[2].weight.grad, a["grad_out_2_weight"], "grads")
        case.close(
            network.input_blocks[0][0].weight.grad, a["grad_input_blocks_0_0_weight"], "grads"
        )
