"""What imported weights were trained for, asked of the weights: what they answer, in which range, to which noise.

Files do not say. Feeding a network the wrong range or the wrong answer is behind most failed reproductions in this
field, and shows only as restorations that look a little (or entirely) white.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy import phantoms
from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw

MEAN_LEVEL, RANGE_LEVEL = 500, 250  # of 1000: where noise dominates; where the range of the image still shows
CLEARLY = 0.8  # the better error over the other, below which a difference counts
LARGEST = 128  # pixels: what is asked for shows on a smaller image, and takes seconds instead of minutes
SEES = 0.5  # of the noise's power: an error above it is no estimate worth comparing


@dataclass(frozen=True)
class Findings:
    """mean: of the answer to noisy images half-way up: near 0 for noise, near -1 where 2 noise - 1 was learned by
    mistake. errors: mean squared error of the estimated noise by "range, noise". data_range and noise: the best of
    them, "undecided" where the others are as good. answer: "noise", "2 noise - 1", "clean" or "undecided".
    """

    answer: str
    mean: float
    data_range: str
    noise: str
    errors: dict[str, float]

    def text(self) -> str:
        return f"answers {self.answer} (mean {self.mean:+.2f}), image range {self.data_range}, noise {self.noise}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def probe(denoiser: Denoiser, channels: int, size: int, **condition: Any) -> Findings:
    """Ask a denoiser of images of this size about a synthetic head, halved where it is large (the levels of a network
    divide it still), in both ranges and under known noise of both kinds. condition: as of `Denoiser.forward`."""
    while size > LARGEST and size % 2 == 0:
        size //= 2
    image, steps = head(channels, size), denoiser.schedule.steps
    errors, means = {}, []
    for kind in ("gaussian", "simplex"):
        noise = Draw(0, [0], kind).noise(image)
        for name, clean in {"signed": image * 2 - 1, "unit": image}.items():
            level = max(1, RANGE_LEVEL * steps // 1000)
            found = denoiser(denoiser.noised(clean, noise, level), level, **condition).noise
            errors[f"{name}, {kind}"] = round(float((found - noise).square().mean() / noise.square().mean()), 4)
            if kind == "gaussian":  # the mean of one simplex field is itself some way from 0
                level = max(1, MEAN_LEVEL * steps // 1000)
                means.append(first(denoiser.raw(denoiser.noised(clean, noise, level), level, **condition), channels))
    mean = round(float(torch.stack(means).mean()), 4)
    answer = "noise" if abs(mean) < 0.5 else "2 noise - 1" if abs(mean + 1) < 0.5 else "undecided"
    best = {
        name: min(v for key, v in errors.items() if name in key.split(", "))
        for name in ("signed", "unit", "gaussian", "simplex")
    }
    return Findings(
        answer=denoiser.target if denoiser.target != "noise" else answer,
        mean=mean,
        data_range=clearly(best, "signed", "unit"),
        noise=clearly(best, "gaussian", "simplex"),
        errors=errors,
    )


def first(answer: Tensor, channels: int) -> Tensor:
    """The answer without variance channels."""
    return answer[:, :channels]


def clearly(errors: dict[str, float], a: str, b: str) -> str:
    better, worse = sorted((a, b), key=lambda name: errors[name])
    return better if errors[better] < min(SEES, CLEARLY * errors[worse]) else "undecided"


def head(channels: int, size: int) -> Tensor:
    """A plane of a synthetic MR head in [0, 1], background 0, the same in every channel."""
    volume = phantoms.head(np.random.default_rng(0), shape=(8, size, size), modality="MR")[0]
    plane = np.clip(volume[4] / np.percentile(volume[4], 99), 0, 1).astype(np.float32)
    return torch.from_numpy(plane).expand(1, channels, -1, -1).contiguous()
