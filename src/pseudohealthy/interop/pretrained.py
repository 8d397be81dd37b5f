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
    """Load the weights that the networks of a new training start from.

    Every network of `Restorer.starts`: an encoder takes those of a "spark" run, any other network
    those that `start_from` takes.

    Raises:
        Fault: as `start_from`.
    """
    for network, path in restorer.starts():
        if path and isinstance(network, ResNet):
            network.load_state_dict(encoder_of(Path(path), network.state_dict()))
        else:
            start_from(network, path)


def start_from(module: nn.Module, path: Path | str) -> None:
    """Load the network of a run folder, or of a diffusers folder, into a module.

    The target that the network was trained to predict may differ.

    Args:
        module: A `UNet`, or for a run folder also a `CtUNet`.
        path: The folder, or one weights file in it; "" leaves `module` as it is.

    Raises:
        Fault: RUN_MISSING or CHECKPOINT_* (exit 5) for anything that does not fit.
    """
    if not str(path):
        return
    path = folder_of(path)
    reference, state = source(module, path)
    source_settings, own_settings = unseen(reference), unseen(module)
    for name, value in source_settings.items():
        if name in own_settings and own_settings[name] != value:
            raise Fault(
                "CHECKPOINT_MISMATCH",
                f"the network of '{path.name}' has {name} = {value}, this one {own_settings[name]}",
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
    """The network that is stored at a path, on the meta device, and its weights."""
    folder = path if path.is_dir() else path.parent
    if (folder / "recipe.toml").is_file():
        run = Run.open(folder)
        with torch.device("meta"):  # for its settings, not its values
            restorer = run.recipe.make_restorer()
        tensors, _, _ = checkpoint.load(
            run.weights() if path.is_dir() else path, expected=restorer.state_dict()
        )
        names = [name for name, part in restorer.named_modules() if type(part) is type(module)]
        if not names:
            raise Fault(
                "CHECKPOINT_MISMATCH",
                f"run '{run.name}' has no {type(module).__name__}",
                "start from a run with such a network",
                exit=BAD_MODEL,
            )
        prefix = f"{names[0]}."
        return restorer.get_submodule(names[0]), {
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
    """Settings that change what weights do but not their shapes."""
    settings = {name: getattr(network, name) for name in SETTINGS if hasattr(network, name)}
    if isinstance(network, UNet):
        settings |= {f"time.{name}": value for name, value in asdict(network.time).items()}
        settings["block.pad_end"] = network.pad_end
    norms = [part for part in network.modules() if isinstance(part, nn.GroupNorm)]
    settings |= (
        {"block.eps": norms[0].eps, "block.groups": max(norm.num_groups for norm in norms)}
        if norms
        else {}
    )
    for place, part in network.named_modules():
        if isinstance(part, Attention):
            settings[f"heads in {place}"] = part.heads
            if part.heads > 1:  # one head has no order
                settings["attention.order"] = part.order
    return settings


def fitted(name: str, tensor: Tensor, module: nn.Module) -> Tensor:
    """A parameter, of the first or last convolution adapted to the channels of `module`."""
    layer = name.rpartition(".")[0]
    parameter = module.state_dict().get(name)
    if (
        parameter is None
        or layer not in (*FIRST, *LAST)
        or parameter.shape == tensor.shape
        or (layer in FIRST and tensor.ndim < 4)
    ):
        return tensor
    # Of one channel, which space to depth puts side by side.
    places = getattr(module, "stem", 1) ** 2
    if layer in FIRST:
        # (out, channels * places, k, k)
        share = shares(tensor.shape[1] // places, parameter.shape[1] // places)
        return torch.einsum(
            "mn,onp...->omp...", share / share.sum(0), tensor.unflatten(1, (-1, places))
        ).flatten(1, 2)
    halves = 2 if getattr(module, "learned_variance", False) else 1
    # (halves * channels * places, ...)
    share = shares(len(tensor) // halves // places, len(parameter) // halves // places)
    share = share / share.sum(1, keepdim=True)
    return torch.einsum(
        "mn,hnp...->hmp...", share, tensor.unflatten(0, (halves, -1, places))
    ).flatten(0, 2)


def shares(n: int, m: int) -> Tensor:
    """Matrix (m, n) with 1 where one of n channels goes into one of m, taken in turn."""
    old, new = torch.arange(n)[None], torch.arange(m)[:, None]
    return (old % m == new if n > m else new % n == old).float()


def encoder_of(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """State dict for an encoder from the weights file of a "spark" run.

    Args:
        expected: State dict of the encoder, whose last layer is taken over.

    Raises:
        Fault: CHECKPOINT_* (exit 5) where the file is missing, damaged, or has not exactly this
            encoder's parameters.
    """
    tensors, _, _ = checkpoint.load(path)
    prefix = f"model.{ENCODER}"
    state = {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
    # The last layer has not been pretrained.
    state |= {key: value for key, value in expected.items() if key.startswith("fc.")}
    checkpoint.compare(path, {key: tuple(value.shape) for key, value in state.items()}, expected)
    return state
