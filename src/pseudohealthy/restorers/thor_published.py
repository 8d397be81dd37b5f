"""THOR as released (commit bf807c0), with all its deviations from the paper.

From a description of that code's behaviour. What differs from `Thor` with quirks "none":

- levels are 0-based, so that a start of 350 is one level higher and takes 351 network calls;
- the schedule's tables are computed in float32, and the last step does not quite end at the clean
  estimate;
- the blend is clipped to [0, 1] although images live in [-1, 1];
- a harmonised image is noised to level t, but the next network call gets t - 1;
- the perceptual distance gets images scaled to [-1, 1] twice, that is in [-3, 1];
- its Gaussian filter also runs along the batch, so that images of a batch change each other's maps;
- maps are divided by their maximum, every 50th level counts as well, and they enter the harmonic
  mean undilated;
- the blend's weight is the mean of that map and its closed and dilated form;
- the map is cut at 0.999 and its mean is the score;
- all images of a batch share one simplex field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps.morphology import gaussian, harmonic_mean, peak_normalised, region
from pseudohealthy.restorers.base import Restoration

if TYPE_CHECKING:
    from pseudohealthy.restorers.thor import Thor

EVERY = 50  # a map is taken at every so many levels, besides the harmonised ones


def restore(thor: Thor, images: Tensor, draw: Draw, every: int = EVERY) -> Restoration:
    """The published loop.

    Args:
        images: (B, C, S, S) in [-1, 1].
        draw: Noise of thor's kind.
    """
    beta = torch.linspace(1e-4, 0.02, 1000, device=images.device)
    product = torch.cumprod(1 - beta, 0)
    # Unlike the paper's walk also at `start` itself.
    start, blended = (thor.start, (*thor.left_out, *thor.harmonised))

    def noise() -> Tensor:
        field = draw.noise(images)
        return field[:1].expand_as(field) if thor.diffusion.noise == "simplex" else field

    def noised(clean: Tensor, t: int) -> Tensor:
        return product[t].sqrt() * clean + (1 - product[t]).sqrt() * first_noise

    first_noise = noise()
    x, maps, trail = noised(images, start), [], []
    for t in range(start, -1, -1):
        estimate = thor.denoiser.raw(x, t + 1).float()
        clean = ((x - (1 - product[t]).sqrt() * estimate) / product[t].sqrt()).clamp(-1, 1)
        before = product[t - 1] if t else torch.ones_like(product[0])
        x = (before.sqrt() * beta[t] * clean + (1 - beta[t]).sqrt() * (1 - before) * x) / (
            1 - product[t]
        )
        if t:
            x = x + (beta[t] * (1 - before) / (1 - product[t])).clamp(min=1e-20).sqrt() * noise()
        if t in blended or t % every == 0:
            maps.append(difference(thor, images, clean))
            trail.append(clean)
        if t in blended:
            weight = ((region(maps[-1], thor.side) + maps[-1]) / 2).clamp(0, 1)
            x = noised((weight * clean + (1 - weight) * images).clamp(0, 1), t)
    final = harmonic_mean(torch.stack(maps)).clamp(0, 0.999)[:, 0]
    return Restoration(
        healthy=x.clamp(-1, 1), trail=trail, map=final, score=final.flatten(1).mean(1)
    )


def difference(thor: Thor, images: Tensor, clean: Tensor) -> Tensor:
    """The published intermediate map (B, 1, H, W) in [0, 1]."""
    with torch.autocast(images.device.type, enabled=False):
        distance = thor.perceptual(2 * clean.float() - 1, 2 * images.float() - 1)
        distance = gaussian(distance, thor.sigma, axes=(0, -2, -1)).clamp(0, 1)
        return peak_normalised(distance * (clean - images).float().abs().mean(1, keepdim=True) / 2)
