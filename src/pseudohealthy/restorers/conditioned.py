"""Conditioned diffusion: the denoiser is conditioned on an encoder's vector of the clean input.

cDDPM (Behrendt et al., Computers in Biology and Medicine 186, 2025; arXiv 2312.04215). The vector
is a bottleneck: contrast and scanner pass it, a lesion should not.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor, nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.marks import File
from pseudohealthy.networks.ranges import Channels, Size, norms_fit, side_fits
from pseudohealthy.networks.resnet import ResNet
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.noising import Diffusion, OneStep
from pseudohealthy.restorers.patched import shared_fields
from pseudohealthy.settings import build


class EncodedDenoiser(nn.Module):
    """Encoder and denoiser as one part, trained jointly by one loss."""

    def __init__(self, encoder: ResNet, denoiser: Denoiser):
        super().__init__()
        self.encoder, self.denoiser = encoder, denoiser

    def context(self, images: Tensor) -> Tensor:
        """Vector (B, outputs) of clean images in [-1, 1]; the encoder, as published, gets them in
        [0, 1]."""
        return self.encoder((images + 1) / 2)


@register("conditioned")
class Conditioned(Restorer):
    """The mean of one-step estimates from start levels, conditioned on a vector of the input.

    Args:
        encoder: The ResNet; its vector passes two layers, is concatenated to the time embedding
            and, with network.block.scale_shift, scales and shifts the features of every residual
            block (paper, section 3.2).
        encoder_weights: Weights file of a "spark" run with the same encoder, from which training
            starts; read then only, a trained run does without it.
        walk: The published ensemble starts at 250, 500 and 750, with noise of its own for each.
        quirks: "published" has one float16 simplex field for all planes of a call.
    """

    nested = {"network": UNet, "encoder": ResNet}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        encoder: dict = {},  # noqa: B006 (read only)
        encoder_weights: Annotated[str, File("the weights file of a `spark` run, or nothing")] = "",
        diffusion: Diffusion = Diffusion(schedule="cosine", target="clean", noise="simplex"),
        walk: OneStep = OneStep(start_levels=(250, 500, 750)),
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        walk.fits(diffusion)
        resnet = build(ResNet, encoder, "restorer.encoder", in_channels=channels)
        shape = {"channels": channels, "condition": {"vector": resnet.outputs}}
        net = build(UNet, network, "restorer.network", **shape)
        self.model = EncodedDenoiser(resnet, diffusion.denoiser(net))
        side_fits(net, size, "restorer.network")
        self.encoder_weights, self.diffusion, self.walk = encoder_weights, diffusion, walk
        self.shared = quirks == "published" and diffusion.noise == "simplex"

    def fits(self, batch: int) -> None:
        norms_fit(batch * math.ceil(self.size / self.model.encoder.factor) ** 2, "restorer.encoder")

    def parts(self) -> tuple[str, ...]:
        return ("model",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.model.encoder, self.encoder_weights),)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Mean absolute error of the clean estimate at a random noise level."""
        images, draw = batch.images, batch.draw
        t = self.diffusion.drawn_levels(draw, images)
        if self.shared:
            noise = shared_fields(draw, images, ("training", draw.keys[0]))
        else:
            noise = self.diffusion.noisy(draw).noise(images)
        noised = self.model.denoiser.noised(images, noise, t)
        clean = self.model.denoiser(noised, t, vector=self.model.context(images)).clean
        errors = (clean - images).float().abs().flatten(1).mean(1)
        return self.diffusion.weighted(errors, self.model.denoiser.schedule, t)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        context = self.model.context(images)
        starts = self.walk.start_levels
        estimates = [self.estimates(images, context, start, draw) for start in starts]
        return averaged(estimates, self.walk.clip)

    def estimates(self, images: Tensor, context: Tensor, level: int, draw: Draw) -> Tensor:
        """Clean estimates (B, draws, C, S, S) of images noised to one level.

        Args:
            images: (B, C, S, S) in [-1, 1], without noise.
            context: (B, outputs), `EncodedDenoiser.context` of these images, or of others (paper,
                figure 3).
            level: Noise level, 1..levels.
            draw: Noise of the B images.
        """
        copied, vector = (
            tensor.repeat_interleave(self.walk.draws, 0) for tensor in (images, context)
        )
        noised = self.model.denoiser.noised(copied, self.fields(images, level, draw), level)
        clean = self.model.denoiser(noised, level, vector=vector).clean.float()
        return clean.unflatten(0, (-1, self.walk.draws))

    def fields(self, images: Tensor, level: int, draw: Draw) -> Tensor:
        """The noise of each image and draw at one level, (B draws, C, S, S)."""
        if self.shared:
            return shared_fields(draw, images, f"depth {level}", self.walk.draws).repeat(
                len(images), 1, 1, 1
            )
        noise = self.diffusion.noisy(draw.fork(f"depth {level}")).repeat(self.walk.draws)
        return noise.noise(images.repeat_interleave(self.walk.draws, 0))

    def network_calls(self) -> int:
        return self.walk.draws * len(self.walk.start_levels) + 1  # one for the encoder
