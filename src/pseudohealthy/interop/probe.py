"""What imported weights were trained for, measured: output, image range and kind of noise.

Files do not say. Feeding a network the wrong range, or reading its output as the wrong target, is
behind most failed reproductions in this field, and shows only as healthy twins that look a little
(or entirely) white.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.anomalies import phantoms
from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw

NOISE_LEVEL, RANGE_LEVEL, MEAN_LEVEL = 250, 400, 500  # of 1000: where each property shows best
CLEARLY = 0.8  # the smaller error over the larger, below which the difference counts
SEES = 0.5  # of the noise's power: an error above it is no estimate worth comparing
BACKGROUND = 0.02  # of the head's brightness
# Bias of the background in the network's own range, at most; in the other, at least.
AT_HOME, ABROAD = (0.2, 0.3)
LARGEST = 128  # pixels: a smaller image shows the same, in seconds instead of minutes


@dataclass(frozen=True)
class Findings:
    """What weights were trained for.

    Args:
        answer: "noise", "2 noise - 1", "clean", "velocity" or "undecided", from `mean`.
        data_range: "signed" [-1, 1], "unit" [0, 1] or "undecided", from `bias`.
        noise: "gaussian", "simplex" or "undecided", from `errors`.
        mean: Of the output where noise dominates: near 0 for noise, near -1 where 2 noise - 1 was
            learned by mistake.
        bias: How far too bright the background of a head is estimated, by range. A network puts it
            where the darkest training pixels were. (Errors do not show the range: an image of half
            the contrast is easier for every network.)
        errors: Share of the noise's power that the estimate misses, by kind of noise.
    """

    answer: str
    data_range: str
    noise: str
    mean: float
    bias: dict[str, float]
    errors: dict[str, float]

    def text(self) -> str:
        return (
            f"answers {self.answer} (mean {self.mean:+.2f}), image range {self.data_range}, noise"
            f" {self.noise}"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def probe(denoiser: Denoiser, channels: int, size: int, **condition: Any) -> Findings:
    """Measure what a denoiser was trained for, on a synthetic head under known noise.

    In both image ranges and under both kinds of noise.

    Args:
        channels: Of its images.
        size: Side of its images; the head is smaller where it is large (the levels of a network
            still divide it).
        condition: As of `Denoiser.forward`.
    """
    while size > LARGEST and size % 2 == 0:
        size //= 2
    image = head(channels, size)
    ranges = {"signed": image * 2 - 1, "unit": image}
    kinds = {kind: Draw(0, [0], kind).noise(image) for kind in ("gaussian", "simplex")}

    def state(data_range: str, kind: str, level: int) -> tuple[Tensor, int]:
        t = max(1, level * denoiser.schedule.steps // 1000)
        return denoiser.noised(ranges[data_range], kinds[kind], t), t

    # Gaussian: one simplex field has a mean of its own.
    answers = [
        denoiser.raw(*state(name, "gaussian", MEAN_LEVEL), **condition)[:, :channels]
        for name in ranges
    ]
    mean = float(torch.stack(answers).mean())
    answer = "noise" if abs(mean) < 0.5 else "2 noise - 1" if abs(mean + 1) < 0.5 else "undecided"
    answer = denoiser.target if denoiser.target != "noise" else answer
    errors = {}
    for kind, field in kinds.items():
        estimates = [
            denoiser(*state(name, kind, NOISE_LEVEL), **condition).noise for name in ranges
        ]
        errors[kind] = round(min(power(noise - field) for noise in estimates) / power(field), 4)
    better, worse = sorted(errors, key=lambda kind: errors[kind])
    noise = better if errors[better] < min(SEES, CLEARLY * errors[worse]) else "undecided"
    kind, background, bias = "gaussian" if noise == "undecided" else noise, image < BACKGROUND, {}
    for name, clean in ranges.items():
        estimate = denoiser(*state(name, kind, RANGE_LEVEL), **condition).clean
        bias[name] = round(float((estimate - clean)[background].mean()), 4)
    data_range = "undecided"
    if answer not in ("noise", "clean", "velocity"):  # then neither estimate means anything
        noise = "undecided"
    elif abs(bias["signed"]) < AT_HOME and bias["unit"] < -ABROAD:
        data_range = "signed"
    elif abs(bias["unit"]) < AT_HOME and bias["signed"] > ABROAD:
        data_range = "unit"
    return Findings(
        answer=answer,
        data_range=data_range,
        noise=noise,
        mean=round(mean, 4),
        bias=bias,
        errors=errors,
    )


def power(values: Tensor) -> float:
    return float(values.square().mean())


def head(channels: int, size: int) -> Tensor:
    """A plane of a synthetic MR head in [0, 1], background 0, the same in every channel."""
    volume = phantoms.head(np.random.default_rng(0), shape=(8, size, size), modality="MR")[0]
    plane = np.clip(volume[4] / np.percentile(volume[4], 99), 0, 1).astype(np.float32)
    return torch.from_numpy(plane).expand(1, channels, -1, -1).contiguous()
