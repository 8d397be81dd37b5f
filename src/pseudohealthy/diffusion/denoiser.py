"""A network with its schedule, wrapped so that every network estimates clean image and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .schedule import Schedule

Target = Literal["noise", "clean", "velocity"]


@dataclass
class Estimate:
    """Clean image and noise in a noisy state: ``x = signal * clean + sigma * noise`` holds exactly.

    Args:
        clean: (B, C, H, W) in the image's range [-1, 1], not clamped.
        noise: (B, C, H, W).
        spread: The raw variance channels v (B, C, H, W) of a network with learned variance (Nichol
            & Dhariwal 2021, equation 15), else None.
    """

    clean: Tensor
    noise: Tensor
    spread: Tensor | None = None


class Denoiser(nn.Module):
    """Estimates clean image and noise of a noisy image, whatever the network was trained on.

    Args:
        network: Called with the published 0-based index of a noise level, level - 1.
        target: What it puts out: "noise" (epsilon), "clean" (x0) or "velocity" (signal * noise -
            sigma * clean, Salimans & Ho 2022).
        learned_variance: It has twice the channels; the second half is `Estimate.spread`.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        *,
        target: Target = "noise",
        learned_variance: bool = False,
    ):
        super().__init__()
        if target not in ("noise", "clean", "velocity"):
            raise ValueError(f"unknown target {target!r}; choose noise, clean or velocity")
        self.network = network
        self.schedule = schedule
        self.target = target
        self.learned_variance = learned_variance

    def raw(self, x: Tensor, t: int | Tensor, **condition: Any) -> Tensor:
        """The network's own output (B, C or 2C, H, W), for arguments as in `forward`."""
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        # Level 0 is evaluated as the first noisy level: no network was trained on clean images.
        return self.network(x, (t - 1).clamp(min=0), **condition).to(x.dtype)

    def forward(self, x: Tensor, t: int | Tensor, **condition: Any) -> Estimate:
        """The estimate of a state; at level 0 its clean image is x itself.

        Args:
            x: (B, C, H, W).
            t: Noise level, an int or (B,) long in 0..T.
        """
        output, spread = self.raw(x, t, **condition), None
        if self.learned_variance:
            output, spread = output.chunk(2, dim=1)
        noisy_level = torch.as_tensor(t, device=x.device).clamp(min=1)
        a, s = self.schedule.at(noisy_level, x)
        if self.target == "noise":
            clean, noise = (x - s * output) / a, output
        elif self.target == "clean":
            clean, noise = output, (x - a * output) / s
        else:
            clean, noise = a * x - s * output, s * x + a * output
        at_zero = torch.as_tensor(t, device=x.device).reshape(-1, 1, 1, 1) == 0
        return Estimate(torch.where(at_zero, x, clean), noise, spread)

    def noised(self, clean: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """The state at noise level t of a clean image (B, C, H, W) under this noise."""
        a, s = self.schedule.at(t, clean)
        return a * clean + s * noise

    def target_of(self, clean: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """The output that the network is trained towards (without variance channels)."""
        if self.target == "noise":
            return noise
        if self.target == "clean":
            return clean
        a, s = self.schedule.at(t, clean)
        return a * noise - s * clean
