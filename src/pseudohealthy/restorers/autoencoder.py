"""Methods of one pass: autoencoder, variational and denoising autoencoder of healthy images.

AE and VAE as in the comparison of Baur et al., Medical Image Analysis 2021; DAE with coarse noise,
Kascenas et al., MIDL 2022.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.marks import Range
from pseudohealthy.networks.autoencoder import ConvAutoencoder
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.ranges import Square, Weight
from pseudohealthy.settings import build


@register("autoencoder")
class Autoencoder(Restorer):
    """Encode and decode; the bottleneck (ae, vae) or the learned denoising (dae) removes anomalies.

    Args:
        kind: "ae", "vae" or "dae", which is trained to remove coarse Gaussian noise.
        beta: Weight of the KL divergence of "vae".
        corruption: Spread of the noise of "dae", in [-1, 1] units.
        coarse: How many times coarser than the image the grid is on which that noise is drawn
            before it is upsampled (Kascenas: 16 px of 128).
    """

    nested = {"network": ConvAutoencoder}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        kind: Literal["ae", "vae", "dae"] = "ae",
        beta: Weight = 1e-3,
        corruption: Annotated[float, Range(0, 10)] = 0.4,
        coarse: Square = 8,
    ):
        super().__init__(size=size, channels=channels)
        shape = {"channels": channels, "size": size, "kind": kind}
        self.network = build(ConvAutoencoder, network, "restorer.network", **shape)
        self.kind, self.beta, self.corruption, self.coarse = kind, beta, corruption, coarse

    def parts(self) -> tuple[str, ...]:
        return ("network",)

    def loss(self, batch: Batch, part: str) -> Tensor:
        x = batch.images
        if self.kind == "dae":
            # Noise only where there is tissue: the background is exact in skull-stripped and
            # windowed images.
            x = x + self.corruption * self.coarse_noise(x, batch.draw) * batch.foreground[:, None]
        output, divergence = self.network(x, batch.draw)
        error = (output - batch.images).float().square().flatten(1).mean(1)
        return error if divergence is None else error + self.beta * divergence.float()

    def coarse_noise(self, x: Tensor, draw: Draw) -> Tensor:
        """Noise (B, C, S, S) of unit spread on the coarse grid, bilinear in between.

        Each item's grid lies at a random offset.
        """
        grid = x[..., :: self.coarse, :: self.coarse]
        noise = F.interpolate(
            draw.noise(grid), size=x.shape[-2:], mode="bilinear", align_corners=False
        )
        moves = (torch.stack([draw.uniform(), draw.uniform()], 1) * self.size).long().tolist()
        return torch.stack(
            [field.roll(move, (-2, -1)) for field, move in zip(noise, moves, strict=True)]
        )

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        return Restoration(healthy=self.network(images, None)[0].float())

    def network_calls(self) -> int:
        return 1
