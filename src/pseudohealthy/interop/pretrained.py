"""Weights to start a training from: those of a run, or of a diffusers folder.

Where the channels of the images differ, the first and the last convolution are adapted so that the
network does with equal channels what it did before: going to fewer channels, weights of inputs are
summed and those of outputs averaged (3 to 1: a grey image is an RGB one with equal channels); going
to more, both are repeated in turn, and inputs divided by how often. Everything else must fit:
shapes, and the settings that shapes do not show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.interop import diffusers
from pseudohealthy.models import folder_of
from pseudohealthy.networks.blocks import Attention
from pseudohealthy.networks.resnet import ResNet
from pseudohealthy.networks.spark import ENCODER
from pseudohealthy.networks.unet import UNet
from pseudohealthy.progress import say
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run

FIRST, LAST = ("input_blocks.0.0", "init_conv"), ("out.2", "final.2")  # of `UNet`, of `CtUNet`
SETTINGS = ("stem", "learned_variance")


def begin(restorer: Restorer) -> None:
    """Before the first step of a new training: every network of `Restorer.starts` takes the weights
    it is to start from.

    An encoder takes those of a "spark" run, any other network what `start_from` takes. Faults as
    there.
    """
    for network, where in restorer.starts():
        if where and isinstance(network, ResNet):
            network.load_state_dict(encoder_of(Path(where), network.state_dict()))
        else:
            start_from(network, where)


def start_from(module: nn.Module, path: Path | str) -> None:
    """Load into `module` (a `UNet` or a `CtUNet`) the network of a run folder, or a diffusers
    folder (for a `UNet`).

    path: the folder, or one weights file in it; "" leaves `module` as it is. What the network was
        trained to predict may differ.
    Fault RUN_MISSING or CHECKPOINT_* (exit 5), one line, for anything that does not fit.
    """
    if not str(path):
        return
    path = folder_of(path)
    reference, state = source(module, path)
    was, wanted = unseen(reference), unseen(module)
    for name, value in was.items():
        if name in wanted and wanted[name] != value:
            raise Fault(
                "CHECKPOINT_MISMATCH",
                f"the network of '{path.name}' has {name} = {value}, this one {wanted[name]}",
                "give the recipe's network the same setting",
                exit=BAD_MODEL,
            )
    adapted = {name: fitted(name, tensor, module) for name, tensor in state.items()}
    checkpoint.compare(
        path, {name: tuple(tensor.shape) for name, tensor in adapted.items()}, module.state_dict()
    )
    module.load_state_dict(adapted)
    changed = [name for name in state if adapted[name].shape != state[name].shape]
    say(
        f"starts from '{path.name}'"
        + (f" ({', '.join(changed)} adapted to its channels)" if changed else "")
    )


def source(module: nn.Module, path: Path) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network that is stored at `path`, without its weights, and these."""
    folder = path if path.is_dir() else path.parent
    if (folder / "recipe.toml").is_file():
        run = Run.open(folder)
        with torch.device("meta"):  # its settings are wanted, not its values
            restorer = run.recipe.make_restorer()
        tensors, _, _ = checkpoint.load(
            run.weights() if path.is_dir() else path, expected=restorer.state_dict()
        )
        known = [name for name, part in restorer.named_modules() if type(part) is type(module)]
        if not known:
            raise Fault(
                "CHECKPOINT_MISMATCH",
                f"run '{run.name}' has no {type(module).__name__}",
                "start from a run with such a network",
                exit=BAD_MODEL,
            )
        prefix = f"{known[0]}."
        return restorer.get_submodule(known[0]), {
            name.removeprefix(prefix): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
    if path.exists() and diffusers.is_model(folder):
        imported = diffusers.read_folder(path)
        channels = imported.canvas["channels"]
        with torch.device("meta"):
            network = UNet(channels=channels, **imported.restorer["network"])
        return network, dict(imported.parts["denoiser.network"])
    raise Fault(
        "RUN_MISSING",
        f"'{path.name}' is neither a run nor a diffusers folder",
        "name one; import-weights makes a run of published weights",
        exit=BAD_MODEL,
    )


def unseen(network: nn.Module) -> dict[str, Any]:
    """Settings that change what weights do and not their shapes."""
    found = {name: getattr(network, name) for name in SETTINGS if hasattr(network, name)}
    if isinstance(network, UNet):
        found |= {f"time.{name}": value for name, value in asdict(network.time).items()}
        found["block.pad_end"] = network.pad_end
    norms = [part for part in network.modules() if isinstance(part, nn.GroupNorm)]
    found |= (
        {"block.eps": norms[0].eps, "block.groups": max(norm.num_groups for norm in norms)}
        if norms
        else {}
    )
    for place, part in network.named_modules():
        if isinstance(part, Attention):
            found[f"heads in {place}"] = part.heads
            if part.heads > 1:  # one head has no order
                found["attention.order"] = part.order
    return found


def fitted(name: str, tensor: Tensor, module: nn.Module) -> Tensor:
    """A parameter of the first or last convolution with the channels that `module` has; any other
    as it is."""
    layer = name.rpartition(".")[0]
    own = module.state_dict().get(name)
    if (
        own is None
        or layer not in (*FIRST, *LAST)
        or own.shape == tensor.shape
        or (layer in FIRST and tensor.ndim < 4)
    ):
        return tensor
    # Of one channel, which space to depth puts side by side.
    places = getattr(module, "stem", 1) ** 2
    if layer in FIRST:
        # (out, channels * places, k, k)
        share = shares(tensor.shape[1] // places, own.shape[1] // places)
        return torch.einsum(
            "mn,onp...->omp...", share / share.sum(0), tensor.unflatten(1, (-1, places))
        ).flatten(1, 2)
    halves = 2 if getattr(module, "learned_variance", False) else 1
    # (halves * channels * places, ...)
    share = shares(len(tensor) // halves // places, len(own) // halves // places)
    share = share / share.sum(1, keepdim=True)
    return torch.einsum(
        "mn,hnp...->hmp...", share, tensor.unflatten(0, (halves, -1, places))
    ).flatten(0, 2)


def shares(n: int, m: int) -> Tensor:
    """(m, n): 1 where one of n channels goes into one of m, taken in turn."""
    old, new = torch.arange(n)[None], torch.arange(m)[:, None]
    return (old % m == new if n > m else new % n == old).float()


def encoder_of(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for an encoder shaped like `expected` from the weights file of a "spark" run; its
    last layer is kept.

    Fault CHECKPOINT_* (exit 5) where the file is missing, damaged, or has not exactly this
    encoder's parameters.
    """
    tensors, _, _ = checkpoint.load(path)
    prefix = f"model.{ENCODER}"
    found = {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
    # Has not been pretrained.
    found |= {key: value for key, value in expected.items() if key.startswith("fc.")}
    checkpoint.compare(path, {key: tuple(value.shape) for key, value in found.items()}, expected)
    return found
