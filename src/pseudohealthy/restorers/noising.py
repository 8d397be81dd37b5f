"""The tables of settings that methods of partial diffusion share.

[restorer.diffusion] states what the network learns, [restorer.walk] how an image is restored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from pseudohealthy.diffusion.denoiser import Denoiser, Target
from pseudohealthy.diffusion.losses import Weighting, weight
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import Step, ancestral, ddim, sample, second_order, walk
from pseudohealthy.diffusion.schedule import BETAS, Schedule
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.restorers.ranges import (
    Betas,
    Calls,
    Draws,
    Eta,
    Frequency,
    Levels,
    MaxLevel,
    Octaves,
    StartLevels,
    levels_fit,
)
from pseudohealthy.settings import check_fields


@dataclass(frozen=True)
class Diffusion:
    """What the network learns: which noise, on which schedule, and what it predicts.

    Args:
        schedule: Of the noise, with `levels` noise levels T.
        betas: First and last beta of the linear schedule at 1,000 levels (Ho et al. 2020).
        target: What the network predicts: the noise, the clean image or the velocity (Salimans & Ho
            2022).
        weighting: Of the loss by noise level, in the error of the clean image: "min-snr" (Hang et
            al., ICCV 2023, with gamma 5), "p2" (Choi et al., CVPR 2022, with gamma 1 and k 1);
            "none" takes the target's error as it is.
        max_level: Training draws levels 1..max_level; 0: all of them. (AnoDDPM trains on the lowest
            800.)
        noise: "gaussian" or "simplex": `octaves` of it, persistence 0.8, the longest wave
            `frequency` model pixels (6 and 64 as published, on 256 px; the wave should match the
            lesions), of unit variance when `standardise`.
    """

    schedule: Literal["linear", "cosine"] = "linear"
    levels: Levels = 1000
    betas: Betas = BETAS
    target: Target = "noise"
    weighting: Weighting = "none"
    max_level: MaxLevel = 0
    noise: Literal["gaussian", "simplex"] = "gaussian"
    standardise: bool = False
    octaves: Octaves = 6
    frequency: Frequency = 64.0

    def __post_init__(self) -> None:
        check_fields(self, "Diffusion.{}".format)
        if self.schedule != "linear" and self.betas != BETAS:
            raise ValueError(
                f"betas = {list(self.betas)} are of the linear schedule alone: leave them out"
            )
        if self.betas[0] > self.betas[1]:
            raise ValueError(f"betas = {list(self.betas)} fall: give the smaller one first")
        levels_fit("diffusion.max_level", [self.max_level], self.levels, "diffusion.levels")

    @property
    def highest(self) -> int:
        """The highest noise level that training draws."""
        return self.max_level or self.levels

    @property
    def limit(self) -> str:
        """The setting that bounds the noise levels, by name."""
        return "diffusion.max_level" if self.max_level else "diffusion.levels"

    def denoiser(
        self, network: nn.Module, floor: float = 0.0, learned_variance: bool = False
    ) -> Denoiser:
        """The network as a `Denoiser`.

        Args:
            floor: Lower clip of the cosine betas.
            learned_variance: Whether it has variance channels.
        """
        table = Schedule(self.schedule, self.levels, betas=self.betas, floor=floor)
        return Denoiser(network, table, target=self.target, learned_variance=learned_variance)

    def drawn_levels(self, draw: Draw, images: Tensor) -> Tensor:
        """Random noise levels (B,) to train on."""
        return draw.integers(1, self.highest + 1).to(images.device)

    def noisy(self, draw: Draw, z: float | None = None) -> Draw:
        """The same stream, with this kind of noise.

        Args:
            z: The plane of three-dimensional simplex noise, None for 2-D.
        """
        if self.noise == "gaussian":
            return draw.of_kind("gaussian")
        settings = {
            "standardise": self.standardise,
            "octaves": self.octaves,
            "frequency": self.frequency,
            "z": z,
        }
        return draw.of_kind("simplex", **settings)

    def weighted(self, errors: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
        """Errors (B,) of the target at noise levels t (B,), weighted."""
        return (
            errors
            if self.weighting == "none"
            else errors * weight(schedule, t, self.target, self.weighting, errors)
        )


@dataclass(frozen=True)
class OneStep:
    """Where a restoration of one network call starts.

    Args:
        start_levels: Noise levels to which the image is noised; several are averaged.
        draws: Noise draws of each, averaged.
        clip: Keep clean estimates in [-1, 1].
    """

    start_levels: StartLevels = (250,)
    draws: Draws = 1
    clip: bool = True

    def __post_init__(self) -> None:
        check_fields(self, f"{type(self).__name__}.{{}}".format)

    def fits(self, diffusion: Diffusion) -> None:
        """Check that no start level lies above the trained ones.

        Raises:
            Fault: RECIPE (exit 2).
        """
        levels_fit("walk.start_levels", self.start_levels, diffusion.highest, diffusion.limit)

    def start(self) -> int:
        """The only start level.

        Raises:
            Fault: RECIPE (exit 2) where there are several.
        """
        if len(self.start_levels) > 1:
            message = f"restorer.walk.start_levels = {list(self.start_levels)}"
            raise Fault(
                "RECIPE", message, "give one level: this method starts from one", exit=USAGE
            )
        return self.start_levels[0]


@dataclass(frozen=True)
class Walk(OneStep):
    """How an image is restored: from which start levels, and how the state goes down from there.

    Args:
        calls: Network calls on the way back from the highest; 0 walks every level as published, 1
            is the one-step estimate.
        eta: 1 ancestral (DDPM), 0 deterministic (DDIM). Prefer 0 when levels are skipped, and then
            `order` 2.
        order: 2 takes steps of second order, see `second_order`; with eta 0.
        variance: Of the noise added on the way down with eta above 0, the posterior's, or beta
            ("large", as AnoDDPM).
    """

    calls: Calls = 0
    eta: Eta = 1.0
    order: Literal[1, 2] = 1
    variance: Literal["posterior", "large"] = "posterior"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order == 2 and self.eta > 0:
            raise ValueError(
                f"order = {self.order} with eta {self.eta:g}: choose 1, or 2 with eta 0"
            )

    def levels(self, start: int) -> list[int]:
        """The noise levels of the walk from `start` to 0."""
        return walk(start, 0, min(self.calls or start, start))

    def step(self, draw: Callable[[Tensor], Tensor] | None = None) -> Step:
        """A step for `sample`, new for every walk; without `draw` it adds no noise."""
        if self.order == 2:
            return second_order()
        return ancestral(draw, self.eta, self.variance) if self.eta and draw is not None else ddim

    def down(
        self,
        denoiser: Denoiser,
        x: Tensor,
        levels: Sequence[int],
        draw: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Move a state down along noise levels, and return that at the last.

        Args:
            x: State (B, C, H, W) at the first of the levels.
            levels: Noise levels, downwards.
        """
        return sample(denoiser, x, levels, step=self.step(draw), clip=self.clip)
