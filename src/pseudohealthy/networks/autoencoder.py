"""Convolutional autoencoders, plain, variational and denoising, that diffusion methods are compared
with.

Plain and variational as in Baur et al. 2021 ("Autoencoders for unsupervised anomaly segmentation in
brain MR images"); denoising, with skip connections, after Kascenas et al. 2022; with a spatial code
of few channels, the first stage of latent diffusion (Rombach et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudohealthy.marks import Range
from pseudohealthy.networks.ranges import Channels, Size, Stem, Width8
from pseudohealthy.settings import checked


def _block(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, padding=1), nn.GroupNorm(8, out), nn.SiLU())


class ConvAutoencoder(nn.Module):
    """Compresses an image (B, channels, size, size) in [-1, 1] and decodes it again.

    Args:
        channels, size: Of the image.
        width: Channels of the first level, a multiple of 8, doubled on each further one.
        levels: Every one but the first halves the side.
        latent: Numbers that pass the dense bottleneck of "ae" and "vae"; 0 keeps the spatial
            feature map of the last level as the bottleneck of "ae".
        kind: "ae", "vae" or "dae". "dae" has no bottleneck: it removes noise, so its decoder gets
            the skips.
        spatial: Channels of a code (B, spatial, s, s), s the last level's side, in place of the
            dense one.
        stem: Space to depth by this factor first and back last, as in `UNet`: faster at the same
            number of parameters.

    Raises:
        ValueError: for a size that the levels do not halve, an unknown kind or a "vae" without
            latent numbers.
    """

    dictated: ClassVar = ("channels", "size", "kind", "spatial")  # by the method

    @checked
    def __init__(
        self,
        *,
        channels: Channels = 1,
        size: Size = 128,
        width: Width8 = 32,
        levels: Annotated[int, Range(1, 10)] = 4,
        latent: Annotated[int, Range(0, 65_536)] = 128,
        kind: Literal["ae", "vae", "dae"] = "ae",
        spatial: Annotated[int, Range(0, 64)] = 0,
        stem: Stem = 1,
    ):
        super().__init__()
        if kind not in ("ae", "vae", "dae"):
            raise ValueError(f"unknown autoencoder {kind!r}; choose ae, vae or dae")
        if size % (factor := stem * 2 ** (levels - 1)):
            raise ValueError(f"size {size}: choose one that {factor} divides (stem and levels)")
        if kind == "vae" and latent < 1 and not spatial:
            raise ValueError("latent = 0 of a variational autoencoder: give latent > 0")
        self.kind, self.stem = kind, stem
        skips = kind == "dae"
        widths = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(
            nn.Sequential(_block(a, b), _block(b, b))
            for a, b in zip([channels * stem**2, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _block(widths[i + 1] + (widths[i] if skips else 0), widths[i])
            for i in reversed(range(levels - 1))
        )
        self.out = nn.Conv2d(width, channels * stem**2, 1)
        self.shape = (widths[-1], size // factor, size // factor)
        places = self.shape[0] * self.shape[1] * self.shape[2]
        self.coded = not skips and (latent > 0 or spatial > 0)
        self.dense = self.coded and not spatial
        numbers = 2 if kind == "vae" else 1  # mean and log variance
        if self.dense:
            self.code: nn.Module = nn.Linear(places, latent * numbers)
            self.decode: nn.Module = nn.Linear(latent, places)
        elif self.coded:
            self.code = nn.Conv2d(widths[-1], spatial * numbers, 1)
            self.decode = nn.Conv2d(spatial, widths[-1], 1)

    def forward(
        self,
        x: Tensor,
        draw: Callable[[Tensor], Tensor] | None = None,
        edit: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The decoded image, and the KL divergence of "vae".

        "dae" does not corrupt its input: the training does.

        Args:
            x: (B, C, H, W).
            draw: Gaussian noise like its argument, with which "vae" samples its code; without it
                the code is the mean.
            edit: Changes the code before it is decoded; it may return more codes than it gets.

        Returns:
            Image (B, C, H, W) and divergence (B,) in nats, None but for "vae".
        """
        code, kl, skips = self.encoded(x, draw)
        return self.decoded(code if edit is None else edit(code), skips), kl

    def encoded(
        self, x: Tensor, draw: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """Code, divergence (B,) or None, and features of each level but the last, of x (B, C, H,
        W)."""
        h, skips = F.pixel_unshuffle(x, self.stem), []
        for level, block in enumerate(self.down):
            h = block(F.avg_pool2d(h, 2) if level else h)
            skips.append(h)
        if not self.coded:
            return h, None, skips[:-1]
        code = self.code(h.flatten(1) if self.dense else h)
        if self.kind != "vae":
            return code, None, skips[:-1]
        mean, log_variance = code.float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-20, 20)
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).flatten(1).sum(1)
        code = mean if draw is None else mean + torch.exp(0.5 * log_variance) * draw(mean)
        return code, kl, skips[:-1]

    def decoded(self, code: Tensor, skips: Sequence[Tensor] = ()) -> Tensor:
        """The image (B, C, H, W) of a code; only "dae" uses `skips`."""
        h = self.decode(code) if self.coded else code
        h = h.reshape(-1, *self.shape) if self.dense else h
        features: Iterable[Tensor | None] = (
            reversed(skips) if self.kind == "dae" else [None] * len(self.up)
        )
        for skip, block in zip(features, self.up, strict=True):
            h = F.interpolate(h, scale_factor=2.0, mode="bilinear", align_corners=False)
            h = block(h if skip is None else torch.cat([h, skip], dim=1))
        return F.pixel_shuffle(self.out(h), self.stem)
