"""Masked pretraining of a convolutional encoder: SparK (Tian et al., ICLR 2023), as cDDPM uses it.

Cells of the image are hidden; the encoder sees the rest through convolutions that are sparse by
masking (what they write into hidden cells is set to zero after each, normalisation counts visible
places only), and a light U-Net-like decoder paints the hidden cells from mask tokens and the
features of all stages. Parameter names follow the published checkpoints; parameters at the
published size, with ``fc`` of the encoder although nothing here trains it:

    Spark(encoder={}, width=512)    39,013,393
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudohealthy.networks.resnet import ResNet

ENCODER = "sparse_encoder.sp_cnn."  # prefix of the encoder's parameters


class Visible:
    """The visible cells of one network's forward pass, (B, 1, rows, columns) bool, for its sparse
    layers."""

    cells: Tensor | None = None

    def like(self, x: Tensor) -> Tensor:
        """The cells at the resolution of a feature map (B, C, H, W): (B, 1, H, W)."""
        assert self.cells is not None, "sparse layers work inside Spark.forward only"
        rows, columns = self.cells.shape[-2:]
        grown = self.cells.repeat_interleave(x.shape[-2] // rows, -2)
        return grown.repeat_interleave(x.shape[-1] // columns, -1)


class SparseConv2d(nn.Conv2d):
    def __init__(self, visible: Visible, *size, **settings):
        super().__init__(*size, **settings)
        self.visible = visible

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * self.visible.like(x)


class SparseMaxPool2d(nn.MaxPool2d):
    def __init__(self, visible: Visible, *size, **settings):
        super().__init__(*size, **settings)
        self.visible = visible

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return x * self.visible.like(x)


class SparseBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with statistics over, and output at, visible places only."""

    def __init__(self, visible: Visible, channels: int):
        super().__init__(channels)
        self.visible = visible

    def forward(self, x: Tensor) -> Tensor:
        visible = self.visible.like(x)[:, 0]
        channels_last = x.permute(0, 2, 3, 1)
        # As one image of a single column: (1, C, visible places, 1).
        normed = super().forward(channels_last[visible].T[None, :, :, None])[0, :, :, 0].T
        full = torch.zeros_like(channels_last, dtype=normed.dtype)
        full[visible] = normed
        return full.permute(0, 3, 1, 2)


class SparseResNet(ResNet):
    """The encoder while it is pretrained, which puts out the feature maps of all stages."""

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        return self.features(x)


class SparseEncoder(nn.Module):
    def __init__(self, visible: Visible, channels: int, encoder: dict):
        super().__init__()
        self.sp_cnn = SparseResNet(
            in_channels=channels,
            conv=lambda *size, **settings: SparseConv2d(visible, *size, **settings),
            norm=lambda channels: SparseBatchNorm2d(visible, channels),
            pool=lambda *size, **settings: SparseMaxPool2d(visible, *size, **settings),
            **encoder,
        )
        # Takes no part: an optimiser or DDP must not wait for its gradient.
        self.sp_cnn.fc.requires_grad_(False)


class DecoderBlock(nn.Module):
    """Doubles the resolution; `out` channels."""

    def __init__(self, channels: int, out: int):
        super().__init__()
        self.up_sample = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1)
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.up_sample(x))


class LightDecoder(nn.Module):
    """Decodes feature maps, coarsest first, to an image; each is added at its own resolution."""

    def __init__(self, factor: int, width: int, channels: int):
        super().__init__()
        widths = [width // 2**level for level in range(round(math.log2(factor)) + 1)]
        self.dec = nn.ModuleList(DecoderBlock(a, b) for a, b in pairwise(widths))
        self.proj = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[0]
        for level, block in enumerate(self.dec):
            x = block(x + maps[level] if 0 < level < len(maps) else x)
        return self.proj(x)


class Spark(nn.Module):
    """Paints hidden cells of `sp_cnn.factor` pixels.

    Args:
        channels: Of the image.
        encoder: Settings of the `ResNet`.
        width: Channels of the decoder at the coarsest level, halved at each finer one.

    Raises:
        ValueError: where the width does not halve that often.
    """

    def __init__(self, *, channels: int = 1, encoder: dict, width: int = 512):
        super().__init__()
        self.visible = Visible()
        self.sparse_encoder = SparseEncoder(self.visible, channels, encoder)
        cnn = self.sparse_encoder.sp_cnn
        if width % cnn.factor:
            raise ValueError(f"decoder_width = {width}: give a multiple of {cnn.factor}")
        self.factor = cnn.factor
        self.dense_decoder = LightDecoder(cnn.factor, width, channels)
        self.mask_tokens = nn.ParameterList()
        self.en_de_norms = nn.ModuleList()
        self.en_de_lins = nn.ModuleList()
        for level, wide in enumerate(reversed(cnn.widths)):  # coarsest first
            self.mask_tokens.append(
                nn.init.trunc_normal_(nn.Parameter(torch.zeros(1, wide, 1, 1)), std=0.02)
            )
            self.en_de_norms.append(SparseBatchNorm2d(self.visible, wide))
            kernel = 3 if level else 1
            self.en_de_lins.append(nn.Conv2d(wide, width // 2**level, kernel, padding=kernel // 2))

    def forward(self, x: Tensor, cells: Tensor) -> Tensor:
        """The painted image (B, C, H, W).

        Args:
            x: (B, C, H, W).
            cells: Those that are visible, (B, 1, H / factor, W / factor) bool.
        """
        self.visible.cells = cells
        maps = self.sparse_encoder.sp_cnn(x * self.visible.like(x))
        dense = []
        for token, norm, conv, part in zip(
            self.mask_tokens, self.en_de_norms, self.en_de_lins, reversed(maps), strict=True
        ):
            normed = norm(part)
            dense.append(conv(torch.where(self.visible.like(part), normed, token.to(normed.dtype))))
        self.visible.cells = None
        return self.dense_decoder(dense)


def cell_errors(painted: Tensor, x: Tensor, size: int) -> Tensor:
    """Mean squared error of every cell, (B, 1, rows, columns)."""
    return F.avg_pool2d((painted - x).float().square().mean(1, keepdim=True), size)
