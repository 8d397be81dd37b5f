"""Convolutional autoencoders: plain, variational, denoising. The baselines every diffusion method stands beside.

Plain and variational as in Baur et al. 2021 ("Autoencoders for unsupervised anomaly segmentation in brain MR
images"); denoising, with skip connections, after Kascenas et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4


def _block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU())


class ConvAutoencoder(nn.Module):
    """Compresses an image (B, channels, size, size) in [-1, 1] and restores it.

    width: channels of the first level, a multiple of 8, doubled on each of three further levels.
    latent: numbers that pass the dense bottleneck of "ae" and "vae"; 0 keeps the spatial feature map (1/8 of the side)
        as the bottleneck of "ae". "dae" has none: it restores from noise, so its decoder sees the skips.
    Raises ValueError for a size that 8 does not divide, an unknown kind or a "vae" without latent numbers.
    """

    dictated: ClassVar = ("channels", "size", "kind")  # by the method

    def __init__(
        self,
        *,
        channels: int = 1,
        size: int = 128,
        width: int = 32,
        latent: int = 128,
        kind: Literal["ae", "vae", "dae"] = "ae",
    ):
        super().__init__()
        if kind not in ("ae", "vae", "dae"):
            raise ValueError(f"unknown autoencoder {kind!r}; choose ae, vae or dae")
        if size % 2 ** (LEVELS - 1):
            raise ValueError(f"size {size}: choose one that {2 ** (LEVELS - 1)} divides")
        if kind == "vae" and latent < 1:
            raise ValueError("a variational autoencoder needs latent > 0")
        self.kind = kind
        skips = kind == "dae"
        widths = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b), _block(b, b)) for a, b in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _block(widths[i + 1] + (widths[i] if skips else 0), widths[i]) for i in reversed(range(LEVELS - 1))
        )
        self.out = nn.Conv2d(width, channels, 1)
        self.shape = (widths[-1], size // 2 ** (LEVELS - 1), size // 2 ** (LEVELS - 1))
        places = self.shape[0] * self.shape[1] * self.shape[2]
        self.dense = latent > 0 and not skips
        if self.dense:
            self.code = nn.Linear(places, latent * (2 if kind == "vae" else 1))
            self.decode = nn.Linear(latent, places)

    def forward(self, x: Tensor, draw: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor | None]:
        """(reconstruction (B, C, H, W), KL divergence (B,) in nats of "vae", else None).

        draw: Gaussian noise like its argument, with which "vae" samples its code; without it the code is the mean.
        "dae" does not corrupt its input: the training does.
        """
        h, skips = x, []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h)
            skips.append(h)
        kl = None
        if self.dense:
            code = self.code(h.flatten(1))
            if self.kind == "vae":
                mean, log_variance = code.float().chunk(2, dim=1)
                log_variance = log_variance.clamp(-20, 20)
                kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
                code = mean if draw is None else mean + torch.exp(0.5 * log_variance) * draw(mean)
            h = self.decode(code).reshape(-1, *self.shape)
        for skip, block in zip(reversed(skips[:-1]), self.up, strict=True):
            h = F.interpolate(h, scale_factor=2.0, mode="bilinear", align_corners=False)
            h = block(torch.cat([h, skip], dim=1) if self.kind == "dae" else h)
        return self.out(h), kl
