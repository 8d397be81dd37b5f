"""A network and its schedule, wrapped so that every network means the same thing: an estimate of
image and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .schedule import Schedule

Target = Literal["noise", "clean", "velocity"]


@dataclass
class Estimate:
    """What a denoiser sees in a noisy state: ``x = signal * clean + sigma * noise`` holds exactly.

    clean, noise: (B, C, H, W); clean in the image's range [-1, 1], not clamped. spread: the raw
    variance channels v (B, C, H, W) of a network with learned variance (Nichol & Dhariwal 2021,
    equation 15), else None.
    """

    clean: Tensor
    noise: Tensor
    spread: Tensor | None = None


class Denoiser(nn.Module):
    """Estimates (clean, noise) from a noisy image, whatever the network was trained on.

    target: "noise" (epsilon), "clean" (x0) or "velocity" (signal * noise - sigma * clean, Salimans
    & Ho 2022).
    learned_variance: the network has twice the channels; the second half is `Estimate.spread`.
    The network is called with the published 0-based step, level - 1.
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
        """The network's own output (B, C or 2C, H, W) for states x (B, C, H, W) at levels t (int or
        (B,) long)."""
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        # A clean image is asked about at the first noisy level: no network was trained on level 0.
        return self.network(x, (t - 1).clamp(min=0), **condition).to(x.dtype)

    def forward(self, x: Tensor, t: int | Tensor, **condition: Any) -> Estimate:
        """Estimate for x (B, C, H, W) at level t, an int or (B,) long in 0..T; at level 0 `clean`
        is x itself."""
        out, spread = self.raw(x, t, **condition), None
        if self.learned_variance:
            out, spread = out.chunk(2, dim=1)
        asked = torch.as_tensor(t, device=x.device).clamp(min=1)
        a, s = self.schedule.at(asked, x)
        if self.target == "noise":
            clean, noise = (x - s * out) / a, out
        elif self.target == "clean":
            clean, noise = out, (x - a * out) / s
        else:
            clean, noise = a * x - s * out, s * x + a * out
        at_zero = torch.as_tensor(t, device=x.device).reshape(-1, 1, 1, 1) == 0
        return Estimate(torch.where(at_zero, x, clean), noise, spread)

    def noised(self, clean: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """The state at level t of a clean image (B, C, H, W) under the given noise."""
        a, s = self.schedule.at(t, clean)
        return a * clean + s * noise

    def target_of(self, clean: Tensor, noise: Tensor, t: int | Tensor) -> Tensor:
        """What the network should have answered (without variance channels)."""
        if self.target == "noise":
            return noise
        if self.target == "clean":
            return clean
        a, s = self.schedule.at(t, clean)
        return a * noise - s * clean
