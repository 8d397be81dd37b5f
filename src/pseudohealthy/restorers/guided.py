"""Classifier-guided DDIM: encode an image deterministically, decode it towards the healthy class.

Wolleb, Bieder, Sandkühler, Cattin: "Diffusion models for medical anomaly detection", MICCAI 2022,
algorithm 1. Needs image-level labels only: a class-conditional denoiser and a classifier of noisy
images learn from healthy and diseased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.diffusion.denoiser import Estimate
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.diffusion.guidance import guide, input_gradient, log_probability
from pseudohealthy.diffusion.losses import hybrid, log_variance
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import ancestral, sample, walk
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.marks import Range
from pseudohealthy.networks.classifier import Classifier
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.restorers.noising import Diffusion, Walk
from pseudohealthy.restorers.ranges import Weights, levels_fit
from pseudohealthy.settings import build, check_fields

# The published ablation always noises to its 0-based index 499, wherever its loop then begins.
ABLATION_START = 500


@dataclass(frozen=True)
class Guidance:
    """How decoding is guided towards the healthy class.

    Args:
        scale: The gradient scale s.
        sampler: "ddim", or "ddpm" for the ablation: random noise to the start level, then ancestral
            sampling with learned variance.
        conditional: The denoiser is conditioned on the label, the image's in training, healthy both
            ways in restoring.
        data_range: Of the networks' images, "signed" [-1, 1] or "unit" [0, 1] as published.
    """

    scale: Annotated[float, Range(0, 10_000)] = 100.0
    sampler: Literal["ddim", "ddpm"] = "ddim"
    conditional: bool = True
    data_range: Literal["signed", "unit"] = "signed"

    def __post_init__(self) -> None:
        check_fields(self, "Guidance.{}".format)


@register("guided")
class Guided(Restorer):
    """Encode to the start level L, decode guided by the gradient of log C(healthy | x_t, t).

    The classifier always gets the true noise level.

    Args:
        weights: a "guided" run whose denoiser training starts from; read then only.
        walk: `start_levels` is the noise level L; `calls` are those of each way, 0 walks every
            level as published; `order` is for sampler "ddim"; `clip` keeps clean estimates in the
            data's range while decoding, before guidance.
        quirks: "published" repeats the released code: noise of level 1 is added before encoding,
            encoding starts at level 2 with it and ends at L + 1, decoding starts at L - 1; both
            clip at [-1, 1] whatever the range; the ablation always starts from level 500.
    """

    uses_labels = True
    nested = {"network": UNet, "classifier": Classifier}
    dictated = (
        "size",
        "channels",
        "walk.draws",
        "walk.eta",
        "walk.variance",
        *(
            f"diffusion.{key}"
            for key in (
                "target",
                "weighting",
                "max_level",
                "noise",
                "standardise",
                "octaves",
                "frequency",
            )
        ),
    )

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        classifier: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        diffusion: Diffusion = Diffusion(),
        walk: Walk = Walk(start_levels=(500,), eta=0.0),
        guidance: Guidance = Guidance(),
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        self.start, levels = walk.start(), diffusion.levels
        highest = max(self.start + 1, ABLATION_START) if quirks == "published" else self.start
        levels_fit(
            "walk.start_levels",
            [self.start],
            levels - (highest - self.start),
            "diffusion.levels" + (", as published" if highest > self.start else ""),
        )
        if walk.order == 2 and guidance.sampler == "ddpm":
            message = (
                f"restorer.walk.order is {walk.order} with restorer.guidance.sampler"
                f" {guidance.sampler}"
            )
            raise Fault("RECIPE", message, "choose 1, or 2 with ddim", exit=USAGE)
        output = {"channels": channels, "learned_variance": True}
        condition = {"classes": 2 if guidance.conditional else 0}
        net = build(UNet, network, "restorer.network", **output, condition=condition)
        self.denoiser = diffusion.denoiser(net, learned_variance=True)
        shape = {"in_channels": channels, "size": size, "classes": 2}
        self.classifier = build(Classifier, classifier, "restorer.classifier", **shape)
        side_fits(net, size, "restorer.network")
        self.diffusion, self.walk, self.guidance, self.weights = diffusion, walk, guidance, weights
        self.scale, self.conditional, self.clip = guidance.scale, guidance.conditional, walk.clip
        self.encodings: Encodings | None = None  # a sweep's cache for several scales and starts
        self.unit, self.published = guidance.data_range == "unit", quirks == "published"
        self.low = 0.0 if self.unit and not self.published else -1.0

    def parts(self) -> tuple[str, ...]:
        return "denoiser", "classifier"

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.denoiser.network, self.weights),)

    def loss(self, batch: Batch, part: str) -> Tensor:
        """Hybrid loss of the denoiser, cross-entropy of the classifier, both on noisy images.

        The hybrid loss is equation 16 of Nichol & Dhariwal 2021.

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
        x, draw = self.inwards(batch.images), batch.draw.fork(part)
        t = self.diffusion.drawn_levels(draw, x)
        noise = draw.noise(x)
        if part == "denoiser":
            error, bound = hybrid(
                self.denoiser, x, noise, t, low=self.low, **self.condition(labels)
            )
            return error + bound
        logits = self.classifier(self.denoiser.noised(x, noise, t), t - 1)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        x = self.inwards(images)
        healthy = (
            self.translate(x, draw) if self.guidance.sampler == "ddim" else self.resample(x, draw)
        )
        return Restoration(healthy=(healthy * 2 - 1 if self.unit else healthy).float())

    def translate(self, x: Tensor, draw: Draw) -> Tensor:
        """Algorithm 1: encode to the start level, decode with guidance.

        Nothing is random, except noise as published.
        """
        up, down = self.walks()
        if self.published:
            x = self.denoiser.noised(x, draw.noise(x), 1)
        key = (
            self.published,
            self.clip,
            self.low,
            self.walk.order,
            torch.is_autocast_enabled(x.device.type),
        )
        if self.encodings is None:
            x = self.encode(x, up)
        else:
            x = self.encodings.encode(x, up, self.encode, how=key, remembers=self.walk.order > 1)
        edit = guide(log_probability(self.classifier, HEALTHY), self.scale, self.denoiser.schedule)
        settings: dict[str, Any] = {
            "step": self.walk.step(),
            "clip": False,
            **self.condition(HEALTHY),
        }
        return sample(
            self.estimate, x, down, edit=edit, schedule=self.denoiser.schedule, **settings
        )

    def encode(self, x: Tensor, levels: Sequence[int]) -> Tensor:
        """The state of an image at the last of the levels.

        Without clipping, which would break the inversion (the published code clips).
        """
        denoise = self.estimate if self.published else self.denoiser
        settings: dict[str, Any] = {
            "step": self.walk.step(),
            "clip": False,
            **self.condition(HEALTHY),
        }
        return sample(denoise, x, levels, schedule=self.denoiser.schedule, **settings)

    def resample(self, x: Tensor, draw: Draw) -> Tensor:
        """The ablation: noise, then ancestral sampling with mean + s * variance * gradient.

        Dhariwal & Nichol, algorithm 1.
        """
        schedule, levels = self.denoiser.schedule, self.walks()[1]
        then, log_p = dict(pairwise(levels)), log_probability(self.classifier, HEALTHY)

        def guided(x: Tensor, now: int, **condition: Any) -> Estimate:
            estimate = self.estimate(x, now, **condition)
            if self.scale:
                variance = learned_variance(schedule, now, then[now], estimate.spread)
                shift = self.scale * variance * input_gradient(log_p, x, now)
                # This moves the mean of the step by `shift`.
                estimate.clean = estimate.clean + shift / float(schedule.signal[then[now]])
            return estimate

        x = self.denoiser.noised(x, draw.noise(x), ABLATION_START if self.published else self.start)
        step = ancestral(draw, variance="learned")
        return sample(
            guided, x, levels, step=step, clip=False, schedule=schedule, **self.condition(HEALTHY)
        )

    def estimate(self, x: Tensor, now: int, **condition: Any) -> Estimate:
        """The denoiser's estimate, with the clean image clipped to the data's range."""
        estimate = self.denoiser(x, now, **condition)
        if not self.clip or now == 0:
            return estimate
        a, s = self.denoiser.schedule.at(now, x)
        clean = estimate.clean.clamp(self.low, 1)
        return Estimate(clean, (x - a * clean) / s, estimate.spread)

    def walks(self) -> tuple[list[int], list[int]]:
        """Noise levels of encoding and of decoding."""
        bottom, top, back = (
            (2, self.start + 1, self.start - 1) if self.published else (0, self.start, self.start)
        )
        back = self.start if self.guidance.sampler == "ddpm" else back
        calls = self.walk.calls or self.start
        return walk(bottom, top, calls), walk(back, 0, calls)

    def condition(self, label: int | Tensor) -> dict[str, Any]:
        return {"label": label} if self.conditional else {}

    def inwards(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] brought to the range the networks were trained on."""
        return (images + 1) / 2 if self.unit else images

    def network_calls(self) -> int:
        """Calls of the denoiser both ways, and of the classifier while decoding.

        Forwards and backwards through the classifier count as one call.
        """
        up, down = (len(levels) - 1 for levels in self.walks())
        return (up if self.guidance.sampler == "ddim" else 0) + down * (2 if self.scale else 1)


def learned_variance(schedule: Schedule, now: int, then: int, v: Tensor | None) -> Tensor:
    """Variance of the state at `then` given that at `now`, as the network learned it.

    At the last step that of the step before bounds it.
    """
    assert v is not None, "the denoiser has learned variance"
    a, s, b, r = (
        float(table[level]) for level in (now, then) for table in (schedule.signal, schedule.sigma)
    )
    large = 1 - (a / b) ** 2
    small = math.log(large * (r / s) ** 2) if then else float(schedule.posterior_log_variance[1])
    return log_variance(v, small, math.log(large)).exp()
