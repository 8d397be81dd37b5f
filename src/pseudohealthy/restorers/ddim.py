"""Deterministic encoding and decoding: DDIM upwards to a level, then back, with a model of healthy images only.

The restoration of Wolleb et al. 2022 (Algorithm 1) without its classifier: what guidance adds is measured against this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.restorers.base import Restoration, register
from pseudohealthy.restorers.ddpm import Ddpm


@register("ddim")
class Ddim(Ddpm):
    """Encode to each of `depths` in `steps` network calls (0: every level) and decode in as many; no noise is drawn.

    Trained like "ddpm"; `eta`, `draws`, `variance` and the noise of the way up have no meaning here and are refused.
    """

    paper = "Song et al., DDIM, ICLR 2021; Wolleb et al., MICCAI 2022 (without classifier)"
    dictated = ("size", "channels", "eta", "draws", "variance", "quirks")

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        trail = []
        for depth in self.depths:
            back = self.walk(depth)
            # Clipping would break the inversion upwards; downwards it keeps the decoder on the data's range.
            latent = sample(self.denoiser, images, back[::-1], order=self.order, clip=False)
            down = walk(depth, 0, len(back) - 1)
            trail.append(sample(self.denoiser, latent, down, order=self.order, clip=self.clip))
        return Restoration(healthy=torch.stack(trail).mean(0), trail=trail)

    def network_calls(self) -> int:
        return 2 * super().network_calls()
