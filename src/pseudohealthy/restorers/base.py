"""What every method is: something that trains by parts and turns images into their healthy twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw

REGISTRY: dict[str, type[Restorer]] = {}


@dataclass
class Batch:
    """Images (B, C, S, S) in [-1, 1], foreground (B, S, S) bool, labels (B,) or None, and the noise keyed to each item."""

    images: Tensor
    foreground: Tensor
    labels: Tensor | None
    draw: Draw


@dataclass
class Restoration:
    """The healthy twin (B, C, S, S) in [-1, 1].

    trail: the clean estimates on the way, where a method needs them. map (B, S, S) and score (B,): only for methods that do
    not read their map off the residual, or their score off the map.
    """

    healthy: Tensor
    trail: list[Tensor] = field(default_factory=list)
    map: Tensor | None = None
    score: Tensor | None = None


class Restorer(nn.Module):
    """A method. The keyword signature of its constructor is its configuration (recipe section ``restorer``)."""

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    uses_labels: ClassVar[bool] = False  # trains on diseased images, too (image-level labels)
    unfiltered: ClassVar[bool] = False  # its own map gets the recipe's smoothing, as a residual would
    dictated: ClassVar[tuple[str, ...]] = ("size", "channels")  # the canvas decides these
    nested: ClassVar[dict[str, Any]] = {}  # settings that are themselves a signature: {"network": UNet}

    def __init__(self, *, size: int, channels: int):
        super().__init__()
        self.size, self.channels = size, channels
        # Mean and spread of healthy training planes, in [-1, 1]; the loop fills them before the first step.
        self.register_buffer("healthy_mean", torch.zeros(channels, size, size))
        self.register_buffer("healthy_spread", torch.ones(channels, size, size))

    healthy_mean: Tensor
    healthy_spread: Tensor

    def parts(self) -> tuple[str, ...]:
        """Names of the submodules that are trained, each with its own loss and optimiser; empty: nothing to train."""
        return ()

    def begin(self) -> None:
        """Called once, before the first step of a new training: weights to start from. Not when a run is opened."""

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Per-item loss (B,) of one part."""
        raise TypeError(f"{self.name} has no trainable parts")

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        """Images (B, C, S, S) in [-1, 1] to their healthy twins. Item i depends on nothing but image i and its draws."""
        raise NotImplementedError  # abstract

    def calibrate(self, batches: Iterable[Batch]) -> bool:
        """Learn, after training, what this method makes of healthy validation images; True when something was stored.

        What it learns goes into buffers, which are saved with the weights. By default there is nothing to learn.
        """
        return False

    def describe(self) -> str:
        """How this method comes to a map of its own, in words, for every result; "" when it is the residual's."""
        return ""

    def network_calls(self) -> int:
        """Network evaluations per image of one `restore` (NFE), for every table of results."""
        return 0


def register(name: str) -> Callable[[type[Restorer]], type[Restorer]]:
    """Class decorator: make a restorer known by name."""

    def add(cls: type[Restorer]) -> type[Restorer]:
        cls.name = name
        REGISTRY[name] = cls
        return cls

    return add
