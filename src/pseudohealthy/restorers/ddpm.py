"""Partial diffusion: noise an image to a chosen depth and denoise it back with a model of healthy images only.

AnoDDPM (Wyatt et al., CVPR Workshops 2022) with simplex noise; with Gaussian noise the DDPM baseline of pDDPM, cDDPM
and THOR, and the experiment of the haemorrhage poster. What the model has never seen is not put back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.ranges import (
    Calls,
    Depths,
    Draws,
    Eta,
    Frequency,
    Levels,
    MaxLevel,
    Octaves,
    Weights,
    highest,
    levels_fit,
)
from pseudohealthy.settings import build


@register("ddpm")
class Ddpm(Restorer):
    """Noise to `depths`, denoise, average.

    weights: a run or a diffusers folder whose network training starts from; read then only. "" starts from scratch.
    schedule, levels: noise schedule and its number of levels T. target: what the network predicts.
    noise: "gaussian" or "simplex": `octaves` of it, persistence 0.8, the longest wave `frequency` pixels (6 and 64 as
        published, on 256 px; the wave should match the lesions), brought to unit variance when `standardise`.
    max_level: training draws levels 1..max_level (0: all of them; AnoDDPM trains on the lowest 800).
    depths: levels to noise to; several are averaged. steps: network calls on the way back from the deepest; 0 walks
        every level as published, 1 is the one-step estimate. eta: 1 ancestral (DDPM), 0 deterministic (DDIM): prefer 0
        when levels are skipped, and then order 2, steps of second order (see `sample`). draws: noise draws, averaged.
    clip: keep clean estimates in [-1, 1] on the way. variance: of the noise added on the way down with eta 1, the
        posterior's, or beta ("large", as AnoDDPM does).
    quirks: "published" repeats a limit of AnoDDPM's code: all images of a batch share one simplex field.
    """

    paper = "Wyatt et al., AnoDDPM, CVPRW 2022; Ho et al., DDPM, NeurIPS 2020"
    nested = {"network": UNet}
    # AnoDDPM and THOR take planes of three-dimensional noise. Where does not matter: every field has a permutation of
    # its own. (Not a multiple of the frequencies: gradient noise is zero at its lattice points.)
    simplex_settings: ClassVar[dict[str, float]] = {"z": 250.7}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        schedule: Literal["linear", "cosine"] = "linear",
        levels: Levels = 1000,
        target: Literal["noise", "clean", "velocity"] = "noise",
        noise: Literal["gaussian", "simplex"] = "gaussian",
        standardise: bool = False,
        octaves: Octaves = 6,
        frequency: Frequency = 64.0,
        max_level: MaxLevel = 0,
        depths: Depths = (250,),
        steps: Calls = 0,
        eta: Eta = 1.0,
        order: Literal[1, 2] = 1,
        draws: Draws = 1,
        clip: bool = True,
        variance: Literal["posterior", "large"] = "posterior",
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        if order == 2 and eta > 0 and "eta" not in self.dictated:
            raise Fault(
                "RECIPE", f"restorer.order is {order} with eta {eta:g}", "choose 1, or 2 with eta 0", exit=USAGE
            )
        net = build(UNet, network, "restorer.network", in_channels=channels, out_channels=channels)
        self.denoiser = Denoiser(net, Schedule(schedule, levels), target=target)
        side_fits(net, size, "restorer.network")
        self.weights, self.noise, self.max_level = weights, noise, highest(max_level, levels)
        levels_fit("depths", depths, self.max_level, "max_level" if max_level else "levels")
        self.simplex = {"standardise": standardise, "octaves": octaves, "frequency": frequency, **self.simplex_settings}
        self.depths, self.steps, self.eta, self.draws, self.clip = depths, steps, eta, draws, clip
        self.variance, self.quirks, self.order = variance, quirks, order

    def parts(self) -> tuple[str, ...]:
        return ("denoiser",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.denoiser.network, self.weights),)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Mean squared error between the network's output and its target at a random level (Ho et al., eq. 14)."""
        draw = self.noisy(batch.draw)
        t = draw.integers(1, self.max_level + 1).to(batch.images.device)
        noise = draw.noise(batch.images)
        noised = self.denoiser.noised(batch.images, noise, t)
        error = self.denoiser.raw(noised, t) - self.denoiser.target_of(batch.images, noise, t)
        return error.float().square().flatten(1).mean(1)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        found = []
        for depth in self.depths:
            noise = self.fields(self.noisy(draw.fork(f"depth {depth}")).repeat(self.draws))
            x = images.repeat_interleave(self.draws, 0)
            x = self.denoiser.noised(x, noise(x), depth)
            x = sample(self.denoiser, x, self.walk(depth), eta=self.eta, order=self.order, draw=noise, clip=self.clip,
                       variance=self.variance)  # fmt: skip
            found.append(x.unflatten(0, (-1, self.draws)))
        return averaged(found)

    def walk(self, depth: int) -> list[int]:
        return walk(depth, 0, min(self.steps or depth, depth))

    def noisy(self, draw: Draw) -> Draw:
        """The same stream, giving this method's kind of noise."""
        if self.noise == "gaussian":
            return draw.of_kind("gaussian")
        return draw.of_kind("simplex", **self.simplex)

    def fields(self, draw: Draw) -> Callable[[Tensor], Tensor]:
        """The draw, or what the published code makes of it: one field for the whole batch."""
        if self.noise == "gaussian" or self.quirks == "none":
            return draw
        return lambda like: draw.noise(like)[:1].expand_as(like)

    def network_calls(self) -> int:
        return self.draws * sum(len(self.walk(depth)) - 1 for depth in self.depths)
