"""Conditioned diffusion: the denoiser is told, by an encoder of the clean input, what the image looks like overall.

cDDPM (Behrendt et al., Computers in Biology and Medicine 186, 2025; arXiv 2312.04215). The vector is a bottleneck:
contrast and scanner pass it, a lesion should not.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from torch import Tensor, nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.networks.ranges import Channels, Size, norms_fit, side_fits
from pseudohealthy.networks.resnet import ResNet
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.patched import shared_fields
from pseudohealthy.restorers.ranges import Depths, Draws, Levels, levels_fit
from pseudohealthy.settings import File, build


class EncodedDenoiser(nn.Module):
    """Encoder and denoiser, one part: they are trained jointly by one loss."""

    def __init__(self, encoder: ResNet, denoiser: Denoiser):
        super().__init__()
        self.encoder, self.denoiser = encoder, denoiser

    def context(self, images: Tensor) -> Tensor:
        """Vector (B, outputs) of clean images in [-1, 1]; the encoder, as published, sees them in [0, 1]."""
        return self.encoder((images + 1) / 2)


@register("conditioned")
class Conditioned(Restorer):
    """Noise to each of `depths`, estimate the clean image in one step given the encoder's vector of the input, average.

    encoder: the ResNet; its vector passes two layers, is concatenated to the time embedding and, with
        network.scale_shift, scales and shifts the features of every residual block (paper, section 3.2).
    encoder_weights: weights file of a "spark" run with the same encoder, from which training starts; read then only,
        a trained run does without it.
    schedule, levels, target, noise, standardise: as of "ddpm". depths: the published ensemble t = 250, 500, 750, with
        noise of its own for each. draws: noise draws that are averaged at each. clip: keep the estimate in [-1, 1].
    quirks: "published" has one float16 simplex field for all slices of a call.
    """

    paper = "Behrendt et al., Guided Reconstruction with Conditioned Diffusion Models, Comput. Biol. Med. 2025"
    nested = {"network": UNet, "encoder": ResNet}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        encoder: dict = {},  # noqa: B006 (read only)
        encoder_weights: Annotated[str, File("the weights file of a `spark` run, or nothing")] = "",
        schedule: Literal["linear", "cosine"] = "cosine",
        levels: Levels = 1000,
        target: Literal["noise", "clean", "velocity"] = "clean",
        noise: Literal["gaussian", "simplex"] = "simplex",
        standardise: bool = False,
        depths: Depths = (250, 500, 750),
        draws: Draws = 1,
        clip: bool = True,
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        levels_fit("depths", depths, levels, "levels")
        eye = build(ResNet, encoder, "restorer.encoder", in_channels=channels)
        shape = {"in_channels": channels, "out_channels": channels, "vector": eye.outputs}
        net = build(UNet, network, "restorer.network", **shape)
        self.model = EncodedDenoiser(eye, Denoiser(net, Schedule(schedule, levels), target=target))
        side_fits(net, size, "restorer.network")
        self.encoder_weights = encoder_weights
        self.noise, self.standardise, self.depths, self.draws, self.clip = noise, standardise, depths, draws, clip
        self.shared = quirks == "published" and noise == "simplex"

    def fits(self, batch: int) -> None:
        norms_fit(batch * math.ceil(self.size / self.model.encoder.factor) ** 2, "restorer.encoder")

    def parts(self) -> tuple[str, ...]:
        return ("model",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.model.encoder, self.encoder_weights),)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Mean absolute error of the clean estimate at a random level."""
        images, draw = batch.images, batch.draw
        t = draw.integers(1, self.model.denoiser.schedule.steps + 1).to(images.device)
        if self.shared:
            noise = shared_fields(draw, images, ("training", draw.keys[0]))
        else:
            noise = self.noisy(draw).noise(images)
        noised = self.model.denoiser.noised(images, noise, t)
        clean = self.model.denoiser(noised, t, vector=self.model.context(images)).clean
        return (clean - images).float().abs().flatten(1).mean(1)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        context = self.model.context(images)
        return averaged([self.estimates(images, context, depth, draw) for depth in self.depths], self.clip)

    def estimates(self, images: Tensor, context: Tensor, depth: int, draw: Draw) -> Tensor:
        """Clean estimates (B, draws, C, S, S) of images noised to one level.

        Args:
            images: (B, C, S, S) in [-1, 1]; they are noised.
            context: (B, outputs), `EncodedDenoiser.context` of these images, or of others (paper, figure 3).
            depth: noise level, 1..levels.
            draw: noise of the B images.
        """
        copied, vector = (one.repeat_interleave(self.draws, 0) for one in (images, context))
        noised = self.model.denoiser.noised(copied, self.fields(images, depth, draw), depth)
        clean = self.model.denoiser(noised, depth, vector=vector).clean.float()
        return clean.unflatten(0, (-1, self.draws))

    def fields(self, images: Tensor, depth: int, draw: Draw) -> Tensor:
        """The noise of each image and draw at one level, (B draws, C, S, S)."""
        if self.shared:
            return shared_fields(draw, images, f"depth {depth}", self.draws).repeat(len(images), 1, 1, 1)
        noise = self.noisy(draw.fork(f"depth {depth}")).repeat(self.draws)
        return noise.noise(images.repeat_interleave(self.draws, 0))

    def noisy(self, draw: Draw) -> Draw:
        """The same stream, giving this method's kind of noise."""
        return draw.of_kind(self.noise, **({"standardise": self.standardise} if self.noise == "simplex" else {}))

    def network_calls(self) -> int:
        return self.draws * len(self.depths) + 1  # the encoder counts as one
