"""THOR's U-Net (Bercea et al., MICCAI 2024), an early MONAI Generative network, as AutoDDPM has it.

Published size: 18,500,993 parameters, counting all tensors of the checkpoint. 460,544 of them
(`proj_attn`, a linear layer after each of the seven attentions) are stored but never applied, so a
faithful import must not apply them either: the projection of our `UNet`, which has the same size,
becomes the identity. Networks trained from our recipes have the same 18,500,993 parameters and use
them all.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.networks.unet import UNet

PARTS = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "skip_connection": "skip_connection",
}


def convert(
    state: Mapping[str, Any], *, head_channels: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and state dict of our `UNet` for THOR weights.

    The perceptual network that such checkpoints hold as well (``l_pips_sq.*``) is left out:
    `Perceptual` reads it.

    Args:
        state: A state dict, or a whole checkpoint.
        head_channels: Shapes do not show them; None is one head, as published.

    Raises:
        Fault: CHECKPOINT_MISMATCH (exit 5) for a state dict of another system.
    """
    state = state.get("model_weights", state)
    theirs = {
        re.sub(r"(^|\.)conv\.(weight|bias)$", r"\1\2", key.removeprefix("unet.")): value
        for key, value in state.items()
        if key.startswith("unet.")
    }
    if "conv_in.weight" not in theirs or "middle_block.resnet_1.norm1.weight" not in theirs:
        raise Fault(
            "CHECKPOINT_MISMATCH",
            "this is no THOR state dict",
            "name the system it is of",
            exit=BAD_MODEL,
        )

    def count(pattern: str) -> int:
        return len({match[0] for key in theirs if (match := re.match(pattern, key))})

    width, channels = theirs["conv_in.weight"].shape[:2]
    levels, blocks = count(r"down_blocks\.\d+\."), count(r"down_blocks\.0\.resnets\.\d+\.")
    widths = [theirs[f"down_blocks.{i}.resnets.0.conv2.weight"].shape[0] for i in range(levels)]
    attended = [i for i in range(levels) if f"down_blocks.{i}.attentions.0.norm.weight" in theirs]
    settings = {
        "channels": channels,
        "width": width,
        "multipliers": tuple(w // width for w in widths),
        "blocks": blocks,
        "attention": {
            "at": tuple(2**i for i in attended),
            "head_channels": head_channels,
            "order": "new",
        },
        "block": {"eps": 1e-6},
    }
    ups = [levels - 1 - i for i in attended]
    ours: dict[str, Tensor] = {}
    for key, value in theirs.items():
        if ".to_" not in key and "proj_attn" not in key:
            ours[renamed(key, blocks, ups)] = value
    for attention in sorted({key.split(".to_q.")[0] for key in theirs if ".to_q.weight" in key}):
        name = renamed(attention + ".norm.weight", blocks, ups).removesuffix(".norm.weight")
        for kind in ("weight", "bias"):
            joined = torch.cat([theirs[f"{attention}.to_{part}.{kind}"] for part in "qkv"])
            ours[f"{name}.qkv.{kind}"] = joined[..., None] if kind == "weight" else joined
        channels = len(theirs[f"{attention}.norm.weight"])
        ours[f"{name}.proj_out.weight"] = torch.eye(channels)[..., None]
        ours[f"{name}.proj_out.bias"] = torch.zeros(channels)
    return settings, ours


def renamed(key: str, blocks: int, attended: Container[int]) -> str:
    """Our name of a published parameter.

    Args:
        key: Published name, without its prefix ``unet.`` and the wrapper of convolutions.
        blocks: Residual blocks of each encoder level.
        attended: The decoder's levels with attention; the deepest is 0.
    """
    place, _, kind = key.rpartition(".")
    fields = place.split(".")
    if fields[0] == "conv_in":
        return f"input_blocks.0.0.{kind}"
    if fields[0] == "middle_block":
        index = {"resnet_1": 0, "attention": 1, "resnet_2": 2}[fields[1]]
        return f"middle_block.{index}.{PARTS.get(fields[2], fields[2])}.{kind}"
    if fields[0] not in ("down_blocks", "up_blocks"):
        return key  # time_embed, out
    level, layer = int(fields[1]), fields[2]
    stage = level * (blocks + 1) + (
        int(fields[3]) if layer in ("resnets", "attentions") else blocks
    )
    if layer == "downsampler":
        return f"input_blocks.{1 + stage}.0.op.{kind}"
    if layer == "upsampler":
        return f"output_blocks.{stage}.{2 if level in attended else 1}.conv.{kind}"
    side = f"input_blocks.{1 + stage}" if fields[0] == "down_blocks" else f"output_blocks.{stage}"
    return f"{side}.{0 if layer == 'resnets' else 1}.{PARTS.get(fields[4], fields[4])}.{kind}"


@torch.no_grad()
def repair(network: UNet, noise: Tensor) -> bool:
    """Rescale the last layer of brain weights that put out 2 eps - 1 instead of eps.

    The published trainer halves the output and adds 1/2 before it is compared with the noise, so
    the network learns 2 eps - 1 and its healthy twins turn white. On pure noise, at the last level,
    its output then has a mean of -1 instead of 0.

    Args:
        network: Changed in place.
        noise: (B, C, H, W), of the kind it was trained on.

    Returns:
        Whether it was rescaled.
    """
    network.eval()
    if network(noise, 999).mean() > noise.mean() - 0.5:
        return False
    for parameter, shift in zip(network.out[2].parameters(), (0, 1), strict=True):  # weight, bias
        parameter.add_(shift).mul_(0.5)
    return True
