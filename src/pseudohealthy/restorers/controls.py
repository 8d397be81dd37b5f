"""Trivial controls, which learn nothing and stand in every comparison beside the methods.

They score by area, brightness or a template. On FLAIR a threshold beats many models (Meissen et al.
2021); the area of a plane alone separates CT haemorrhage at AUROC .72. A method must beat them.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.marks import Range
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers import REGISTRY
from pseudohealthy.restorers.base import Restoration, Restorer, register


def brightness(images: Tensor) -> Tensor:
    """Intensity (B, S, S) in [0, 1], the mean over channels."""
    return ((images + 1) / 2).mean(1)


@register("identity")
class Identity(Restorer):
    """The image as its own healthy twin, with an empty map: any score comes from the evaluation."""

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        return Restoration(healthy=images)


@register("mean-intensity")
class MeanIntensity(Restorer):
    """Intensity as the map, its mean over the image as the score."""

    unfiltered = True

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        light = brightness(images)
        return Restoration(healthy=images, map=light, score=light.flatten(1).mean(1))


@register("bright-area")
class BrightArea(Restorer):
    """Saturated pixels as the map, their share of the image as the score.

    Args:
        level: Share of the range from which a pixel is saturated.
    """

    unfiltered = True

    def __init__(
        self, *, size: Size, channels: Channels, level: Annotated[float, Range(0, 1)] = 0.98
    ):
        super().__init__(size=size, channels=channels)
        self.level = level

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        bright = (brightness(images) >= self.level).float()
        return Restoration(healthy=images, map=bright, score=bright.flatten(1).mean(1))


@register("intensity")
class Intensity(Restorer):
    """Intensity threshold: intensity as the map, scored like every other map."""

    unfiltered = True

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        return Restoration(healthy=images, map=brightness(images))


@register("histogram-intensity")
class HistogramIntensity(Restorer):
    """Intensity after histogram equalisation as the map.

    It is the share of an image's tissue that is no brighter than a pixel. Beat several published
    models on FLAIR (Meissen et al. 2021); here with ranks instead of 256 bins. Tissue is estimated
    as the pixels brighter than the canvas' darkest value, -1; all others are 0.
    """

    unfiltered = True

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        light = brightness(images).float().flatten(1)
        tissue = light > 0
        ordered = light.masked_fill(~tissue, torch.inf).sort(1).values
        below = torch.searchsorted(ordered, light.contiguous(), right=True)
        share = below * tissue / tissue.sum(1, keepdim=True).clamp(min=1)
        return Restoration(healthy=images, map=share.view(len(images), *images.shape[-2:]))


@register("healthy-mean")
class HealthyMean(Restorer):
    """The mean healthy training image as the healthy twin of every image."""

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        return Restoration(healthy=self.healthy_mean.expand_as(images).clone())


@register("z-score")
class ZScore(Restorer):
    """Distance to the healthy mean in healthy spreads, |x - mean| / (spread + floor), by pixel.

    Args:
        floor: Keeps pixels that never vary in health (background) finite; in [-1, 1] units.
    """

    unfiltered = True

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        floor: Annotated[float, Range(0, 10, open="low")] = 0.05,
    ):
        super().__init__(size=size, channels=channels)
        self.floor = floor

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        z = (images - self.healthy_mean).abs() / (self.healthy_spread + self.floor)
        return Restoration(
            healthy=self.healthy_mean.expand_as(images).clone(), map=torch.amax(z, 1)
        )


CONTROLS = (
    "identity",
    "mean-intensity",
    "bright-area",
    "intensity",
    "histogram-intensity",
    "healthy-mean",
    "z-score",
)


def control_restorers(model: Restorer) -> dict[str, Restorer]:
    """The trivial controls at default settings, with the healthy mean and spread of a model."""
    controls: dict[str, Restorer] = {}
    for name in CONTROLS:
        control = REGISTRY[name](size=model.size, channels=model.channels)
        control.healthy_mean.copy_(model.healthy_mean)
        control.healthy_spread.copy_(model.healthy_spread)
        controls[name] = control.eval()
    return controls
