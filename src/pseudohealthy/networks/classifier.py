"""The classifier of noisy images that guides the sampler: a U-Net's encoder with attention pooling.

Dhariwal & Nichol 2021 (`EncoderUNetModel`), same parameter names; published by Wolleb et al. 2022
as

    Classifier(in_channels=4, size=256, width=32, multipliers=(1, 1, 2, 2, 4, 4), blocks=4,
               attention={"at": (8, 16, 32), "head_channels": 64})
               5,452,962
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from pseudohealthy.marks import Range
from pseudohealthy.networks.blocks import (
    AttentionSettings,
    BlockSettings,
    Style,
    attend,
    encoder,
    middle,
    timestep_embedding,
    unfolded,
)
from pseudohealthy.networks.ranges import (
    Blocks,
    Channels,
    Multipliers,
    Size,
    Stem,
    Width,
    groups_fit,
)
from pseudohealthy.settings import checked


class AttentionPool(nn.Module):
    """One vector of a feature map, by attention of its mean to all places, with learned
    positions."""

    def __init__(self, places: int, channels: int, heads: int, out: int):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(channels, places + 1) / channels**0.5)
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        x = torch.cat([x.mean(dim=2, keepdim=True), x], dim=2) + self.positional_embedding
        return self.c_proj(attend(self.qkv_proj(x), self.heads, "new"))[:, :, 0]


class Classifier(nn.Module):
    """Logits of a noisy image at its noise level.

    Args:
        size: Side of the image, or (height, width); the pooling learns positions, so it is fixed
            here.

    Raises:
        ValueError: where the channels do not split into heads, or the sides are not divided by the
            levels.
    """

    # By the method, and what the encoder has not
    dictated: ClassVar = (
        "in_channels",
        "size",
        "classes",
        "attention.middle",
        "attention.order",
        "block.pad_end",
        "block.checkpointing",
    )

    @checked
    def __init__(
        self,
        *,
        in_channels: Channels = 1,
        size: Size | tuple[Size, Size] = 128,
        classes: Annotated[int, Range(2, 10_000)] = 2,
        width: Width = 32,
        multipliers: Multipliers = (1, 2, 2, 4),
        blocks: Blocks = 2,
        attention: AttentionSettings = AttentionSettings(at=(8,), head_channels=32),
        block: BlockSettings = BlockSettings(scale_shift=True, residual_sampling=True),
        stem: Stem = 1,
    ):
        super().__init__()
        self.width, self.levels, self.stem = width, len(multipliers), stem
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        factor = stem * 2 ** (self.levels - 1)
        if any(side % factor for side in self.size):
            raise ValueError(
                f"image of {self.size[0]} x {self.size[1]}: choose sides that {factor} divides"
                " (stem and multipliers)"
            )
        groups_fit(block.groups, width)
        style = Style(4 * width, attention, block)
        widths = [width * m for m in multipliers]

        self.time_embed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.input_blocks, _ = encoder(in_channels * stem**2, widths, blocks, style)
        self.middle_block = middle(widths[-1], style)
        places = (self.size[0] // factor) * (self.size[1] // factor)
        pool = AttentionPool(places, widths[-1], attention.heads_of(widths[-1]), classes)
        self.out = nn.Sequential(style.norm(widths[-1]), nn.SiLU(), pool)

    def forward(self, x: Tensor, t: int | Tensor) -> Tensor:
        """Logits (B, classes) of a noisy image.

        Args:
            x: (B, in_channels, *size).
            t: Noise level - 1, as published: an int or (B,), from 0.
        """
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(
                f"image of {x.shape[2]} x {x.shape[3]}, but this classifier was built for"
                f" {self.size}"
            )
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        emb = self.time_embed(timestep_embedding(t, self.width))
        h = unfolded(x, self.stem, self.levels)
        for stage in self.input_blocks:
            h = stage(h, emb)
        return self.out(self.middle_block(h, emb))
