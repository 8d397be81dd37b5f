"""Partial diffusion: noise an image to a level and denoise it with a model of healthy images only.

AnoDDPM (Wyatt et al., CVPR Workshops 2022) with simplex noise; with Gaussian noise the DDPM that
pDDPM, cDDPM and THOR compare with, and the experiment of the haemorrhage poster. What the model has
not learned is not restored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.noising import Diffusion, Walk
from pseudohealthy.restorers.ranges import Weights
from pseudohealthy.settings import build

# AnoDDPM and THOR take planes of three-dimensional noise. Which plane does not matter: every field
# has its own permutation. (Not a multiple of the frequencies: gradient noise is zero at its lattice
# points.)
PLANE = 250.7


@register("ddpm")
class Ddpm(Restorer):
    """Noise to the start levels of the walk, denoise, average.

    Args:
        weights: a run or a diffusers folder whose network training starts from; read then only. ""
            starts from scratch.
        diffusion: What the network learns, see `Diffusion`.
        walk: How an image is restored, see `Walk`.
        quirks: "published" repeats a limit of AnoDDPM's code: all images of a batch share one
            simplex field.
    """

    nested = {"network": UNet}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        diffusion: Diffusion = Diffusion(),
        walk: Walk = Walk(),
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        walk.fits(diffusion)
        net = build(UNet, network, "restorer.network", channels=channels)
        side_fits(net, size, "restorer.network")
        self.denoiser = diffusion.denoiser(net)
        self.diffusion, self.walk, self.weights, self.quirks = diffusion, walk, weights, quirks

    def parts(self) -> tuple[str, ...]:
        return ("denoiser",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.denoiser.network, self.weights),)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Mean squared error of the output at a random noise level (Ho et al., equation 14)."""
        draw = self.noisy(batch.draw)
        t = self.diffusion.drawn_levels(draw, batch.images)
        noise = draw.noise(batch.images)
        noised = self.denoiser.noised(batch.images, noise, t)
        error = self.denoiser.raw(noised, t) - self.denoiser.target_of(batch.images, noise, t)
        errors = error.float().square().flatten(1).mean(1)
        return self.diffusion.weighted(errors, self.denoiser.schedule, t)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        draws, estimates = self.walk.draws, []
        for start in self.walk.start_levels:
            noise = self.fields(self.noisy(draw.fork(f"depth {start}")).repeat(draws))
            x = images.repeat_interleave(draws, 0)
            x = self.denoiser.noised(x, noise(x), start)
            x = self.walk.down(self.denoiser, x, self.levels(start), noise)
            estimates.append(x.unflatten(0, (-1, draws)))
        return averaged(estimates)

    def levels(self, start: int) -> list[int]:
        """The noise levels of the way back from `start`."""
        return self.walk.levels(start)

    def noisy(self, draw: Draw) -> Draw:
        """The same stream, with this method's kind of noise."""
        return self.diffusion.noisy(draw, z=PLANE)

    def fields(self, draw: Draw) -> Callable[[Tensor], Tensor]:
        """The draw; as published, one simplex field for the whole batch."""
        if self.diffusion.noise == "gaussian" or self.quirks == "none":
            return draw
        return lambda like: draw.noise(like)[:1].expand_as(like)

    def network_calls(self) -> int:
        return self.walk.draws * sum(
            len(self.levels(start)) - 1 for start in self.walk.start_levels
        )
