"""Settings of our networks from state dicts of the guided-diffusion family (Wolleb, pDDPM, cDDPM).

The parameter names are ours, and shapes show the settings. The number of heads and the order of
attention, which they do not show, the caller takes from the published code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]


def unet_settings(state: State) -> dict[str, Any]:
    """Settings of our `UNet` with channels and condition, without heads and their order.

    Raises:
        KeyError: where a layer that every such network has is missing.
        ValueError: where the levels are uneven.
    """
    width, channels = state["input_blocks.0.0.weight"].shape[:2]
    # In every level of the decoder but the last, one stage ends with what doubles the size.
    doubling = {
        key.split(".")[1] for key in state if key.startswith("output_blocks.") and is_doubling(key)
    }
    levels = len(doubling) + 1
    per_level, remainder = divmod(stages(state), levels)
    if remainder:
        raise ValueError(f"{stages(state)} stages do not make {levels} levels")
    firsts = range(1, 1 + levels * per_level, per_level)
    condition: dict[str, int] = {}
    if "label_emb.weight" in state:
        condition["classes"] = state["label_emb.weight"].shape[0]
    elif "label_emb.0.weight" in state:
        condition["vector"] = state["label_emb.0.weight"].shape[1]
    outputs = state["out.2.weight"].shape[0]
    multipliers, attended = levels_of(state, firsts, width)
    return {
        "channels": channels,
        "learned_variance": outputs == 2 * channels,
        "condition": condition,
        "width": width,
        "multipliers": multipliers,
        "blocks": per_level - 1,
        "attention": {"at": attended, "middle": "middle_block.1.norm.weight" in state},
        "block": block_settings(state),
    }


def classifier_settings(state: State) -> dict[str, Any]:
    """Settings of our `Classifier`, with the size of its image.

    Heads have 64 channels (as published) where those divide. Down-sampling blocks look like others,
    so the blocks per level follow from attention, changes of width and the size of the pooling.

    Raises:
        KeyError, ValueError: as `unet_settings`.
    """
    width, in_channels = state["input_blocks.0.0.weight"].shape[:2]
    count = stages(state)
    attentions = [i for i in range(1, stages(state)) if f"input_blocks.{i}.1.norm.weight" in state]
    changes = [i for i in range(1, count) if f"input_blocks.{i}.0.skip_connection.weight" in state]
    side = math.isqrt(state["out.2.positional_embedding"].shape[1] - 1)
    fitting = []
    for per_level in range(2, count + 1):
        firsts = range(1, 1 + count, per_level)
        blocks = [range(first, first + per_level - 1) for first in firsts]
        expected = [i for level in blocks for i in level if level.start in attentions]
        if count % per_level == 0 and set(changes) <= set(firsts) and attentions == expected:
            fitting.append((per_level, firsts[: count // per_level]))
    if not fitting:
        raise ValueError(f"{count} stages with attention in {attentions} make no levels")
    # published: 4 blocks and one down.
    per_level, firsts = min(fitting, key=lambda fit: (fit[0] != 5, fit[0]))
    multipliers, attended = levels_of(state, firsts, width)
    at_attention = [m for level, m in enumerate(multipliers) if 2**level in attended]
    channels = [width * m for m in (multipliers[-1], *at_attention)]
    return {
        "in_channels": in_channels,
        "size": side * 2 ** (len(firsts) - 1),
        "classes": state["out.2.c_proj.weight"].shape[0],
        "width": width,
        "multipliers": multipliers,
        "blocks": per_level - 1,
        "attention": {"at": attended, "head_channels": math.gcd(64, *channels)},
        "block": block_settings(state),
    }


def resnet_settings(state: State) -> dict[str, Any]:
    """Settings of our `ResNet` for a state dict with timm's or torchvision's names."""
    layers: list[int] = []
    while (blocks := count_of(state, f"layer{len(layers) + 1}.")) > 0:
        layers.append(blocks)
    width, in_channels = state["conv1.weight"].shape[:2]
    return {
        "in_channels": in_channels,
        "layers": layers,
        "width": width,
        "outputs": state["fc.weight"].shape[0],
    }


def stages(state: State) -> int:
    return count_of(state, "input_blocks.")


def count_of(state: Iterable[str], prefix: str) -> int:
    """How many different numbers follow the prefix."""
    return len({key.removeprefix(prefix).split(".")[0] for key in state if key.startswith(prefix)})


def is_doubling(key: str) -> bool:
    place = key.split(".", 2)[2]
    return place[0] in "12" and place[1:] in (".conv.weight", ".in_layers.2.weight")


def levels_of(state: State, firsts: Iterable[int], width: int) -> tuple[list[int], list[int]]:
    """Multipliers, and the factors with attention, from the first block of each level."""
    multipliers = [
        state[f"input_blocks.{i}.0.out_layers.3.weight"].shape[0] // width for i in firsts
    ]
    return multipliers, [
        2**level for level, i in enumerate(firsts) if f"input_blocks.{i}.1.norm.weight" in state
    ]


def block_settings(state: State) -> dict[str, bool]:
    """Settings of the blocks that shapes and names show."""
    prefix = "input_blocks.1.0."
    twice = 2 * state[f"{prefix}out_layers.3.weight"].shape[0]
    return {
        "scale_shift": state[f"{prefix}emb_layers.1.weight"].shape[0] == twice,
        "residual_sampling": not any(key.endswith(".op.weight") for key in state),
    }
