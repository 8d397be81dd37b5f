"""The U-Net of the patched CT code (Loevlie, Liang, Brockett 2025).

Additive time embedding, strided and transposed convolutions, attention in the middle only.
Parameter names are those of its checkpoints (``model_state_dict``); numbers of parameters (the
README says "~14M"):

    CtUNet()                                   README's channel plan              30,883,905
    CtUNet(quirks="published")                 the network as the code runs it    30,022,849
    CtUNet(channels=3, quirks="published")                                        30,025,155
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudohealthy.networks.blocks import active, added, attend, timestep_embedding, unfolded
from pseudohealthy.networks.ranges import Blocks, Channels, Heads, Multipliers, Share, Stem, Width
from pseudohealthy.settings import checked


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)


class Sinusoids(nn.Module):
    """Noise levels (B,) to an embedding (B, width) float32, sines first."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, t: Tensor) -> Tensor:
        return timestep_embedding(t, self.width, "sin-cos")


class CtBlock(nn.Module):
    """GroupNorm-SiLU-conv, plus the embedding, GroupNorm-SiLU-dropout-conv, residual."""

    def __init__(self, channels: int, out: int, embedding: int, dropout: float):
        super().__init__()
        self.time_mlp = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out))
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = added(self.conv1(active(self.norm1(x))), self.time_mlp(emb)[:, :, None, None])
        return added(self.conv2(self.dropout(active(self.norm2(h)))), self.skip(x))


class Level(nn.ModuleList):
    """Blocks in a row."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for block in self:
            x = block(x, emb)
        return x


class CtAttention(nn.Module):
    """Self-attention over all places, residual; never holds the whole matrix (see `attend`)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads = {heads} of {channels} channels: give a divisor")
        self.heads, self.norm = heads, norm(channels)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = attend(self.qkv(self.norm(x)).flatten(2), self.heads, "new")
        return added(self.proj(out.unflatten(2, x.shape[2:])), x)


class CtUNet(nn.Module):
    """Predicts the clean image of a partly noised one.

    Args:
        channels: Of the image.
        width, multipliers, blocks: Channels of level i are width * multipliers[i], with `blocks`
            residual blocks each way. The time embedding is 4 * width long.
        heads: Of the attention in the middle.
        dropout: In every block.
        stem: Space to depth by this factor first and back last, as in `UNet`.
        quirks: "published" is the network as the code runs it: its decoder never gets the deepest
            level's output and works one octave early, so that nearest resizing has to mend the
            sizes (any side is accepted). Its weights do not fit the intended network.

    Raises:
        ValueError: for heads that do not divide the deepest channels, or an image side that the
            levels do not.
    """

    dictated: ClassVar = ("channels", "quirks")  # by the method

    @checked
    def __init__(
        self,
        *,
        channels: Channels = 1,
        width: Width = 64,
        multipliers: Multipliers = (1, 2, 4, 8),
        blocks: Blocks = 2,
        heads: Heads = 4,
        dropout: Share = 0.1,
        stem: Stem = 1,
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__()
        self.stem, self.published, embedding = stem, quirks == "published", 4 * width
        # Must divide the sides of the image.
        self.factor = stem * (1 if self.published else 2 ** (len(multipliers) - 1))
        widths = [width * m for m in multipliers]

        def level(width: int, out: int) -> Level:
            inputs = [width, *[out] * (blocks - 1)]
            return Level(CtBlock(c, out, embedding, dropout) for c in inputs)

        self.time_embed = nn.Sequential(
            Sinusoids(width),
            nn.Linear(width, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        self.init_conv = nn.Conv2d(channels * stem**2, width, 3, padding=1)
        self.down_blocks = nn.ModuleList(
            level(a, b) for a, b in zip([width, *widths], widths, strict=False)
        )
        self.down_samples = nn.ModuleList(
            nn.Conv2d(c, c, 3, stride=2, padding=1) for c in widths[:-1]
        )
        self.mid_block1 = CtBlock(widths[-1], widths[-1], embedding, dropout)
        self.mid_attn = CtAttention(widths[-1], heads)
        self.mid_block2 = CtBlock(widths[-1], widths[-1], embedding, dropout)
        skips = [width, *widths[:-1]] if self.published else widths
        outs = [width, *widths[:-1]][::-1]
        self.up_blocks = nn.ModuleList(
            level(below + skip, out)
            for below, skip, out in zip([widths[-1], *outs], skips[::-1], outs, strict=False)
        )
        self.up_samples = nn.ModuleList(
            nn.ConvTranspose2d(c, c, 4, stride=2, padding=1) for c in outs[:-1]
        )
        self.final = nn.Sequential(
            norm(width), nn.SiLU(), nn.Conv2d(width, channels * stem**2, 3, padding=1)
        )

    def forward(self, x: Tensor, t: int | Tensor) -> Tensor:
        """The clean image (B, channels, H, W).

        Args:
            x: (B, channels, H, W).
            t: Noise level - 1, as published: an int or (B,), from 0.
        """
        emb = self.time_embed(torch.as_tensor(t, device=x.device).expand(len(x)))
        h = self.init_conv(unfolded(x, self.stem, 1 if self.published else len(self.down_blocks)))
        skips = [h] if self.published else []
        for index, level in enumerate(self.down_blocks):
            h = level(h, emb)
            skips.append(h)
            if index < len(self.down_samples):
                h = self.down_samples[index](h)
        if self.published:
            skips.pop()
        h = self.mid_block2(self.mid_attn(self.mid_block1(h, emb)), emb)
        for index, level in enumerate(self.up_blocks):
            skip = skips.pop()
            if h.shape[2:] != skip.shape[2:]:
                h = F.interpolate(h, size=skip.shape[2:], mode="nearest")
            h = level(torch.cat([h, skip], dim=1), emb)
            if index < len(self.up_samples):
                h = self.up_samples[index](h)
        h = self.final(h)
        return (F.pixel_shuffle(h, self.stem) if self.stem > 1 else h).contiguous()
