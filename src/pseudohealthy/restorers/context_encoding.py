"""The context-encoding variational autoencoder of Zimmerer et al. 2018.

It is the VAE that Wolleb et al. 2022 compare with. Two tasks share one encoder and one decoder. The
variational one is that of every VAE. The context-encoding one gets the image with squares painted
over and must give back the whole image; its code is the mean, without a prior.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.maps.filters import smooth
from pseudohealthy.marks import Range
from pseudohealthy.networks.autoencoder import ConvAutoencoder
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.ranges import Sigma, Weight
from pseudohealthy.settings import build


@register("cevae")
class ContextEncodingVAE(Restorer):
    """A VAE that also learned to fill in squares; the map is residual times gradient of the KL.

    Args:
        beta: Of the KL divergence, beside squared errors that are averaged over pixels.
        context: Share of the context-encoding loss in the loss, 0 to 1; 0.5 weighs both tasks
            alike, 0 is a plain VAE.
        squares: An image has 1 to so many squares painted over with noise.
        side: Of the largest square, as a share of the image's side; the smallest has a quarter of
            it.
        score: "combined" is |x - x_healthy| times |dKL/dx|, element by element, both summed over
            channels: what cannot be rebuilt and what makes the code improbable. "residual" is the
            plain residual, as for every other method.
        blur: Gaussian sigma of the gradient, model pixels; it is noisy from pixel to pixel.
    """

    nested = {"network": ConvAutoencoder}
    unfiltered = True  # the product is smoothed as a residual would be

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        beta: Weight = 1e-3,
        context: Annotated[float, Range(0, 1)] = 0.5,
        squares: Annotated[int, Range(1, 64)] = 3,
        side: Annotated[float, Range(0, 1, open="low")] = 0.4,
        score: Literal["combined", "residual"] = "combined",
        blur: Sigma = 1.0,
    ):
        super().__init__(size=size, channels=channels)
        shape = {"channels": channels, "size": size, "kind": "vae"}
        self.network = build(ConvAutoencoder, network, "restorer.network", **shape)
        self.beta, self.context, self.squares, self.side = beta, context, squares, side
        self.score, self.blur = score, blur

    def parts(self) -> tuple[str, ...]:
        return ("network",)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """(1 - context) (error of x + beta KL) + context (error of x from x with painted
        squares)."""
        x = batch.images
        rebuilt, divergence = self.network(x, batch.draw)
        variational = _error(rebuilt, x) + self.beta * divergence.float()
        if not self.context:
            return variational
        # The mean; no divergence.
        filled, _ = self.network(self.painted(x, batch.draw.fork("context")), None)
        return (1 - self.context) * variational + self.context * _error(filled, x)

    def painted(self, x: Tensor, draw: Draw) -> Tensor:
        """Images (B, C, S, S) with noise in squares whose number, size and place are drawn by
        item."""
        noise = draw.noise(x).clamp(-1, 1)
        count = draw.integers(1, self.squares + 1)
        rows = torch.arange(self.size, device=x.device)
        hidden = torch.zeros(len(x), self.size, self.size, dtype=torch.bool, device=x.device)
        for number in range(self.squares):
            side = (
                (self.size * self.side * (0.25 + 0.75 * draw.uniform())).round().clamp(1, self.size)
            )
            spans = []
            for _ in ("down", "across"):
                start = (draw.uniform() * (self.size - side + 1)).floor().to(x.device)[:, None]
                spans.append((rows >= start) & (rows < start + side.to(x.device)[:, None]))
            counted = (number < count).to(x.device)[:, None, None]
            hidden |= spans[0][:, :, None] & spans[1][:, None, :] & counted
        return torch.where(hidden[:, None], noise, x)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        if self.score == "residual":
            return Restoration(healthy=self.network(images, None)[0].float())
        with torch.inference_mode(False), torch.enable_grad():
            x = images.detach().clone().requires_grad_()
            healthy, divergence = self.network(x, None)
            (gradient,) = torch.autograd.grad(divergence.float().sum(), x)
        healthy = healthy.detach().float()
        residual = (images.float() - healthy).abs().sum(1)
        return Restoration(
            healthy=healthy, map=residual * smooth(gradient.float().abs(), self.blur).sum(1)
        )

    def describe(self) -> str:
        return "" if self.score == "residual" else "residual times gradient of the KL divergence"

    def network_calls(self) -> int:
        return 1


def _error(rebuilt: Tensor, x: Tensor) -> Tensor:
    """Mean squared error of each item, (B,)."""
    return (rebuilt - x).float().square().flatten(1).mean(1)
