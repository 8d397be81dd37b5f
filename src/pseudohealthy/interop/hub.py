"""Models of the Hugging Face hub, fetched only when a command names one."""

from __future__ import annotations

import re
from pathlib import Path

from pseudohealthy.errors import BAD_MODEL, USAGE, Fault

CONFIGURATIONS = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "*/config.json",
    "*/scheduler_config.json",
)


def fetched(name: Path) -> Path:
    """The local copy of a hub model.

    Args:
        name: Its id, ``owner/model``; a path that exists, or is no id, is returned as it is.

    Raises:
        Fault: HUB; exit 2 where ``huggingface_hub`` is not installed, 5 where the model cannot be
            fetched.
    """
    if name.exists() or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name.as_posix()):
        return name
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise Fault(
            "HUB",
            f"there is no folder '{name}', and fetching from the hub needs huggingface_hub",
            "pip install 'pseudohealthy[hub]', or name a folder",
            exit=USAGE,
        ) from None
    try:
        for kind in ("safetensors", "bin"):  # not both: each holds all weights
            weights = f"diffusion_pytorch_model.{kind}"
            patterns = [*CONFIGURATIONS, weights, f"unet/{weights}"]
            folder = Path(snapshot_download(name.as_posix(), allow_patterns=patterns))
            if any(folder.glob(weights)) or any(folder.glob(f"unet/{weights}")):
                break
    except Exception as error:  # of the network, the hub or the disk
        raise Fault(
            "HUB",
            f"'{name}' cannot be fetched ({type(error).__name__})",
            "check the id and the connection, or name a folder",
            exit=BAD_MODEL,
        ) from None
    return folder
