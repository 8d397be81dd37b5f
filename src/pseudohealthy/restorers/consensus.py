"""Consensus: what many cheap one-step estimates agree on, judged by how they err on healthy images.

Ours. One clean estimate from noise is blurred and full of invented detail, but detail differs from draw to draw and
level to level while a lesion does not: so estimates are averaged, the signed residual is smoothed before its magnitude
is taken, and it is measured, pixel by pixel and level by level, in spreads of the residuals of healthy validation
images (which are large where anatomy varies, at the cortex or the skull, and there should count less).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps import smooth
from pseudohealthy.restorers.base import Batch, Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm

PRIOR = 8  # healthy planes that the spread of all pixels together counts for in the spread of one pixel


@register("consensus")
class Consensus(Ddpm):
    """Mean of one-step estimates from `depths`, `draws` each; trained like "ddpm".

    sigma: Gaussian smoothing of the signed residual, model pixels. side: of the residual that counts: "both",
        "brighter" or "darker" than healthy.
    calibration: what healthy residuals the residual is measured in: those of the same "pixel" (where images lie alike
        and lesions are not where health varies most), of the "level" as a whole, or "none".
    floor: spread, as a fraction of that of all pixels together, below which no pixel is trusted (background never
        varies in healthy images).
    """

    paper = "own"
    dictated = ("size", "channels", "steps", "eta", "variance", "quirks")

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
        depths: tuple[int, ...] = (150, 250, 350),
        draws: int = 4,
        clip: bool = True,
        sigma: float = 1.5,
        side: Literal["both", "brighter", "darker"] = "both",
        calibration: Literal["pixel", "level", "none"] = "pixel",
        floor: float = 0.5,
    ):
        super().__init__(size=size, channels=channels, network=network, schedule=schedule, levels=levels, target=target,
                         noise=noise, standardise=standardise, max_level=max_level, depths=depths, steps=1, eta=0.0,
                         draws=draws, clip=clip)  # fmt: skip
        self.sigma, self.side, self.calibration, self.floor = sigma, side, calibration, floor
        # Of the smoothed residuals of healthy images, per level and pixel, in [-1, 1] units
        self.register_buffer("residual_mean", torch.zeros(len(depths), channels, size, size))
        self.register_buffer("residual_spread", torch.ones(len(depths), channels, size, size))
        self.register_buffer("calibration_planes", torch.tensor(0))

    residual_mean: Tensor
    residual_spread: Tensor
    calibration_planes: Tensor

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        restored = super().restore(images, draw)
        residuals = self.residuals(images, restored.trail)
        if self.calibration != "none":
            residuals = (residuals - self.residual_mean) / self.residual_spread
        signed = residuals.mean(1)
        signed = {"both": signed.abs(), "brighter": signed, "darker": -signed}[self.side].clamp(min=0)
        return Restoration(healthy=restored.healthy.float(), trail=restored.trail, map=signed.amax(1))

    def residuals(self, images: Tensor, estimates: list[Tensor]) -> Tensor:
        """Smoothed signed residuals (B, levels, C, S, S), image less estimate."""
        with torch.autocast(images.device.type, enabled=False):
            each = [smooth(images.float() - estimate.float(), self.sigma) for estimate in estimates]
        return torch.stack(each, dim=1)

    def calibrate(self, batches: Iterable[Batch]) -> bool:
        """Mean and spread of healthy residuals, drawn towards those of all foreground pixels while images are few."""
        if self.calibration == "none":
            return False
        count, inside = 0, torch.zeros((), dtype=torch.float64)
        total = square = pooled = torch.zeros(1, dtype=torch.float64)
        for batch in batches:
            found = self.residuals(batch.images, super().restore(batch.images, batch.draw).trail).double()
            count += len(found)
            total, square = total.to(found.device) + found.sum(0), square.to(found.device) + found.square().sum(0)
            within = batch.foreground.to(found.device)[:, None, None]
            pooled = pooled.to(found.device) + (found.square() * within).sum((0, 2, 3, 4))
            inside = inside.to(found.device) + within.sum() * self.channels
        if count == 0:
            return False
        common = (pooled / inside.clamp(min=1)).view(-1, 1, 1, 1)  # mean square per level
        self.calibration_planes.fill_(count)
        if self.calibration == "level":
            self.residual_mean.zero_()
            self.residual_spread.copy_(common.sqrt().clamp(min=1e-6).expand_as(self.residual_spread))
            return True
        mean = total / (count + PRIOR)
        variance = (square + PRIOR * common) / (count + PRIOR) - mean.square()
        self.residual_mean.copy_(mean)
        self.residual_spread.copy_((variance.clamp(min=0) + self.floor**2 * common).sqrt().clamp(min=1e-6))
        return True

    def describe(self) -> str:
        words = (f"signed residual of the mean of {self.draws * len(self.depths)} one-step estimates from levels "
                 f"{', '.join(map(str, self.depths))}, smoothed by sigma {self.sigma:g} px")  # fmt: skip
        planes = int(self.calibration_planes)
        if planes:
            words += f", in spreads (by {self.calibration}) of {planes} healthy validation planes"
        elif self.calibration != "none":
            words += ", not standardised (no healthy validation plane)"
        return words + ("" if self.side == "both" else f", {self.side} than healthy only")
