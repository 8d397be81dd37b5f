"""THOR: partial diffusion that is pulled back to the image wherever it differs little from it.

Bercea, Wiestler, Rueckert, Schnabel: "Diffusion models with implicit guidance for medical anomaly detection", MICCAI
2024. At a few levels the clean estimate is compared with the image; outside the region that an intermediate anomaly
map marks, the image itself takes its place, and the walk goes on from there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.maps.morphology import gaussian, harmonic_mean, peak_normalised, region
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers import thor_published
from pseudohealthy.restorers.base import Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.ranges import (
    Calls,
    Eta,
    Frequency,
    Harmonised,
    Level,
    Levels,
    LpipsWeights,
    MaxLevel,
    Octaves,
    Side,
    levels_fit,
)
from pseudohealthy.settings import Range


@register("thor")
class Thor(Ddpm):
    """Noise to `depth`; on the way back, harmonise with the image at the levels `harmonise`.

    Trained like "ddpm". depth, harmonise: the paper's 350 and (300, 150, 50) for Gaussian noise, 250 and
        (200, 150, 100, 50) for simplex noise; these levels are visited however few `steps` there are. Listed levels
        that are not below `depth` are left out, as they lie above where the walk begins: so depth can be swept with the
        list as it is (the released code does so too), and at 350 the list is the paper's. At least one must be left.
        order: as of "ddpm", anew from every harmonised level.
    perceptual, perceptual_weights: see `Perceptual`. sigma: Gaussian smoothing of the perceptual distance, pixels.
    side: of closing and dilation, pixels.
    quirks: "none" is the paper: the map is |x - x0| times the perceptual distance; its closed and dilated, normalised
        form w blends ``w x0 + (1 - w) x``; the blend is noised with the first noise to the current level, from which
        the walk goes on; the final map is the harmonic mean over the harmonised levels. "published" repeats the
        released code, see `thor_published`.
    """

    paper = "Bercea et al., THOR, MICCAI 2024"
    dictated = ("size", "channels", "depths", "draws")

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        schedule: Literal["linear", "cosine"] = "linear",
        levels: Levels = 1000,
        target: Literal["noise", "clean", "velocity"] = "noise",
        noise: Literal["gaussian", "simplex"] = "gaussian",
        standardise: bool = False,
        octaves: Octaves = 6,
        frequency: Frequency = 64.0,
        max_level: MaxLevel = 0,
        depth: Level = 350,
        harmonise: Harmonised = (300, 150, 50),
        steps: Calls = 0,
        eta: Eta = 1.0,
        order: Literal[1, 2] = 1,
        clip: bool = True,
        perceptual: Literal["squeeze", "alex", "vgg", "none"] = "squeeze",
        perceptual_weights: LpipsWeights = "",
        sigma: Annotated[float, Range(0, 64, open="low")] = 2.0,
        side: Side = 13,
        quirks: Literal["none", "published"] = "none",
    ):
        levels_fit("depth", [depth], max_level or levels, "max_level" if max_level else "levels")
        super().__init__(size=size, channels=channels, network=network, schedule=schedule, levels=levels, target=target,
                         noise=noise, standardise=standardise, octaves=octaves, frequency=frequency,
                         max_level=max_level, depths=(depth,), steps=steps, eta=eta, order=order, clip=clip)  # fmt: skip
        below = [level for level in harmonise if level < depth]
        if not below or len(set(harmonise)) < len(harmonise):
            raise Fault(
                "RECIPE",
                f"restorer.harmonise = {list(harmonise)}",
                f"give different levels, at least one of them below restorer.depth = {depth}",
                exit=USAGE,
            )
        if quirks == "published" and ((target, schedule, levels, steps) != ("noise", "linear", 1000, 0) or depth > 999):
            raise Fault("RECIPE", "restorer.quirks = published is another loop",
                        "leave target, schedule, levels and steps at their defaults, and depth below 1000", exit=USAGE)  # fmt: skip
        self.depth, self.harmonise = depth, tuple(sorted(below, reverse=True))
        self.left_out = tuple(sorted(set(harmonise) - set(below), reverse=True))
        self.perceptual = Perceptual(perceptual, perceptual_weights)
        self.sigma, self.side, self.quirks = sigma, side, quirks

    @torch.no_grad()
    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        if self.quirks == "published":
            return thor_published.restore(self, images, self.noisy(draw))
        copies = self.noisy(draw)
        first = copies.noise(images)
        x = self.denoiser.noised(images, first, self.depth)
        maps, trail, levels = [], [], self.walk(self.depth)
        settings: dict[str, Any] = {"eta": self.eta, "order": self.order, "draw": copies, "clip": self.clip}
        for level in self.harmonise:
            here = levels.index(level)
            x = sample(self.denoiser, x, levels[: here + 1], **settings)
            clean = self.denoiser(x, level).clean.float()
            clean = clean.clamp(-1, 1) if self.clip else clean
            maps.append(self.difference(images, clean))
            trail.append(clean)
            x = self.denoiser.noised(self.blend(images, clean, maps[-1]), first, level)
            levels = levels[here:]
        x = sample(self.denoiser, x, levels, **settings)
        return Restoration(healthy=x.float(), trail=trail, map=harmonic_mean(torch.stack(maps))[:, 0])

    def difference(self, images: Tensor, clean: Tensor) -> Tensor:
        """The paper's m (B, 1, H, W): |x - x0|, images taken in [0, 1], times their perceptual distance up to 1."""
        with torch.autocast(images.device.type, enabled=False):
            distance = gaussian(self.perceptual(clean, images).float(), self.sigma).clamp(0, 1)
            return distance * (clean - images).float().abs().mean(1, keepdim=True) / 2

    def blend(self, images: Tensor, clean: Tensor, difference: Tensor) -> Tensor:
        """The clean estimate in and around the anomaly, the image elsewhere."""
        weight = region(peak_normalised(difference), self.side)
        return (weight * clean + (1 - weight) * images).clamp(-1, 1)

    def walk(self, depth: int) -> list[int]:
        return sorted({*super().walk(depth), *self.harmonise}, reverse=True)

    def network_calls(self) -> int:
        if self.quirks == "published":
            return self.depth + 1
        # A harmonised level is asked about twice: for the blend, and again from the blend.
        return len(self.walk(self.depth)) - 1 + len(self.harmonise)

    def describe(self) -> str:
        visited = f" {', '.join(map(str, self.harmonise))}" if self.left_out else ""
        words = f"|x - x0| x {self.perceptual.description}, harmonic mean over levels{visited}"
        return f"{words} as in the released code" if self.quirks == "published" else words
