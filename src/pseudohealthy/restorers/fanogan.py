"""f-AnoGAN: an encoder gives the code whose image, by a generator of healthy images, is nearest.

Schlegl, Seeböck, Waldstein, Langs, Schmidt-Erfurth: "f-AnoGAN: fast unsupervised anomaly detection
with generative adversarial networks", Medical Image Analysis 2019. Learns from healthy images
alone.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.marks import Range
from pseudohealthy.networks.adversarial import Critic, Generator, frozen, gradient_penalty
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.ranges import Weight
from pseudohealthy.settings import build


@register("fanogan")
class FAnoGAN(Restorer):
    """WGAN-GP of healthy images, and an encoder trained from image to code to image ("izi_f").

    As published the encoder is trained when the GAN is finished, after five critic steps for each
    of the generator. Here it learns alongside, from the current generator and critic, which its
    loss does not change; and all take one step a batch.

    Args:
        encoder: a network of the critic's kind that ends in a code.
        latent: Numbers in a code, standard normal (128 as published).
        kappa: Weight of the feature residual (1 as published).
        penalty_weight: Of the gradient penalty (10 as published).
        score: "map" takes the score from the map as for every method; "paper" is A(x), the mean
            squared residual of the image plus `kappa` times that of the critic's features.
    """

    nested = {"generator": Generator, "critic": Critic, "encoder": Critic}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        generator: dict = {},  # noqa: B006 (read only)
        critic: dict = {},  # noqa: B006 (read only)
        encoder: dict = {},  # noqa: B006 (read only)
        latent: Annotated[int, Range(1, 65_536)] = 128,
        kappa: Weight = 1.0,
        penalty_weight: Weight = 10.0,
        score: Literal["map", "paper"] = "map",
    ):
        super().__init__(size=size, channels=channels)
        shape = {"channels": channels, "size": size}
        self.generator = build(Generator, generator, "restorer.generator", **shape, latent=latent)
        self.critic = build(Critic, critic, "restorer.critic", **shape, outputs=1)
        self.encoder = build(Critic, encoder, "restorer.encoder", **shape, outputs=latent)
        self.latent = latent
        self.kappa = kappa
        self.penalty_weight = penalty_weight
        self.score = score

    def parts(self) -> tuple[str, ...]:
        return "critic", "generator", "encoder"

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Wasserstein losses of critic and generator; izi_f of the encoder.

        Of a model in evaluation only the encoder's image residual, and 0 for the others:
        adversarial losses do not rank weights, and features of a critic that learns are no fixed
        measure.
        """
        x = batch.images
        if part == "encoder":
            image, feature = self.residuals(x, self.generator_of_codes(x))
            return image + self.kappa * feature if self.training else image
        if not self.training:
            return x.new_zeros(len(x))
        draw = batch.draw.fork(part)
        z = draw.noise(x.new_empty(len(x), self.latent))
        if part == "generator":
            return -frozen(self.critic)(self.generator(z))[0][:, 0].float()
        with torch.no_grad():
            fake = self.generator(z).float()
        penalty = gradient_penalty(
            lambda mixed: self.critic(mixed)[0][:, 0], x, fake, draw.uniform()
        )
        adversarial = (self.critic(fake)[0] - self.critic(x)[0])[:, 0].float()
        return adversarial + self.penalty_weight * penalty

    def generator_of_codes(self, x: Tensor) -> Tensor:
        """G(E(x)), (B, C, S, S), whose gradients reach the encoder alone."""
        return frozen(self.generator)(self.encoder(x)[0])

    def residuals(self, x: Tensor, twin: Tensor) -> tuple[Tensor, Tensor]:
        """Mean squared differences (B,) of images and of their features in the frozen critic."""
        judge = frozen(self.critic)
        features = judge(twin)[1].float() - judge(x)[1].float()
        return (twin.float() - x.float()).square().flatten(1).mean(1), features.square().mean(1)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        twin = self.generator(self.encoder(images)[0])
        if self.score == "map":
            return Restoration(healthy=twin.float())
        image, feature = self.residuals(images, twin)
        return Restoration(healthy=twin.float(), score=image + self.kappa * feature)

    def network_calls(self) -> int:
        """Calls of encoder and generator, and for the paper's score two of the critic."""
        return 2 if self.score == "map" else 4
