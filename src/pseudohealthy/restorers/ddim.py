"""Deterministic encoding and decoding by DDIM, with a model of healthy images only.

The method of Wolleb et al. 2022 (Algorithm 1) without its classifier, for comparison with guidance.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm
from pseudohealthy.restorers.noising import Diffusion, Walk
from pseudohealthy.restorers.ranges import Weights


@register("ddim")
class Ddim(Ddpm):
    """Encode to each start level, and decode in as many network calls; no noise is drawn.

    Trained like "ddpm". Settings of noise on the way, `walk.eta`, `walk.draws` and `walk.variance`,
    have no meaning here and are refused.
    """

    dictated = ("size", "channels", "walk.eta", "walk.draws", "walk.variance")

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        diffusion: Diffusion = Diffusion(),
        walk: Walk = Walk(eta=0.0),
    ):
        super().__init__(
            size=size,
            channels=channels,
            network=network,
            weights=weights,
            diffusion=diffusion,
            walk=walk,
        )

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        trail, step = [], self.walk.step
        for start in self.walk.start_levels:
            back = self.levels(start)
            # Clipping would break the inversion upwards; downwards it keeps the decoder on the
            # data's range.
            latent = sample(self.denoiser, images, back[::-1], step=step(), clip=False)
            trail.append(self.walk.down(self.denoiser, latent, walk(start, 0, len(back) - 1)))
        return Restoration(healthy=torch.stack(trail).mean(0), trail=trail)

    def network_calls(self) -> int:
        return 2 * super().network_calls()
