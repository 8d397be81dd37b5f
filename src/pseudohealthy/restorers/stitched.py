"""Mask, stitch, re-sample: partial diffusion finds a suspicious region, which alone is then painted anew.

Bercea, Neumayr, Rueckert, Schnabel: "Mask, Stitch, and Re-Sample: enhancing robustness and generalizability in anomaly
detection through automatic diffusion models" (AutoDDPM), ICML IMLH workshop 2023. Written from the paper's idea; the
painting is RePaint's (Lugmayr et al., CVPR 2022).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.maps.morphology import dilate
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.ranges import (
    Calls,
    Eta,
    Frequency,
    Level,
    Levels,
    LpipsWeights,
    MaxLevel,
    Octaves,
    Side,
    levels_fit,
)
from pseudohealthy.settings import Range


@register("stitched")
class Stitched(Ddpm):
    """Restore from `depth`, mask where that differs, then paint the masked region from level `repaint`.

    Trained like "ddpm". threshold: of the suspicion |x - x0| / its 95th percentile (at most 1) times the perceptual
        distance; 0.13 is the published one (5 % false positives in health), 0 takes each image's 95th percentile.
    side: of the dilation of the mask, pixels. repaint_steps: levels visited on the way down from `repaint`, 0 for all;
        repeats: times that each of them is painted, noised again in between.
    perceptual, perceptual_weights: see `Perceptual`.
    The map is the residual against the painted image, times the suspicion.
    """

    paper = "Bercea et al., AutoDDPM, ICML IMLH 2023"
    dictated = ("size", "channels", "depths", "draws", "variance", "quirks")

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
        depth: Level = 200,
        steps: Calls = 0,
        eta: Eta = 1.0,
        clip: bool = True,
        threshold: Annotated[float, Range(0, 1)] = 0.13,
        side: Side = 3,
        repaint: Level = 50,
        repaint_steps: Calls = 0,
        repeats: Annotated[int, Range(1, 100)] = 5,
        perceptual: Literal["squeeze", "alex", "vgg", "none"] = "squeeze",
        perceptual_weights: LpipsWeights = "",
    ):
        levels_fit("depth", [depth], max_level or levels, "max_level" if max_level else "levels")
        super().__init__(size=size, channels=channels, network=network, schedule=schedule, levels=levels, target=target,
                         noise=noise, standardise=standardise, octaves=octaves, frequency=frequency,
                         max_level=max_level, depths=(depth,), steps=steps, eta=eta, clip=clip)  # fmt: skip
        levels_fit("repaint", [repaint], levels - 1, "levels - 1")
        self.threshold, self.side, self.repeats = threshold, side, repeats
        self.repaint = walk(repaint, 0, repaint_steps or repaint)
        self.perceptual = Perceptual(perceptual, perceptual_weights)

    @torch.no_grad()
    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        coarse = super().restore(images, draw).healthy.float().clamp(-1, 1)
        suspicion = self.suspicion(images, coarse)
        mask = self.mask(suspicion)
        healthy = self.painted(images, coarse, mask, self.noisy(draw.fork("repaint")))
        residual = (images - healthy).abs().mean(1) / 2
        return Restoration(healthy=healthy, trail=[coarse, healthy], map=residual * suspicion[:, 0])

    def suspicion(self, images: Tensor, coarse: Tensor) -> Tensor:
        """How much the coarse restoration differs, (B, 1, H, W) in [0, 1]."""
        residual = (images.float() - coarse).abs().mean(1, keepdim=True)
        high = residual.flatten(1).quantile(0.95, dim=1).view(-1, 1, 1, 1)
        return (residual / (high + 1e-8)).clamp(0, 1) * self.perceptual(coarse, images).clamp(0, 1)

    def mask(self, suspicion: Tensor) -> Tensor:
        """What is to be painted, (B, 1, H, W), 0 or 1."""
        limit: float | Tensor = self.threshold
        if not self.threshold:
            limit = suspicion.flatten(1).quantile(0.95, dim=1).view(-1, 1, 1, 1)
        return dilate((suspicion > limit).float(), self.side)

    def painted(self, images: Tensor, coarse: Tensor, mask: Tensor, draw: Draw) -> Tensor:
        """The image with the masked region drawn anew from the coarse restoration, in keeping with what surrounds it."""
        x = self.denoiser.noised(coarse, draw.noise(images), self.repaint[0])
        signal = self.denoiser.schedule.signal
        for now, then in pairwise(self.repaint):
            for repeat in range(self.repeats):
                inside = sample(self.denoiser, x, [now, then], eta=self.eta, draw=draw, clip=self.clip)
                outside = self.denoiser.noised(images, draw.noise(images), then) if then else images
                x = mask * inside.float() + (1 - mask) * outside
                if repeat + 1 < self.repeats:  # back up, so that the next pass sees both parts of this one
                    keep = float(signal[now] / signal[then])
                    x = keep * x + (1 - keep**2) ** 0.5 * draw.noise(images)
        return x

    def network_calls(self) -> int:
        return super().network_calls() + self.repeats * (len(self.repaint) - 1)

    def describe(self) -> str:
        return f"|x - painted| x suspicion (residual x {self.perceptual.description})"
