"""AnoDDPM's U-Net (Wyatt et al., CVPR Workshops 2022): the ADM structure under names of its own.

Published size, 131,649,793 parameters: width 128, multipliers (1, 1, 2, 2, 4, 4), two blocks,
attention at factors 8, 16 and 32, two heads, resampling inside residual blocks, sine before cosine
in the time embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pseudohealthy.errors import BAD_MODEL, Fault

RENAMED = {
    "time_embedding.1": "time_embed.0",
    "time_embedding.3": "time_embed.2",
    "down": "input_blocks",
    "middle": "middle_block",
    "up": "output_blocks",
    "embed_layers": "emb_layers",
    "to_qkv": "qkv",
}


def convert(
    state: Mapping[str, Any], *, heads: int = 2
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and state dict of our `UNet` for AnoDDPM weights.

    Args:
        state: A state dict, or a whole checkpoint (its EMA weights are taken).
        heads: Shapes do not show them. The published code trains with 2 but its detection rebuilds
            the network with 1, which loads without complaint and gives other outputs; the weights
            were trained for 2.

    Raises:
        Fault: CHECKPOINT_MISMATCH (exit 5) for a state dict of another system.
    """
    state = state.get("ema", state.get("model_state_dict", state))
    if "time_embedding.1.weight" not in state or "down.0.0.weight" not in state:
        raise Fault(
            "CHECKPOINT_MISMATCH",
            "this is no AnoDDPM state dict",
            "name the system it is of",
            exit=BAD_MODEL,
        )
    width, channels = state["down.0.0.weight"].shape[:2]
    # In every decoder level but the last one, one stage ends with a second residual block that
    # doubles the size.
    doubling = {key.split(".")[1] for key in state if re.match(r"up\.\d+\.[12]\.in_layers\.", key)}
    levels = len(doubling) + 1
    per_level = len({key.split(".")[1] for key in state if key.startswith("down.")}) // levels
    firsts = range(1, 1 + levels * per_level, per_level)
    attended = tuple(
        2**level for level, i in enumerate(firsts) if f"down.{i}.1.norm.weight" in state
    )
    settings = {
        "channels": channels,
        "width": width,
        "multipliers": tuple(
            state[f"down.{i}.0.out_layers.3.weight"].shape[0] // width for i in firsts
        ),
        "blocks": per_level - 1,
        "attention": {"at": attended, "heads": heads},
        "block": {"residual_sampling": True},
        "time": {"order": "sin-cos"},
    }
    return settings, {renamed(key): value for key, value in state.items()}


def renamed(key: str) -> str:
    """Our name of a published parameter."""
    for theirs, ours in RENAMED.items():
        key = re.sub(rf"(^|\.){re.escape(theirs)}\.", rf"\g<1>{ours}.", key)
    return key
