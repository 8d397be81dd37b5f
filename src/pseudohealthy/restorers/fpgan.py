"""Fixed-Point GAN: translate an image to healthy, and change nothing that already is.

Siddiquee et al., "Learning fixed points in generative adversarial networks", ICCV 2019: the GAN
that Wolleb et al., MICCAI 2022 compare with. Needs image-level labels only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.networks.adversarial import PatchCritic, Translator, frozen, gradient_penalty
from pseudohealthy.networks.ranges import Channels, Size
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.ranges import Weight
from pseudohealthy.settings import build


@register("fpgan")
class FixedPointGAN(Restorer):
    """One generator translates to either label; a critic judges realness and label.

    As published five critic steps come for each of the generator. Here one, on the same batch, as
    Karras et al., ICLR 2018, use the same WGAN-GP loss.

    Args:
        class_weight, penalty_weight, cycle_weight, identity_weight: The lambdas of domain
            classification, gradient penalty, way there and back, and conditional identity (1, 10,
            10, 10 as published and in Wolleb 2022).
    """

    uses_labels = True
    nested = {"generator": Translator, "critic": PatchCritic}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        generator: dict = {},  # noqa: B006 (read only)
        critic: dict = {},  # noqa: B006 (read only)
        class_weight: Weight = 1.0,
        penalty_weight: Weight = 10.0,
        cycle_weight: Weight = 10.0,
        identity_weight: Weight = 10.0,
    ):
        super().__init__(size=size, channels=channels)
        if size % 4 or size < 8:  # one pixel in the middle has no instance norm
            raise Fault(
                "RECIPE",
                f"canvas.size = {size} for this method",
                "give one that 4 divides, at least 8",
                exit=USAGE,
            )
        self.critic = build(PatchCritic, critic, "restorer.critic", channels=channels, size=size)
        self.generator = build(Translator, generator, "restorer.generator", channels=channels)
        self.class_weight, self.penalty_weight = class_weight, penalty_weight
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight

    def parts(self) -> tuple[str, ...]:
        return "critic", "generator"

    def loss(self, batch: Batch, part: str) -> Tensor:
        """The paper's two objectives, with the adversarial terms in their Wasserstein form.

        Of a model in evaluation only the generator's cycle and identity terms, on which restoring
        rests, and 0 for the critic: adversarial losses do not rank weights.

        Raises:
            Fault: NO_LABELS (exit 3) where a plane has no label.
        """
        labels = batch.labels
        if labels is None or (labels < 0).any():
            raise Fault(
                "NO_LABELS",
                "a training plane has no label",
                "label every training case 0 or 1",
                exit=NO_INPUT,
            )
        if part == "generator":
            return self.generator_loss(batch.images, labels)
        return (
            self.critic_loss(batch, labels)
            if self.training
            else batch.images.new_zeros(len(labels))
        )

    def critic_loss(self, batch: Batch, labels: Tensor) -> Tensor:
        """Realness of translations less that of images, the images' labels, and gradient
        penalty."""
        x = batch.images
        with torch.no_grad():
            fake = self.generator(x, 1 - labels).float()
        real, logit = self.critic(x)
        share = batch.draw.fork("penalty").uniform()
        penalty = gradient_penalty(lambda mixed: self.critic(mixed)[0], x, fake, share)
        adversarial = self.critic(fake)[0].float() - real.float()
        return (
            adversarial + self.class_weight * entropy(logit, labels) + self.penalty_weight * penalty
        )

    def generator_loss(self, x: Tensor, labels: Tensor) -> Tensor:
        """Loss of translations to the other and to the same label.

        Both must look real, have that label and be reversible; the second must change nothing.
        """
        images, targets = torch.cat([x, x]), torch.cat([1 - labels, labels])
        translated = self.generator(images, targets)
        back = self.generator(translated, torch.cat([labels, labels]))
        cycle = distance(back, images).view(2, -1).sum(0)
        fidelity = self.cycle_weight * cycle + self.identity_weight * distance(
            translated[len(x) :], x
        )
        if not self.training:
            return fidelity
        real, logit = frozen(self.critic)(translated)
        adversarial = self.class_weight * entropy(logit, targets) - real.float()
        return fidelity + adversarial.view(2, -1).sum(0)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        healthy = torch.full((len(images),), HEALTHY, device=images.device)
        return Restoration(healthy=self.generator(images, healthy).float())

    def network_calls(self) -> int:
        return 1


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference of each item, (B,)."""
    return (a.float() - b.float()).abs().flatten(1).mean(1)


def entropy(logit: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (B,) of labels 0 or 1."""
    return F.binary_cross_entropy_with_logits(logit.float(), labels.float(), reduction="none")
