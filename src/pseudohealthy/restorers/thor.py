"""THOR: partial diffusion that returns to the image wherever it differs little from it.

Bercea, Wiestler, Rueckert, Schnabel: "Diffusion models with implicit guidance for medical anomaly
detection", MICCAI 2024. At a few levels the clean estimate is compared with the image; outside the
region that an intermediate anomaly map marks, the image itself takes its place, and the walk goes
on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.schedule import BETAS
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.maps.morphology import gaussian, harmonic_mean, peak_normalised, region
from pseudohealthy.marks import Range
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers import thor_published
from pseudohealthy.restorers.base import Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.noising import Diffusion, Walk
from pseudohealthy.restorers.ranges import Harmonised, Side, Weights
from pseudohealthy.settings import build, check_fields


@dataclass(frozen=True)
class Harmonise:
    """Where and how the walk returns to the image.

    Args:
        levels: Visited however few calls the walk has; the paper's are (300, 150, 50) for Gaussian
            noise from 350, and (200, 150, 100, 50) for simplex noise from 250. Those that are not
            below the start level are left out (the released code does so too), so that the start
            can be swept with one list. At least one must remain.
        sigma: Gaussian smoothing of the perceptual distance, model pixels.
        side: Of closing and dilation, model pixels.
    """

    levels: Harmonised = (300, 150, 50)
    sigma: Annotated[float, Range(0, 64, open="low")] = 2.0
    side: Side = 13

    def __post_init__(self) -> None:
        check_fields(self, "Harmonise.{}".format)
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels = {list(self.levels)} repeat themselves: give different ones")

    def below(self, start: int) -> tuple[int, ...]:
        """The levels below `start`, the highest first.

        Raises:
            Fault: RECIPE (exit 2) where there is none.
        """
        levels = tuple(sorted((level for level in self.levels if level < start), reverse=True))
        if not levels:
            raise Fault(
                "RECIPE",
                f"restorer.harmonise.levels = {list(self.levels)}",
                f"give at least one below restorer.walk.start_levels = {start}",
                exit=USAGE,
            )
        return levels


@register("thor")
class Thor(Ddpm):
    """Noise to the start level; on the way back, harmonise with the image at a few levels.

    Trained like "ddpm". The paper starts at 350 with Gaussian noise, at 250 with simplex noise.
    With order 2 a new walk starts from every harmonised level.

    Args:
        perceptual: See `Perceptual`.
        quirks: "none" is the paper: the map is |x - x0| times the perceptual distance; its closed
            and dilated, normalised form w blends ``w x0 + (1 - w) x``; the blend is noised with the
            first noise to the current level, from which the walk goes on; the final map is the
            harmonic mean over the harmonised levels. "published" repeats the released code, see
            `thor_published`.
    """

    nested = {"network": UNet, "perceptual": Perceptual}
    dictated = ("size", "channels", "walk.draws", "walk.variance")

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        diffusion: Diffusion = Diffusion(),
        walk: Walk = Walk(start_levels=(350,)),
        harmonise: Harmonise = Harmonise(),
        perceptual: dict = {},  # noqa: B006 (read only)
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(
            size=size,
            channels=channels,
            network=network,
            weights=weights,
            diffusion=diffusion,
            walk=walk,
        )
        self.start = walk.start()
        self.harmonised = harmonise.below(self.start)
        self.left_out = tuple(sorted({*harmonise.levels} - {*self.harmonised}, reverse=True))
        kind = (diffusion.target, diffusion.schedule, diffusion.levels, diffusion.betas, walk.calls)
        if quirks == "published" and (
            kind != ("noise", "linear", 1000, BETAS, 0) or self.start > 999
        ):
            raise Fault(
                "RECIPE",
                "restorer.quirks = published is another loop",
                "leave target, schedule, levels, betas and calls at their defaults, and start below"
                " 1000",
                exit=USAGE,
            )
        self.perceptual = build(Perceptual, perceptual, "restorer.perceptual")
        self.sigma, self.side, self.quirks = harmonise.sigma, harmonise.side, quirks

    @torch.no_grad()
    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        if self.quirks == "published":
            return thor_published.restore(self, images, self.noisy(draw))
        copies = self.noisy(draw)
        first_noise = copies.noise(images)
        x = self.denoiser.noised(images, first_noise, self.start)
        maps, trail, levels = [], [], self.levels(self.start)
        for level in self.harmonised:
            index = levels.index(level)
            x = self.walk.down(self.denoiser, x, levels[: index + 1], copies)
            clean = self.denoiser(x, level).clean.float()
            clean = clean.clamp(-1, 1) if self.walk.clip else clean
            maps.append(self.difference(images, clean))
            trail.append(clean)
            x = self.denoiser.noised(self.blend(images, clean, maps[-1]), first_noise, level)
            levels = levels[index:]
        x = self.walk.down(self.denoiser, x, levels, copies)
        return Restoration(
            healthy=x.float(), trail=trail, map=harmonic_mean(torch.stack(maps))[:, 0]
        )

    def difference(self, images: Tensor, clean: Tensor) -> Tensor:
        """The paper's m, (B, 1, H, W): |x - x0| of images in [0, 1] times their perceptual
        distance."""
        with torch.autocast(images.device.type, enabled=False):
            distance = gaussian(self.perceptual(clean, images).float(), self.sigma).clamp(0, 1)
            return distance * (clean - images).float().abs().mean(1, keepdim=True) / 2

    def blend(self, images: Tensor, clean: Tensor, difference: Tensor) -> Tensor:
        """The clean estimate in and around the anomaly, the image elsewhere."""
        weight = region(peak_normalised(difference), self.side)
        return (weight * clean + (1 - weight) * images).clamp(-1, 1)

    def levels(self, start: int) -> list[int]:
        return sorted({*super().levels(start), *self.harmonised}, reverse=True)

    def network_calls(self) -> int:
        if self.quirks == "published":
            return self.start + 1
        # A harmonised level takes two calls: for the blend, and from the blend.
        return len(self.levels(self.start)) - 1 + len(self.harmonised)

    def describe(self) -> str:
        visited = f" {', '.join(map(str, self.harmonised))}" if self.left_out else ""
        words = f"|x - x0| x {self.perceptual.description}, harmonic mean over levels{visited}"
        return f"{words} as in the released code" if self.quirks == "published" else words
