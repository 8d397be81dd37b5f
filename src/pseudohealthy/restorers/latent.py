"""Latent diffusion: partial diffusion of an autoencoder's code instead of the image.

"Evaluate adding noise to the latent space" is the future work of the haemorrhage poster; the two
stages are those of Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models,
CVPR 2022, trained side by side.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.networks.autoencoder import ConvAutoencoder
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.noising import Diffusion, Walk
from pseudohealthy.restorers.ranges import Weight
from pseudohealthy.settings import build

# Weight of one batch in the running statistics of the code, after the first hundred.
SLOWEST = 0.01


@register("latent")
class Latent(Restorer):
    """Encode, noise the code to the start levels, denoise, average the codes, decode once.

    Args:
        autoencoder: The first stage; with `levels` = 3 its code has a quarter of the side, with 4
            an eighth.
        code: Channels of the code.
        kind: "vae" (KL to a standard normal, weighted by `beta`) or "ae" (no penalty).
        network: The denoiser of the code, which it gets with mean 0 and spread 1 per channel by
            running statistics, learnt while training and fixed in use. It learns on the code of
            that step; the encoder does not learn from it.
        walk: Of the code. Codes are never clipped.
        against: What the healthy code's image is compared with. "reconstruction": the healthy twin
            is the image plus the change from the decoded code to the decoded healthy code, so that
            what the autoencoder blurs is no anomaly (and what it cannot encode cannot be
            detected); "image": the healthy twin is the decoded healthy code.
    """

    nested = {"network": UNet, "autoencoder": ConvAutoencoder}
    dictated = (
        "size",
        "channels",
        "walk.clip",
        "diffusion.noise",
        "diffusion.standardise",
        "diffusion.octaves",
        "diffusion.frequency",
    )

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        autoencoder: dict = {},  # noqa: B006 (read only)
        code: Channels = 4,
        kind: Literal["ae", "vae"] = "vae",
        beta: Weight = 1e-6,
        diffusion: Diffusion = Diffusion(),
        walk: Walk = Walk(clip=False),
        against: Literal["reconstruction", "image"] = "reconstruction",
    ):
        super().__init__(size=size, channels=channels)
        shape = {"channels": channels, "size": size, "kind": kind, "spatial": code}
        self.autoencoder = build(ConvAutoencoder, autoencoder, "restorer.autoencoder", **shape)
        net = build(UNet, network, "restorer.network", channels=code)
        self.denoiser = diffusion.denoiser(net)
        side_fits(net, self.autoencoder.shape[-1], "restorer.network of the code")
        walk.fits(diffusion)
        self.beta, self.against = beta, against
        self.diffusion, self.walk = diffusion, walk
        self.register_buffer("code_mean", torch.zeros(code, 1, 1))
        self.register_buffer("code_square", torch.ones(code, 1, 1))  # mean square
        self.register_buffer("code_batches", torch.tensor(0))

    code_mean: Tensor
    code_square: Tensor
    code_batches: Tensor

    def parts(self) -> tuple[str, ...]:
        return ("autoencoder", "denoiser")

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Squared error and divergence of the autoencoder; of the denoiser as "ddpm", on the
        code."""
        if part == "autoencoder":
            output, divergence = self.autoencoder(batch.images, batch.draw.fork("code"))
            error = (output - batch.images).float().square().flatten(1).mean(1)
            return error if divergence is None else error + self.beta * divergence.float()
        with torch.no_grad():
            code = self.autoencoder.encoded(batch.images)[0].float()
            if self.training:
                self.follow(code)
        code = self.standard(code)
        t = self.diffusion.drawn_levels(batch.draw, code)
        noise = batch.draw.noise(code)
        error = self.denoiser.raw(
            self.denoiser.noised(code, noise, t), t
        ) - self.denoiser.target_of(code, noise, t)
        errors = error.float().square().flatten(1).mean(1)
        return self.diffusion.weighted(errors, self.denoiser.schedule, t)

    def follow(self, code: Tensor) -> None:
        """Move the statistics towards those of a batch of codes (B, K, s, s), over all
        processes."""
        moments = torch.stack([code.mean((0, 2, 3)), code.square().mean((0, 2, 3))])[
            ..., None, None
        ]
        if dist.is_initialized():
            dist.all_reduce(moments)
            moments /= dist.get_world_size()
        self.code_batches += 1
        weight = max(1 / int(self.code_batches), SLOWEST)
        self.code_mean.lerp_(moments[0], weight)
        self.code_square.lerp_(moments[1], weight)

    def spread(self) -> Tensor:
        return (self.code_square - self.code_mean.square()).clamp(min=1e-8).sqrt()

    def standard(self, code: Tensor) -> Tensor:
        """The code with mean 0 and spread 1 per channel."""
        return (code - self.code_mean) / self.spread()

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        def edit(code: Tensor) -> Tensor:
            healthy = self.restored(code.float(), draw)
            return healthy if self.against == "image" else torch.cat([healthy, code.float()])

        decoded = self.autoencoder(images, edit=edit)[0].float()
        if self.against == "image":
            return Restoration(healthy=decoded.clamp(-1, 1))
        after, before = decoded.chunk(2)
        return Restoration(healthy=(images.float() + after - before).clamp(-1, 1))

    def restored(self, code: Tensor, draw: Draw) -> Tensor:
        """The healthy code (B, K, s, s): the mean over start levels and draws."""
        draws = self.walk.draws
        code, codes = self.standard(code).repeat_interleave(draws, 0), []
        for start in self.walk.start_levels:
            noise = draw.fork(f"depth {start}").repeat(draws)
            x = self.denoiser.noised(code, noise(code), start)
            x = self.walk.down(self.denoiser, x, self.walk.levels(start), noise)
            codes.append(x.float().unflatten(0, (-1, draws)).mean(1))
        return torch.stack(codes).mean(0) * self.spread() + self.code_mean

    def network_calls(self) -> int:
        walks = sum(len(self.walk.levels(start)) - 1 for start in self.walk.start_levels)
        return 1 + self.walk.draws * walks  # one for the autoencoder
