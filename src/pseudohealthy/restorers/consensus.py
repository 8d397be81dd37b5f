"""Consensus: the mean of many one-step estimates, measured in their spread on healthy images.

Ours. One clean estimate from noise is blurred and full of invented detail, but detail differs from
draw to draw and level to level while a lesion does not. So estimates are averaged, the signed
residual is smoothed before its magnitude is taken, and it is measured in spreads of the residuals
of healthy validation images: of each level (estimates from high levels err more, and count less),
or of each pixel too (they err more where anatomy varies, at the cortex or the skull).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import smooth
from pseudohealthy.marks import Range
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import FLOOR, Batch, HealthyResiduals, Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.noising import Diffusion, OneStep, Walk
from pseudohealthy.restorers.ranges import Sigma, Weights


@register("consensus")
class Consensus(Ddpm):
    """Mean of one-step estimates from the start levels, some draws each; trained like "ddpm".

    Args:
        sigma: Gaussian smoothing of the signed residual, model pixels.
        side: Of the residual that counts: "both", "brighter" or "darker" than healthy.
        calibration: The healthy residuals in whose spread the residual is measured: those of the
            same "pixel" (where images lie alike and lesions are not where health varies most), of
            the "level" as a whole, or "none".
        floor: Spread, as a fraction of that of all pixels together, below which no pixel is trusted
            (background never varies in healthy images).
    """

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        diffusion: Diffusion = Diffusion(),
        walk: OneStep = OneStep(start_levels=(100, 250, 400), draws=8),
        sigma: Sigma = 1.5,
        side: Literal["both", "brighter", "darker"] = "both",
        calibration: Literal["pixel", "level", "none"] = "level",
        floor: Annotated[float, Range(0, 10, open="low")] = FLOOR,
    ):
        one_step = Walk(walk.start_levels, walk.draws, walk.clip, calls=1, eta=0.0)
        super().__init__(
            size=size,
            channels=channels,
            network=network,
            weights=weights,
            diffusion=diffusion,
            walk=one_step,
        )
        self.sigma, self.side, self.calibration, self.floor = sigma, side, calibration, floor
        # One for each level, in place of the residual's
        self.register_buffer(
            "residual_mean", torch.zeros(len(walk.start_levels), channels, size, size)
        )
        self.register_buffer(
            "residual_spread", torch.ones(len(walk.start_levels), channels, size, size)
        )

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        restoration = super().restore(images, draw)
        reading = self.read(images, restoration)
        reading.without = [partial(self.reread, images, without) for without in restoration.without]
        return reading

    def reread(self, images: Tensor, without: Callable[[], Restoration]) -> Restoration:
        return self.read(images, without())

    def read(self, images: Tensor, restoration: Restoration) -> Restoration:
        """The restoration with the map of the estimates of each level."""
        residuals = self.residuals(images, restoration.trail)
        if self.calibration != "none":
            residuals = (residuals - self.residual_mean) / self.residual_spread
        signed = residuals.mean(1)
        signed = {"both": signed.abs(), "brighter": signed, "darker": -signed}[self.side].clamp(
            min=0
        )
        return Restoration(
            healthy=restoration.healthy.float(), trail=restoration.trail, map=signed.amax(1)
        )

    def residuals(self, images: Tensor, estimates: list[Tensor]) -> Tensor:
        """Smoothed signed residuals (B, levels, C, S, S), image less estimate."""
        return torch.stack(
            [smooth(images.float() - estimate.float(), self.sigma) for estimate in estimates], dim=1
        )

    def calibrate(self, batches: Iterable[Batch], amap: AnomalyMap) -> bool:
        """Store mean and spread of healthy residuals of each level, for the method's own map."""
        if self.calibration == "none":
            return False
        residuals = HealthyResiduals()
        for batch in batches:
            trail = super().restore(batch.images, batch.draw).trail
            residuals.add(self.residuals(batch.images, trail), batch.foreground)
        return residuals.fill(self, self.calibration, self.floor)

    def describe(self) -> str:
        starts = self.walk.start_levels
        words = (
            f"signed residual of the mean of {self.walk.draws * len(starts)} one-step estimates"
            f" from levels {', '.join(map(str, starts))}, smoothed by sigma {self.sigma:g} px"
        )
        planes = int(self.calibration_planes)
        if planes:
            words += f", in spreads (by {self.calibration}) of {planes} healthy validation planes"
        elif self.calibration != "none":
            words += ", not standardised (no healthy validation plane)"
        return words + ("" if self.side == "both" else f", {self.side} than healthy only")
