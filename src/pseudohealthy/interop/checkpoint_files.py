"""A checkpoint file as a flat state dict of float32 tensors; nothing in the file is executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.runs import checkpoint

# CVE-2025-32434 and CVE-2026-24747: holes in the restricted loader of older ones.
SAFE_TORCH = (2, 10)
# Keys under which checkpoints hold the weights; averaged ones first, which published detection
# loads.
WRAPPERS = ("ema", "model_state_dict", "model_weights", "state_dict")


def read(file: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file, without the keys that wrap it.

    Raises:
        Fault: CHECKPOINT_MISSING, _CORRUPT, _UNSAFE, _MISMATCH or _NONFINITE, TORCH_OLD (exit 5).
    """
    if not file.is_file():
        raise Fault(
            "CHECKPOINT_MISSING", f"there is no file {file.name}", "check the path", exit=BAD_MODEL
        )
    content: Any = checkpoint.load(file)[0] if file.suffix == ".safetensors" else unpickled(file)
    if isinstance(content, Mapping):
        content = next(
            (content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content
        )
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(isinstance(value, Tensor) for value in content.values())
    ):
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"{file.name} holds no state dict (names with tensors)",
            "give the file of the weights",
            exit=BAD_MODEL,
        )
    state = {
        str(key): value.float() if value.is_floating_point() else value
        for key, value in content.items()
    }
    if all(key.startswith("module.") for key in state):  # saved out of DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    bad = next((key for key, value in state.items() if not torch.isfinite(value).all()), None)
    if bad:
        raise Fault(
            "CHECKPOINT_NONFINITE",
            f"{file.name} holds NaN or Inf in {bad}",
            "use an earlier one",
            exit=BAD_MODEL,
        )
    return state


def unpickled(file: Path) -> Any:
    """The content of a pickled file by torch's restricted loader, and no other one."""
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < SAFE_TORCH:
        raise Fault(
            "TORCH_OLD",
            f"torch {torch.__version__} reads pickled weights unsafely",
            "install torch 2.10 or newer",
            exit=BAD_MODEL,
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises whatever it likes
        text = " ".join(str(error).split())
        if refused := re.search(r"GLOBAL ([\w.]+)", text):
            raise Fault(
                "CHECKPOINT_UNSAFE",
                f"{file.name} holds more than tensors ({refused[1]}), and reading that can run"
                " code",
                "where you trust the file, save its weights alone: torch.save(torch.load(FILE,"
                " weights_only=False)['ema'], NEW), with the key under which it keeps them",
                exit=BAD_MODEL,
            ) from None
        reason = text[:120] or type(error).__name__
        raise Fault(
            "CHECKPOINT_CORRUPT",
            f"{file.name} cannot be read ({reason})",
            "fetch it again",
            exit=BAD_MODEL,
        ) from None
