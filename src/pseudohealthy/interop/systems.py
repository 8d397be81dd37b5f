"""The published systems: how their state dicts are recognised, and their canvas and restorer."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.interop import adm, anoddpm, thor
from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.perceptual import named
from pseudohealthy.networks.unet import UNet
from pseudohealthy.settings import settable

State = Mapping[str, Tensor]


@dataclass
class Imported:
    """A published model for import.

    Args:
        canvas, restorer: Settings of these sections of the recipe.
        parts: State dicts by the submodule of the restorer that takes them.
        notes: What the user should know.
    """

    canvas: dict[str, Any]
    restorer: dict[str, Any]
    parts: dict[str, State]
    notes: list[str] = field(default_factory=list)


class System(NamedTuple):
    """A published system.

    Args:
        mark: Pattern of a parameter's name that no later system of SYSTEMS has.
        source: The paper.
        read: Reads its state dict; None where a folder says more than its weights
            (`interop.diffusers`).
    """

    mark: str
    source: str
    read: Callable[[State], Imported] | None


def recognised(state: State) -> str | None:
    """The system that a state dict is of; None for an unknown one."""
    return next(
        (name for name, s in SYSTEMS.items() if any(re.fullmatch(s.mark, key) for key in state)),
        None,
    )


def network(settings: dict[str, Any], cls: type = UNet) -> dict[str, Any]:
    """The settings of a network that a recipe may give; the method dictates the others."""
    return {
        key: value for key, value in settings.items() if key in settable(cls) and value is not None
    }


def wolleb(state: State) -> Imported:
    """Wolleb's diffusion model: one head, legacy attention, images in [0, 1], 256 px.

    The size is the classifier's where there is one.
    """
    settings = adm.unet_settings(state)
    if not settings["learned_variance"]:
        raise ValueError("its output has no variance channels")
    restorer = {
        "name": "guided",
        "guidance": {"data_range": "unit", "conditional": "classes" in settings["condition"]},
        "network": network(settings),
    }
    return Imported(
        {"size": 256, "channels": settings["channels"]}, restorer, {"denoiser.network": state}
    )


def wolleb_classifier(state: State) -> Imported:
    settings = adm.classifier_settings(state)
    if settings["classes"] != 2:
        raise ValueError(f"it tells {settings['classes']} classes, healthy and diseased are two")
    restorer = {"name": "guided", "classifier": network(settings, Classifier)}
    canvas = {"size": settings["size"], "channels": settings["in_channels"]}
    return Imported(canvas, restorer, {"classifier": state})


def anoddpm_unet(state: State) -> Imported:
    settings, tensors = anoddpm.convert(state)
    restorer = {
        "name": "ddpm",
        "diffusion": {"noise": "simplex", "max_level": 800},
        "walk": {"start_levels": [250]},
        "network": network(settings),
    }
    return Imported(
        {"size": 256, "channels": settings["channels"]}, restorer, {"denoiser.network": tensors}
    )


def thor_unet(state: State) -> Imported:
    """THOR's network, with the perceptual one where the file holds it, as published files do."""
    settings, tensors = thor.convert(state)
    parts: dict[str, State] = {"denoiser.network": tensors}
    distance = {named(key): value for key, value in state.items() if key.startswith("l_pips")}
    if distance:
        parts["perceptual"] = distance
    restorer = {"name": "thor", "network": network(settings)}
    return Imported({"size": 128, "channels": settings["channels"]}, restorer, parts)


def pddpm(state: State) -> Imported:
    buffers, inner = diffusion(state)
    settings = published(inner)
    restorer = {"name": "patched", "diffusion": schedule(buffers), "network": network(settings)}
    canvas = {"size": 96, "channels": settings["channels"], "percentiles": [1, 99]}
    return Imported(canvas, restorer, {"denoiser.network": inner})


def cddpm(state: State) -> Imported:
    buffers, inner = diffusion(state)
    encoder = {
        key.removeprefix("encoder.").removeprefix("encoder."): value
        for key, value in state.items()
        if key.startswith("encoder.")
    }
    if not encoder:
        raise ValueError("its encoder is missing")
    settings, encoder_settings = published(inner), adm.resnet_settings(encoder)
    restorer = {
        "name": "conditioned",
        "diffusion": schedule(buffers),
        "network": network(settings),
        "encoder": {key: encoder_settings[key] for key in ("layers", "width", "outputs")},
    }
    canvas = {"size": 96, "channels": settings["channels"], "percentiles": [1, 99]}
    return Imported(canvas, restorer, {"model.denoiser.network": inner, "model.encoder": encoder})


def diffusion(state: State) -> tuple[State, State]:
    """Schedule buffers and network of pDDPM and cDDPM, with or without Lightning's prefix."""
    tensors = {
        key.removeprefix("diffusion."): value
        for key, value in state.items()
        if not key.startswith("encoder.")
    }
    inner = {
        key.removeprefix("model."): value
        for key, value in tensors.items()
        if key.startswith("model.")
    }
    buffers = {key: value for key, value in tensors.items() if not key.startswith("model.")}
    if any("." in key for key in buffers):
        raise ValueError(f"unknown {next(key for key in buffers if '.' in key)}")
    return buffers, inner


def schedule(buffers: State) -> dict[str, Any]:
    """Kind and length of the schedule in some buffers; the published cosine where there are
    none."""
    if "alphas_cumprod" not in buffers:
        return {"schedule": "cosine"}
    table = buffers["alphas_cumprod"].double()
    for kind in ("cosine", "linear"):
        if torch.allclose(Schedule(kind, len(table)).alpha_bar[1:], table, rtol=1e-4, atol=1e-6):
            return {"schedule": kind, "levels": len(table)}
    raise ValueError("its schedule is neither cosine nor linear")


def published(state: State) -> dict[str, Any]:
    """Settings of our `UNet`, with heads of 64 channels in the new order as published."""
    settings = adm.unet_settings(state)
    heads = math.gcd(64, state["middle_block.0.out_layers.3.weight"].shape[0])
    settings["attention"] |= {"head_channels": heads, "order": "new"}
    return settings


SYSTEMS = {
    "wolleb-classifier": System(
        r"out\.2\.positional_embedding", "Wolleb et al., MICCAI 2022", wolleb_classifier
    ),
    "wolleb": System(r"input_blocks\.0\.0\.weight", "Wolleb et al., MICCAI 2022", wolleb),
    "anoddpm": System(
        r"time_embedding\.1\.weight", "Wyatt et al., AnoDDPM, CVPRW 2022", anoddpm_unet
    ),
    "thor": System(r"unet\.conv_in\.conv\.weight", "Bercea et al., THOR, MICCAI 2024", thor_unet),
    "cddpm": System(
        r"(diffusion\.)?model\.label_emb\.0\.weight", "Behrendt et al., cDDPM, CBM 2025", cddpm
    ),
    "pddpm": System(
        r"(diffusion\.)?model\.input_blocks\.0\.0\.weight",
        "Behrendt et al., pDDPM, MIDL 2023",
        pddpm,
    ),
    "diffusers": System(
        r"down_blocks\.0\.resnets\.0\.norm1\.weight",
        "a UNet2DModel of Hugging Face diffusers",
        None,
    ),
}
