"""Partial diffusion: noise an image to a chosen depth and denoise it back with a model of healthy images only.

AnoDDPM (Wyatt et al., CVPR Workshops 2022) with simplex noise; with Gaussian noise the DDPM baseline of pDDPM, cDDPM
and THOR, and the experiment of the haemorrhage poster. What the model has never seen is not put back.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.networks.unet import UNet
from pseudohealthy.recipe import build
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register


@register("ddpm")
class Ddpm(Restorer):
    """Noise to `depths`, denoise, average.

    schedule, levels: noise schedule and its number of levels T. target: what the network predicts.
    noise: "gaussian" or "simplex" (6 octaves, persistence 0.8, frequency 64, as published; brought to unit variance
        when `standardise`).
    max_level: training draws levels 1..max_level (0: all of them; AnoDDPM trains on the lowest 800).
    depths: levels to noise to; several are averaged. steps: network calls on the way back from the deepest; 0 walks
        every level as published, 1 is the one-step estimate. eta: 1 ancestral (DDPM), 0 deterministic (DDIM): prefer 0
        when levels are skipped. draws: noise draws that are averaged.
    clip: keep clean estimates in [-1, 1] on the way.
    """

    paper = "Wyatt et al., AnoDDPM, CVPRW 2022; Ho et al., DDPM, NeurIPS 2020"
    nested = {"network": UNet}

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        network: dict = {},  # noqa: B006 (read only)
        schedule: Literal["linear", "cosine"] = "linear",
        levels: int = 1000,
        target: Literal["noise", "clean", "velocity"] = "noise",
        noise: Literal["gaussian", "simplex"] = "gaussian",
        standardise: bool = False,
        max_level: int = 0,
        depths: tuple[int, ...] = (250,),
        steps: int = 0,
        eta: float = 1.0,
        draws: int = 1,
        clip: bool = True,
    ):
        super().__init__(size=size, channels=channels)
        net = build(UNet, network, "restorer.network", in_channels=channels, out_channels=channels)
        self.denoiser = Denoiser(net, Schedule(schedule, levels), target=target)
        self.noise, self.standardise, self.max_level = noise, standardise, max_level or levels
        self.depths, self.steps, self.eta, self.draws, self.clip = depths, steps, eta, draws, clip

    def parts(self) -> tuple[str, ...]:
        return ("denoiser",)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Mean squared error between the network's output and its target at a random level (Ho et al., eq. 14)."""
        draw = self.noisy(batch.draw)
        t = draw.integers(1, self.max_level + 1).to(batch.images.device)
        noise = draw.noise(batch.images)
        noised = self.denoiser.noised(batch.images, noise, t)
        error = self.denoiser.raw(noised, t) - self.denoiser.target_of(batch.images, noise, t)
        return error.float().square().flatten(1).mean(1)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        trail = []
        for depth in self.depths:
            copies = self.noisy(draw.fork(f"depth {depth}")).repeat(self.draws)
            x = images.repeat_interleave(self.draws, 0)
            x = self.denoiser.noised(x, copies.noise(x), depth)
            x = sample(self.denoiser, x, self.walk(depth), eta=self.eta, draw=copies, clip=self.clip)
            trail.append(x.unflatten(0, (-1, self.draws)).mean(1))
        return Restoration(healthy=torch.stack(trail).mean(0), trail=trail)

    def walk(self, depth: int) -> list[int]:
        return walk(depth, 0, min(self.steps or depth, depth))

    def noisy(self, draw: Draw) -> Draw:
        """The same stream, giving this method's kind of noise."""
        return draw.of_kind(self.noise, **({"standardise": self.standardise} if self.noise == "simplex" else {}))

    def network_calls(self) -> int:
        return self.draws * sum(len(self.walk(depth)) - 1 for depth in self.depths)
