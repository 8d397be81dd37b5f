"""Weights on disk: safetensors with their own digest and settings in the header; never pickle,
never half-written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.io.atomic import atomic

UMASK = os.umask(0)
os.umask(UMASK)
MOST_TENSORS = 20_000  # a header with more is an attack or a mistake, not one of our models


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, independent of the order in the file."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(
            tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
    return total.hexdigest()


def save(path: Path, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> str:
    """Write tensors and a JSON-able state in one atomic file; returns the digest."""
    flat = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    sha256 = digest(flat)
    with atomic(path) as temporary:
        try:
            save_file(flat, temporary, metadata={"sha256": sha256, "state": json.dumps(state)})
        except SafetensorError as error:  # how it says that the disk is full
            raise OSError(errno.EIO, str(error).splitlines()[0][:200]) from None
        # Safetensors makes it private whatever the user's umask says.
        os.chmod(temporary, 0o666 & ~UMASK)
    return sha256


def keep(path: Path, as_: Path) -> None:
    """A second name for the file at `path`, which `save` will replace: no copy, and never a moment
    without either."""
    if path.is_file():
        temporary = as_.with_name(f".tmp-{os.getpid()}-{as_.name}")
        with contextlib.suppress(OSError):  # a file system without hard links keeps one state only
            temporary.unlink(missing_ok=True)
            os.link(path, temporary)
            os.replace(temporary, as_)
            temporary.unlink(missing_ok=True)  # replacing a name of the same file leaves both


def load(
    path: Path, *, expected: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors, state and digest. Fault CHECKPOINT_* (exit 5) for a damaged file, other architecture
    or non-finite weights."""
    if not path.is_file():
        raise Fault(
            "CHECKPOINT_MISSING",
            f"no weights at {path.name}",
            "train the run first",
            exit=BAD_MODEL,
        )
    opened = _identity(path)
    try:
        with safe_open(path, framework="pt") as file:
            names, meta = list(file.keys()), file.metadata() or {}
            if len(names) > MOST_TENSORS:
                raise Fault(
                    "CHECKPOINT_CORRUPT",
                    f"{path.name} lists {len(names)} tensors",
                    "use another file",
                    exit=BAD_MODEL,
                )
            if expected is not None:
                compare(path, {n: tuple(file.get_slice(n).get_shape()) for n in names}, expected)
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError) as error:
        if _identity(path) not in (opened, None):
            return load(path, expected=expected)
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Fault(
            "CHECKPOINT_CORRUPT",
            f"{path.name} cannot be read ({text})",
            "restore it from a copy",
            exit=BAD_MODEL,
        ) from None
    sha256 = digest(tensors)
    if "sha256" in meta and meta["sha256"] != sha256:
        if _identity(path) not in (opened, None):
            return load(path, expected=expected)
        raise Fault(
            "CHECKPOINT_CORRUPT",
            f"{path.name} does not match its own sha256",
            "restore it from a copy",
            exit=BAD_MODEL,
        )
    floats = {n: t for n, t in tensors.items() if t.is_floating_point()}
    # One-byte floats are refused as well: they cannot be searched for NaN.
    if odd := [n for n, t in floats.items() if t.element_size() < 2]:
        found = f"{path.name} holds {odd[0]} as {floats[odd[0]].dtype}"
        raise Fault("CHECKPOINT_MISMATCH", found, "convert it to float32", exit=BAD_MODEL)
    bad = [n for n, t in floats.items() if not torch.isfinite(t).all()]
    if bad:
        raise Fault(
            "CHECKPOINT_NONFINITE",
            f"{path.name} holds NaN or Inf in {bad[0]}",
            "use an earlier one",
            exit=BAD_MODEL,
        )
    try:
        state = json.loads(meta.get("state", "{}"))
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise Fault(
            "CHECKPOINT_CORRUPT",
            f"{path.name} has an unreadable state",
            "restore it from a copy",
            exit=BAD_MODEL,
        )
    return tensors, state, sha256


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name now. `safe_open` opens the name twice, header and tensors: when a
    training saves in between, they are of two files, each of them whole."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_ino, info.st_mtime_ns


def compare(path: Path, found: Mapping[str, tuple], expected: Mapping[str, Tensor]) -> None:
    """Key set and shapes against the architecture's, before anything is loaded."""
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    differences = [f"missing {n}" for n in wanted if n not in found] + [
        f"unknown {n}" for n in found if n not in wanted
    ]
    differences += [
        f"{n} is {found[n]}, wanted {wanted[n]}"
        for n in wanted
        if n in found and found[n] != wanted[n]
    ]
    if differences:
        shown = ", ".join(differences[:5]) + (
            f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        )
        raise Fault(
            "CHECKPOINT_MISMATCH",
            f"{path.name} is of another model: {shown}",
            "use it with its own recipe",
            exit=BAD_MODEL,
        )
