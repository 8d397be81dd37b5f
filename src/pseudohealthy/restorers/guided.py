"""Classifier-guided DDIM: encode an image deterministically, decode it towards the healthy class.

Wolleb, Bieder, Sandkühler, Cattin: "Diffusion models for medical anomaly detection", MICCAI 2022, algorithm 1. Needs
image-level labels only: a class-conditional denoiser and a classifier of noisy images learn from healthy and diseased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.diffusion.denoiser import Denoiser, Estimate
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.diffusion.guidance import guide, input_gradient, log_probability
from pseudohealthy.diffusion.losses import hybrid, log_variance
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.ranges import Calls, Level, Levels, levels_fit
from pseudohealthy.settings import Range, build

ABLATION_START = 500  # the published ablation always noises to its step 499, wherever its loop then begins


@register("guided")
class Guided(Restorer):
    """Encode to level `depth`, decode with the gradient of log C(healthy | x_t, t) times `scale`.

    schedule, levels: noise schedule and its number of levels T. depth: the noise level L; scale: the gradient scale s.
    steps: network calls of each way; 0 walks every level as published. The classifier always gets the true level.
    order: 2 takes steps of second order where levels are skipped (see `sample`); for sampler "ddim".
    sampler: "ddim", or "ddpm" for the ablation: random noise to `depth`, then ancestral sampling with learned variance.
    data_range: what the networks see, "signed" [-1, 1] or "unit" [0, 1] as published.
    conditional: the denoiser gets the label, the image's in training, healthy both ways in restoring.
    clip: keep clean estimates in the data's range while decoding, before guidance.
    quirks: "published" repeats the released code: noise of level 1 is added before encoding, encoding starts at level 2
        with it and ends at L + 1, decoding starts at L - 1; both clip at [-1, 1] whatever the range; the ablation
        always starts from level 500.
    """

    paper = "Wolleb et al., MICCAI 2022; Dhariwal & Nichol, NeurIPS 2021"
    uses_labels = True
    nested = {"network": UNet, "classifier": Classifier}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        classifier: dict = {},  # noqa: B006 (read only)
        schedule: Literal["linear", "cosine"] = "linear",
        levels: Levels = 1000,
        depth: Level = 500,
        scale: Annotated[float, Range(0, 10_000)] = 100.0,
        steps: Calls = 0,
        order: Literal[1, 2] = 1,
        sampler: Literal["ddim", "ddpm"] = "ddim",
        data_range: Literal["signed", "unit"] = "signed",
        conditional: bool = True,
        clip: bool = True,
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        highest = max(depth + 1, ABLATION_START) if quirks == "published" else depth
        levels_fit(
            "depth", [depth], levels - (highest - depth), "levels, as published" if highest > depth else "levels"
        )
        if order == 2 and sampler == "ddpm":
            raise Fault(
                "RECIPE", f"restorer.order is {order} with sampler {sampler}", "choose 1, or 2 with ddim", exit=USAGE
            )
        given: dict[str, Any] = {"in_channels": channels, "out_channels": channels, "learned_variance": True}
        net = build(UNet, network, "restorer.network", **given, classes=2 if conditional else 0)
        self.denoiser = Denoiser(net, Schedule(schedule, levels), learned_variance=True)
        self.classifier = build(
            Classifier, classifier, "restorer.classifier", in_channels=channels, size=size, classes=2
        )
        side_fits(net, size, "restorer.network")
        self.depth, self.scale, self.steps, self.order, self.sampler = depth, scale, steps, order, sampler
        self.encodings: Encodings | None = None  # a sweep's: what several scales and depths share
        self.unit, self.conditional, self.clip = data_range == "unit", conditional, clip
        self.published = quirks == "published"
        self.low = 0.0 if self.unit and not self.published else -1.0

    def parts(self) -> tuple[str, ...]:
        return "denoiser", "classifier"

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Hybrid loss of the denoiser (Nichol & Dhariwal 2021, eq. 16); cross-entropy of the classifier on noisy images.

        Fault NO_LABELS (exit 3) where a plane has no label.
        """
        labels = batch.labels
        if labels is None or (labels < 0).any():
            raise Fault("NO_LABELS", "a training plane has no label", "label every training case 0 or 1", exit=NO_INPUT)
        x, draw = self.inwards(batch.images), batch.draw.fork(part)
        t = draw.integers(1, self.denoiser.schedule.steps + 1).to(x.device)
        noise = draw.noise(x)
        if part == "denoiser":
            error, bound = hybrid(self.denoiser, x, noise, t, low=self.low, **self.condition(labels))
            return error + bound
        logits = self.classifier(self.denoiser.noised(x, noise, t), t - 1)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        x = self.inwards(images)
        healthy = self.translate(x, draw) if self.sampler == "ddim" else self.resample(x, draw)
        return Restoration(healthy=(healthy * 2 - 1 if self.unit else healthy).float())

    def translate(self, x: Tensor, draw: Draw) -> Tensor:
        """Algorithm 1: encode to `depth`, decode with guidance. Nothing is random but the published noise."""
        up, down = self.walks()
        if self.published:
            x = self.denoiser.noised(x, draw.noise(x), 1)
        how = self.published, self.clip, self.low, self.order, torch.is_autocast_enabled(x.device.type)
        if self.encodings is None:
            x = self.encode(x, up)
        else:
            x = self.encodings.encode(x, up, self.encode, how=how, remembers=self.order > 1)
        edit = guide(log_probability(self.classifier, HEALTHY), self.scale, self.denoiser.schedule)
        settings: dict[str, Any] = {"order": self.order, "clip": False, **self.condition(HEALTHY)}
        return sample(self.estimate, x, down, edit=edit, schedule=self.denoiser.schedule, **settings)

    def encode(self, x: Tensor, up: Sequence[int]) -> Tensor:
        """The latent of an image; without clipping, which would break the inversion (the published code clips)."""
        denoise = self.estimate if self.published else self.denoiser
        settings: dict[str, Any] = {"order": self.order, "clip": False, **self.condition(HEALTHY)}
        return sample(denoise, x, up, schedule=self.denoiser.schedule, **settings)

    def resample(self, x: Tensor, draw: Draw) -> Tensor:
        """The ablation: noise, then ancestral sampling with mean + s * variance * gradient (Dhariwal & Nichol, alg. 1)."""
        schedule, levels = self.denoiser.schedule, self.walks()[1]
        then, log_p = dict(pairwise(levels)), log_probability(self.classifier, HEALTHY)

        def guided(x: Tensor, now: int, **condition: Any) -> Estimate:
            estimate = self.estimate(x, now, **condition)
            if self.scale:
                variance = learned_variance(schedule, now, then[now], estimate.spread)
                shift = self.scale * variance * input_gradient(log_p, x, now)
                estimate.clean = estimate.clean + shift / float(schedule.signal[then[now]])  # moves the mean by `shift`
            return estimate

        x = self.denoiser.noised(x, draw.noise(x), ABLATION_START if self.published else self.depth)
        settings: dict[str, Any] = {"eta": 1.0, "draw": draw, "clip": False, "variance": "learned"}
        return sample(guided, x, levels, schedule=schedule, **settings, **self.condition(HEALTHY))

    def estimate(self, x: Tensor, now: int, **condition: Any) -> Estimate:
        """The denoiser's estimate with the clean image in the data's range."""
        found = self.denoiser(x, now, **condition)
        if not self.clip or now == 0:
            return found
        a, s = self.denoiser.schedule.at(now, x)
        clean = found.clean.clamp(self.low, 1)
        return Estimate(clean, (x - a * clean) / s, found.spread)

    def walks(self) -> tuple[list[int], list[int]]:
        """Levels of the way up and of the way back."""
        bottom, top, back = (2, self.depth + 1, self.depth - 1) if self.published else (0, self.depth, self.depth)
        back = self.depth if self.sampler == "ddpm" else back
        steps = self.steps or self.depth
        return walk(bottom, top, steps), walk(back, 0, steps)

    def condition(self, label: int | Tensor) -> dict[str, Any]:
        return {"label": label} if self.conditional else {}

    def inwards(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] to the range the networks were trained on."""
        return (images + 1) / 2 if self.unit else images

    def network_calls(self) -> int:
        """Calls of the denoiser both ways, and of the classifier (forwards and backwards: one) on the way back."""
        up, down = (len(levels) - 1 for levels in self.walks())
        return (up if self.sampler == "ddim" else 0) + down * (2 if self.scale else 1)


def learned_variance(schedule: Schedule, now: int, then: int, v: Tensor | None) -> Tensor:
    """Variance of x_then given x_now as the network learned it; at the last step that of the step before bounds it."""
    assert v is not None, "the denoiser has learned variance"
    a, s, b, r = (float(table[level]) for level in (now, then) for table in (schedule.signal, schedule.sigma))
    large = 1 - (a / b) ** 2
    small = math.log(large * (r / s) ** 2) if then else float(schedule.posterior_log_variance[1])
    return log_variance(v, small, math.log(large)).exp()
