"""ResNet with bottleneck blocks (He et al. 2016, version 1.5: the 3 x 3 convolution has the
stride).

The context encoder of cDDPM (Behrendt et al. 2025), with the parameter names that timm and
torchvision share, so that their state dicts and the published ones load strictly; its parameters:

    ResNet(in_channels=1)    24,550,848
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn

from pseudohealthy.marks import Length, Range
from pseudohealthy.networks.ranges import Channels, Share
from pseudohealthy.settings import checked

EXPANSION = 4  # output channels of a bottleneck per inner channel


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1, residual.

    Args:
        channels: Of the input.
        width: Inner channels; the output has EXPANSION times as many.
        stride: Of the 3 x 3 convolution.
        drop: Probability that the branch of a training image is left out.
        conv, norm: Layers it is made of.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        drop: float,
        conv: Callable[..., nn.Module],
        norm: Callable[[int], nn.Module],
    ):
        super().__init__()
        out = EXPANSION * width
        self.drop = drop
        self.conv1, self.bn1 = conv(channels, width, 1, bias=False), norm(width)
        self.conv2 = conv(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.conv3, self.bn3 = conv(width, out, 1, bias=False), norm(out)
        self.relu = nn.ReLU()
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                conv(channels, out, 1, stride=stride, bias=False), norm(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if self.training and self.drop:  # stochastic depth (Huang et al. 2016)
            keep = torch.rand(len(h), 1, 1, 1, device=h.device) >= self.drop
            h = h * keep / (1 - self.drop)
        return self.relu(h + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Image (B, in_channels, H, W) to a vector (B, outputs).

    Args:
        in_channels: Of the image.
        layers: Blocks of each stage; (3, 4, 6, 3) is ResNet-50, and fewer stages downsample less
            (`factor` = 4, 8, 16, 32).
        width: Channels of the first convolution and inner channels of the first stage, doubled on
            each further stage.
        outputs: Length of the vector.
        drop_path: Stochastic depth of the last block, rising linearly from 0 at the first.
        conv, norm, pool: Layers it is made of; `networks.spark` gives sparse ones.
    """

    dictated: ClassVar = ("in_channels", "conv", "norm", "pool")  # by the method

    @checked
    def __init__(
        self,
        *,
        in_channels: Channels = 1,
        layers: Annotated[tuple[Annotated[int, Range(1, 64)], ...], Length(1, 4)] = (3, 4, 6, 3),
        width: Annotated[int, Range(1, 1024)] = 64,
        outputs: Annotated[int, Range(1, 65_536)] = 512,
        drop_path: Share = 0.05,
        conv: Callable[..., nn.Module] = nn.Conv2d,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        pool: Callable[..., nn.Module] = nn.MaxPool2d,
    ):
        super().__init__()
        self.stages, self.outputs = len(layers), outputs
        # Channels after each stage.
        self.widths = tuple(EXPANSION * width * 2**stage for stage in range(len(layers)))
        self.factor = 2 ** (len(layers) + 1)  # downsampling of the last stage
        self.conv1 = conv(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu, self.maxpool = nn.ReLU(), pool(3, stride=2, padding=1)
        channels, before, last = width, 0, max(1, sum(layers) - 1)
        for stage, blocks in enumerate(layers):
            bottlenecks = []
            for block in range(blocks):
                stride = 2 if stage and block == 0 else 1
                drop = drop_path * (before + block) / last
                bottlenecks.append(Bottleneck(channels, width * 2**stage, stride, drop, conv, norm))
                channels = self.widths[stage]
            before += blocks
            self.add_module(f"layer{stage + 1}", nn.Sequential(*bottlenecks))
        self.fc = nn.Linear(channels, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                # A fresh block is the identity.
                nn.init.zeros_(module.bn3.weight)  # type: ignore[arg-type]

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps after each stage, finest first; the last is (B, widths[-1], H / factor,
        W / factor)."""
        x, maps = self.maxpool(self.relu(self.bn1(self.conv1(x)))), []
        for stage in range(self.stages):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x)[-1].mean((2, 3)))
