"""Mask, stitch, re-sample: partial diffusion marks a suspicious region, which is painted anew.

Bercea, Neumayr, Rueckert, Schnabel: "Mask, Stitch, and Re-Sample: enhancing robustness and
generalizability in anomaly detection through automatic diffusion models" (AutoDDPM), ICML IMLH
workshop 2023. Written from the paper's idea; the painting is RePaint's (Lugmayr et al., CVPR 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import walk as walked
from pseudohealthy.maps.morphology import dilate
from pseudohealthy.marks import Range
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.noising import Diffusion, Walk
from pseudohealthy.restorers.ranges import Calls, Level, Side, Weights, levels_fit
from pseudohealthy.settings import build, check_fields


@dataclass(frozen=True)
class Repaint:
    """How the masked region is painted anew.

    Args:
        level: Noise level from which it is painted.
        calls: Levels visited on the way down from there; 0 for all.
        repeats: Times that each of them is painted, noised again in between.
    """

    level: Level = 50
    calls: Calls = 0
    repeats: Annotated[int, Range(1, 100)] = 5

    def __post_init__(self) -> None:
        check_fields(self, "Repaint.{}".format)


@register("stitched")
class Stitched(Ddpm):
    """Restore from the start level, mask where the result differs, paint the masked region anew.

    Trained like "ddpm". The map is the residual of the painted image, times the suspicion.

    Args:
        threshold: Of the suspicion |x - x0| / its 95th percentile (at most 1) times the perceptual
            distance; 0.13 is the published one (5 % false positives in health), 0 takes each
            image's 95th percentile.
        side: Of the dilation of the mask, model pixels.
        perceptual: See `Perceptual`.
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
        walk: Walk = Walk(start_levels=(200,)),
        threshold: Annotated[float, Range(0, 1)] = 0.13,
        side: Side = 3,
        repaint: Repaint = Repaint(),
        perceptual: dict = {},  # noqa: B006 (read only)
    ):
        super().__init__(
            size=size,
            channels=channels,
            network=network,
            weights=weights,
            diffusion=diffusion,
            walk=walk,
        )
        walk.start()  # refuses several
        levels_fit("repaint.level", [repaint.level], diffusion.levels - 1, "diffusion.levels - 1")
        self.threshold, self.side, self.repeats = threshold, side, repaint.repeats
        self.repaint = walked(repaint.level, 0, repaint.calls or repaint.level)
        self.perceptual = build(Perceptual, perceptual, "restorer.perceptual")

    @torch.no_grad()
    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        coarse = super().restore(images, draw).healthy.float().clamp(-1, 1)
        suspicion = self.suspicion(images, coarse)
        mask = self.mask(suspicion)
        healthy = self.painted(images, coarse, mask, self.noisy(draw.fork("repaint")))
        residual = (images - healthy).abs().mean(1) / 2
        return Restoration(healthy=healthy, trail=[coarse, healthy], map=residual * suspicion[:, 0])

    def suspicion(self, images: Tensor, coarse: Tensor) -> Tensor:
        """How much the coarse healthy twin differs from the image, (B, 1, H, W) in [0, 1]."""
        residual = (images.float() - coarse).abs().mean(1, keepdim=True)
        high = residual.flatten(1).quantile(0.95, dim=1).view(-1, 1, 1, 1)
        return (residual / (high + 1e-8)).clamp(0, 1) * self.perceptual(coarse, images).clamp(0, 1)

    def mask(self, suspicion: Tensor) -> Tensor:
        """The region to paint, (B, 1, H, W), 0 or 1."""
        limit: float | Tensor = self.threshold
        if not self.threshold:
            limit = suspicion.flatten(1).quantile(0.95, dim=1).view(-1, 1, 1, 1)
        return dilate((suspicion > limit).float(), self.side)

    def painted(self, images: Tensor, coarse: Tensor, mask: Tensor, draw: Draw) -> Tensor:
        """The image with the masked region painted anew, conditioned on its surroundings.

        Args:
            images: (B, C, H, W).
            coarse: Healthy twins, from whose noised state painting starts.
            mask: (B, 1, H, W), 0 or 1.
        """
        x = self.denoiser.noised(coarse, draw.noise(images), self.repaint[0])
        signal = self.denoiser.schedule.signal
        for now, then in pairwise(self.repaint):
            for repeat in range(self.repeats):
                inside = self.walk.down(self.denoiser, x, [now, then], draw)
                outside = self.denoiser.noised(images, draw.noise(images), then) if then else images
                x = mask * inside.float() + (1 - mask) * outside
                # Back up, so that the next pass gets both parts of this one.
                if repeat + 1 < self.repeats:
                    keep = float(signal[now] / signal[then])
                    x = keep * x + (1 - keep**2) ** 0.5 * draw.noise(images)
        return x

    def network_calls(self) -> int:
        return super().network_calls() + self.repeats * (len(self.repaint) - 1)

    def describe(self) -> str:
        return f"|x - painted| x suspicion (residual x {self.perceptual.description})"
