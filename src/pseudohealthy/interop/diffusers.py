"""`UNet2DModel` folders of Hugging Face diffusers: the ADM structure under names of its own.

A model folder holds ``config.json`` and the weights; a pipeline folder holds it as ``unet/``, or as
its own files, beside the scheduler's configuration. diffusers itself is not needed. Published size,
google/ddpm-ema-celebahq-256: 113,673,219 parameters (Ho et al., Denoising Diffusion Probabilistic
Models, NeurIPS 2020).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.interop.checkpoint_files import read
from pseudohealthy.interop.systems import Imported, network

# Options of UNet2DModel, its own default first, then the others that our network has.
OPTIONS: dict[str, tuple[Any, ...]] = {
    "_class_name": ("UNet2DModel",),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "freq_shift": (0, 1),
    "flip_sin_to_cos": (True, False),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (1, 0),
    "downsample_type": ("conv",),
    "upsample_type": ("conv",),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True, False),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
}
TARGETS = {"epsilon": "noise", "sample": "clean", "v_prediction": "velocity"}
VARIANCES = {
    "fixed_small": "posterior",
    "fixed_small_log": "posterior",
    "fixed_large": "large",
    "fixed_large_log": "large",
}
RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTER = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
# Of the attention, before 2023.
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def is_model(path: Path) -> bool:
    return any((path / place).is_file() for place in ("config.json", "unet/config.json"))


def read_folder(path: Path) -> Imported:
    """A "ddpm" restorer from a model or a pipeline folder.

    Without a scheduler's configuration beside the model it is taken for DDPM's: linear, 1000
    levels, predicts noise.

    Raises:
        Fault: CHECKPOINT_* (exit 5) for a folder that is incomplete or damaged, or an option that
            our network has not.
    """
    folder = path.parent if path.is_file() else path
    if not is_model(folder):
        raise Fault(
            "CHECKPOINT_MISSING",
            f"'{path.name}' is no diffusers folder (no config.json)",
            "name the folder of a UNet2DModel or of its pipeline",
            exit=BAD_MODEL,
        )
    model = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
    parents = [folder, folder.resolve().parent] if folder.resolve().name == "unet" else [folder]
    places = [
        parent / place
        for parent in parents
        for place in ("scheduler/scheduler_config.json", "scheduler_config.json")
    ]
    scheduler = next((place for place in places if place.is_file()), None)
    weights = model / "diffusion_pytorch_model.safetensors"
    weights = weights if weights.is_file() else weights.with_suffix(".bin")
    notes = []
    try:
        if any(
            re.search("vae|vqvae", part)
            for parent in parents
            for part in parsed(parent / "model_index.json")
        ):
            raise ValueError("its pipeline restores codes of an autoencoder, not images")
        config = parsed(model / "config.json")
        settings, restorer = unet_settings(config), {"name": "ddpm"}
        canvas = {"channels": settings["channels"]} | image_size(config.get("sample_size"))
        if scheduler is not None:
            restorer |= schedule(parsed(scheduler))
        else:
            notes.append(
                "no scheduler_config.json: taken for linear betas over 1000 levels, predicting the"
                " noise"
            )
        if "size" not in canvas:
            notes.append("the model does not say its image size: set canvas.size")
        state = convert(read(weights), settings)
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"'{path.name}' cannot be imported: {reason}",
            "choose a plain UNet2DModel of images",
            exit=BAD_MODEL,
        ) from None
    return Imported(
        canvas, restorer | {"network": network(settings)}, {"denoiser.network": state}, notes
    )


def parsed(file: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError):
        raise Fault(
            "CHECKPOINT_CORRUPT", f"{file.name} cannot be read", "fetch it again", exit=BAD_MODEL
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return content


def unet_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of our `UNet`, with channels.

    Raises:
        ValueError: for the first option that it has not.
    """
    options = {}
    for option, supported in OPTIONS.items():
        options[option] = config.get(option, supported[0])
        if options[option] not in supported:
            raise ValueError(
                f"{option} = {options[option]!r} is not supported"
                f" ({' or '.join(map(repr, supported))} is)"
            )
    attended, ups = (
        [with_attention(kind, side) for kind in config[f"{side.lower()}_block_types"]]
        for side in ("Down", "Up")
    )
    if attended != ups[::-1]:
        raise ValueError(
            f"up_block_types = {config['up_block_types']} has attention at other levels than the"
            " way down"
        )
    channels = config["block_out_channels"]
    groups = config.get("norm_num_groups", 32)
    head = config.get("attention_head_dim", 8)
    if any(c % channels[0] for c in channels) or channels[0] % 2 or len(channels) != len(attended):
        raise ValueError(
            f"block_out_channels = {channels}: each must be a multiple of the first, one for each"
            " level"
        )
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        raise ValueError(
            f"it has {config.get('in_channels', 3)} channels in and"
            f" {config.get('out_channels', 3)} out"
        )
    scale_shift, middle = (
        options["resnet_time_scale_shift"] == "scale_shift",
        options["add_attention"],
    )
    middle_groups = config.get("attn_norm_num_groups") or (None if scale_shift else groups)
    if middle and middle_groups != groups:
        raise ValueError(
            f"attn_norm_num_groups = {middle_groups}: the attention in the middle must have the"
            " norm of the others"
        )
    heads = [
        c
        for c, attends in zip([*channels, channels[-1]], [*attended, middle], strict=True)
        if attends
    ]
    if head is not None and any(c % head for c in heads):
        raise ValueError(f"attention_head_dim = {head} does not divide {heads} channels")
    return {
        "channels": config.get("in_channels", 3),
        "width": channels[0],
        "multipliers": tuple(c // channels[0] for c in channels),
        "blocks": config.get("layers_per_block", 2),
        "attention": {
            "at": tuple(2**level for level, attends in enumerate(attended) if attends),
            "middle": middle,
            **({"head_channels": head} if head else {}),  # none says one head
            "order": "new",
        },
        "block": {
            "scale_shift": scale_shift,
            "groups": groups,
            "eps": float(config.get("norm_eps", 1e-5)),
            "dropout": float(config.get("dropout", 0.0)),
            "pad_end": options["downsample_padding"] == 0,
        },
        "time": {
            "order": "cos-sin" if options["flip_sin_to_cos"] else "sin-cos",
            "frequency_shift": options["freq_shift"],
        },
    }


def with_attention(kind: str, side: str) -> bool:
    kinds = {f"{side}Block2D": False, f"Attn{side}Block2D": True}
    if kind not in kinds:
        raise ValueError(f"block type {kind} is not supported ({' and '.join(kinds)} are)")
    return kinds[kind]


def image_size(sample_size: int | list[int] | None) -> dict[str, int]:
    """The image size as a setting of the canvas, where the model states it."""
    sides = [sample_size] if isinstance(sample_size, int) else sample_size or []
    if len(set(sides)) > 1:
        raise ValueError(f"sample_size = {sample_size} is not square")
    return {"size": sides[0]} if sides else {}


def schedule(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the restorer from a scheduler's configuration.

    Raises:
        ValueError: for one that it has not.
    """
    kind, levels = config.get("beta_schedule"), config.get("num_train_timesteps", 1000)
    betas = config.get("beta_start", 1e-4), config.get("beta_end", 0.02)
    # Our linear betas are scaled to end as noisy with fewer levels, theirs are taken as given.
    scaled = [float(f"{beta * levels / 1000:.12g}") for beta in betas]
    ours = kind == "linear" and 0 < scaled[0] <= scaled[1] < 1
    if (
        not (ours or kind == "squaredcos_cap_v2")
        or config.get("trained_betas")
        or config.get("rescale_betas_zero_snr")
    ):
        raise ValueError(
            f"its noise schedule ({config.get('_class_name')}, {kind}, {betas[0]} to {betas[1]}"
            f" over {levels}) is neither linear nor squaredcos_cap_v2"
        )
    predicted = config.get(
        "prediction_type", "epsilon" if config.get("predict_epsilon", True) else "sample"
    )
    variance = config.get("variance_type", "fixed_small")
    if predicted not in TARGETS or variance not in VARIANCES:
        raise ValueError(
            f"prediction_type = {predicted}, variance_type = {variance} is not supported"
        )
    return {
        "diffusion": {
            "schedule": "linear" if ours else "cosine",
            "levels": levels,
            **({"betas": scaled} if ours else {}),
            "target": TARGETS[predicted],
        },
        "walk": {
            "clip": config.get("clip_sample", True) and config.get("clip_sample_range", 1.0) == 1,
            "variance": VARIANCES[variance],
        },
    }


def convert(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of our `UNet` with these settings.

    Raises:
        KeyError: for attention without one of its parts.
    """
    former = re.compile(rf"\.({'|'.join(FORMER)})\.(weight|bias)$")
    theirs = {
        former.sub(lambda m: f".{FORMER[m[1]]}.{m[2]}", key): value for key, value in state.items()
    }
    levels, ours = len(settings["multipliers"]), {}
    attended = [2 ** (levels - 1 - level) in settings["attention"]["at"] for level in range(levels)]
    for key, value in theirs.items():
        place, _, kind = renamed(
            key, settings["blocks"], attended, settings["attention"]["middle"]
        ).rpartition(".")
        if place.endswith((".to_k", ".to_v")):
            continue
        if place.endswith(".to_q"):
            value = torch.cat([theirs[key.replace(".to_q.", f".to_{part}.")] for part in "qkv"])
            place = f"{place.removesuffix('to_q')}qkv"
        # A convolution of one place, with us.
        linear = kind == "weight" and place.endswith((".qkv", ".proj_out"))
        ours[f"{place}.{kind}"] = value.flatten(1)[..., None] if linear else value
    return ours


def renamed(key: str, blocks: int, attended: list[bool], middle_attention: bool) -> str:
    """Our name of a published parameter, except of queries, keys and values.

    Args:
        key: Published name.
        blocks: Residual blocks of each encoder level.
        attended: Whether a decoder level has attention, deepest first.
        middle_attention: Whether the middle has.
    """
    place, _, kind = key.rpartition(".")
    if place in OUTER:
        return f"{OUTER[place]}.{kind}"
    match = re.fullmatch(
        r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)", place
    )
    if match is None or (match[2] is None) != (match[1] == "mid_block"):
        return key
    side, layer, part = match[1], match[3], match[5]
    level, index = int(match[2] or 0), int(match[4])
    part = {"group_norm": "norm", "to_out.0": "proj_out", **RESIDUAL}.get(part, part)
    if side == "mid_block":
        position = 1 if layer == "attentions" else index * (1 + middle_attention)
        return f"middle_block.{position}.{part}.{kind}"
    start = level * (blocks + 1)
    if layer == "downsamplers":
        return f"input_blocks.{1 + start + blocks}.0.op.{kind}"
    if layer == "upsamplers":
        return f"output_blocks.{start + blocks}.{1 + attended[level]}.conv.{kind}"
    stage = (
        f"input_blocks.{1 + start + index}"
        if side == "down_blocks"
        else f"output_blocks.{start + index}"
    )
    return f"{stage}.{0 if layer == 'resnets' else 1}.{part}.{kind}"
