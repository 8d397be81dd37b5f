"""What every method is: something that trains by parts and turns images into their healthy
twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.settings import checked

GROUPS = 8  # of draws, for the spread of a score: as many maps are in memory once more
PRIOR = (
    8  # healthy planes that the spread of all pixels together counts for in the spread of one pixel
)
# Of that common spread, below which no pixel is trusted: background never varies in healthy images.
FLOOR = 0.5


@dataclass
class Batch:
    """Images (B, C, S, S) in [-1, 1], foreground (B, S, S) bool, labels (B,) or None, and the noise
    keyed to each item."""

    images: Tensor
    foreground: Tensor
    labels: Tensor | None
    draw: Draw


@dataclass
class Restoration:
    """The healthy twin (B, C, S, S) in [-1, 1].

    trail: the clean estimates on the way, where a method needs them. map (B, S, S) and score (B,):
    only for methods that do not read their map off the residual, or their score off the map.
    """

    healthy: Tensor
    trail: list[Tensor] = field(default_factory=list)
    map: Tensor | None = None
    score: Tensor | None = None
    without: Sequence[Callable[[], Restoration]] = ()


def averaged(estimates: Sequence[Tensor], clip: bool = False) -> Restoration:
    """The mean over draws, then over levels, of estimates (B, draws, C, S, S) of each level; the
    trail is by level.

    clip: to [-1, 1], each level's mean. `without` leaves out one draw each, or of many draws one
    group in `GROUPS`.
    """

    def mean(kept: Tensor) -> Restoration:
        trail = [
            estimate[:, kept].mean(1) if len(kept) < count else estimate.mean(1)
            for estimate in estimates
        ]
        trail = [part.clamp(-1, 1) if clip else part for part in trail]
        return Restoration(healthy=torch.stack(trail).mean(0), trail=trail)

    count = estimates[0].shape[1]
    draws = torch.arange(count)
    left_out = draws.tensor_split(min(count, GROUPS)) if count > 1 else ()
    restoration = mean(draws)
    restoration.without = [partial(mean, draws[~torch.isin(draws, group)]) for group in left_out]
    return restoration


class Restorer(nn.Module):
    """A method. The keyword signature of its constructor is its configuration (recipe section
    ``restorer``)."""

    name: ClassVar[str]
    uses_labels: ClassVar[bool] = False  # trains on diseased images, too (image-level labels)
    unfiltered: ClassVar[bool] = (
        False  # its own map gets the recipe's smoothing, as a residual would
    )
    dictated: ClassVar[tuple[str, ...]] = ("size", "channels")  # the canvas decides these
    nested: ClassVar[
        dict[str, Any]
    ] = {}  # settings that are themselves a signature: {"network": UNet}

    @checked
    def __init__(self, *, size: Size, channels: Channels):
        super().__init__()
        self.size, self.channels = size, channels
        # Mean and spread of healthy training planes, in [-1, 1]; the loop fills them before the
        # first step.
        self.register_buffer("healthy_mean", torch.zeros(channels, size, size))
        self.register_buffer("healthy_spread", torch.ones(channels, size, size))
        # Of the smoothed signed residuals of healthy validation planes; `calibrate` fills them
        # after training.
        self.register_buffer("residual_mean", torch.zeros(channels, size, size))
        self.register_buffer("residual_spread", torch.ones(channels, size, size))
        self.register_buffer("calibration_planes", torch.tensor(0.0))

    healthy_mean: Tensor
    healthy_spread: Tensor
    residual_mean: Tensor
    residual_spread: Tensor
    calibration_planes: Tensor

    def parts(self) -> tuple[str, ...]:
        """Names of the submodules that are trained, each with its own loss and optimiser; empty:
        nothing to train."""
        return ()

    def fits(self, batch: int) -> None:
        """Fault RECIPE (exit 2) where the method cannot be trained on so many images at a time."""

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        """Networks that a new training starts from given weights, and where these lie ("" for
        none)."""
        return ()

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Per-item loss (B,) of one part."""
        raise TypeError(f"{self.name} has no trainable parts")

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        """Images (B, C, S, S) in [-1, 1] to their healthy twins. Item i depends on nothing but
        image i and its draws."""
        raise NotImplementedError  # abstract

    def calibrate(self, batches: Iterable[Batch], amap: AnomalyMap) -> bool:
        """Learn, after training, what this method makes of healthy validation images; True when
        something was stored.

        What it learns goes into buffers, which are saved with the weights. By default mean and
        spread of the residuals, where the map asks for them (`standardise`) and is the residual's.
        """
        if amap.standardise == "none":
            return False
        residuals = HealthyResiduals()
        for batch in batches:
            restored = self.restore(batch.images, batch.draw)
            if restored.map is not None:
                return False
            residuals.add(amap.signed(batch.images, restored.healthy), batch.foreground)
        return residuals.fill(self, amap.standardise)

    def describe(self) -> str:
        """How this method comes to a map of its own, in words, for every result; "" when it is the
        residual's."""
        return ""

    def network_calls(self) -> int:
        """Network evaluations per image of one `restore` (NFE), for every table of results."""
        return 0


class HealthyResiduals:
    """Mean and spread of signed residuals of healthy images, gathered batch by batch (in float64:
    order hardly matters)."""

    def __init__(self) -> None:
        self.count = 0
        # Without dimensions, it adds to a tensor on any device.
        nothing = torch.zeros((), dtype=torch.float64)
        self.total = self.square = nothing
        self.pooled = self.inside = (
            nothing  # over the foreground, per level: sum of squares, number of pixels
        )

    def add(self, residuals: Tensor, foreground: Tensor) -> None:
        """Residuals (B, C, S, S), or (B, levels, C, S, S) of a method that measures each level by
        itself."""
        found = residuals.double()
        within = foreground.to(found.device).view(-1, *[1] * (found.dim() - 3), *found.shape[-2:])
        self.count += len(found)
        self.total = self.total + found.sum(0)
        self.square = self.square + found.square().sum(0)
        self.pooled = self.pooled + (found.square() * within).sum((0, -3, -2, -1))
        self.inside = self.inside + within.sum() * found.shape[-3]

    def fill(self, restorer: Restorer, by: Literal["level", "pixel"], floor: float = FLOOR) -> bool:
        """Write them into a restorer's buffers; False where no image was seen.

        By "level": no mean, and the spread of all foreground pixels together. By "pixel": each its
        own, drawn towards that common one while images are few (`PRIOR`), and never below `floor`
        of it.
        """
        if not self.count:
            return False
        common = (self.pooled / self.inside.clamp(min=1))[..., None, None, None]  # mean square
        restorer.calibration_planes.fill_(self.count)
        if by == "level":
            restorer.residual_mean.zero_()
            restorer.residual_spread.copy_(
                common.sqrt().clamp(min=1e-6).expand_as(restorer.residual_spread)
            )
            return True
        mean = self.total / (self.count + PRIOR)
        variance = (self.square + PRIOR * common) / (self.count + PRIOR) - mean.square()
        restorer.residual_mean.copy_(mean)
        restorer.residual_spread.copy_(
            (variance.clamp(min=0) + floor**2 * common).sqrt().clamp(min=1e-6)
        )
        return True


def register(name: str) -> Callable[[type[Restorer]], type[Restorer]]:
    """Class decorator: make a restorer known by name."""

    def add(cls: type[Restorer]) -> type[Restorer]:
        cls.name = name
        if "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
        return REGISTRY.add(name, cls)

    return add
