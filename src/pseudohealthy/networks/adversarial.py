"""Adversarial networks: translator and patch critic of Fixed-Point GAN, the triple of f-AnoGAN.

Translator and PatchCritic after StarGAN (Choi et al., CVPR 2018) as Siddiquee et al., ICCV 2019 use
it; Generator, Critic and Encoder after the residual 64 x 64 networks of WGAN-GP (Gulrajani et al.,
NeurIPS 2017), which Schlegl et al., MedIA 2019 take. No layer mixes the items of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pseudohealthy.marks import Range
from pseudohealthy.networks.ranges import Channels, Size, Width8
from pseudohealthy.settings import checked

GROUPS = 8
WIDEST = 8  # the residual networks stop doubling their channels at this multiple of the width


def frozen(network: nn.Module) -> Callable[..., Any]:
    """The network with detached weights: gradients reach its input, not its own weights."""
    weights = {name: value.detach() for name, value in network.state_dict(keep_vars=True).items()}
    return lambda *inputs: functional_call(network, weights, inputs)


def gradient_penalty(
    score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """Gradient penalty (B,) of a critic (Gulrajani et al. 2017, equation 3).

    The squared distance from 1 of the norm of the score's gradient, at images between real and
    fake; in float32 even under autocast, since the gradient of a gradient has few digits to lose.

    Args:
        score: Of images (B, C, S, S), (B,).
        real, fake: Images (B, C, S, S).
        share: How far from real to fake, (B,) in [0, 1).
    """
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        weight = share.to(real.device)[:, None, None, None]
        x = (real.float() + weight * (fake.float() - real.float())).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(score(x).sum(), x, create_graph=True)
        return (
            gradient.square().flatten(1).sum(1).add(1e-12).sqrt() - 1
        ).square()  # sqrt has no slope at 0


def _normed(conv: nn.Module, channels: int) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]


class Unchanged(nn.Module):
    """x + branch(x): two convolutions with instance norm."""

    def __init__(self, width: int):
        super().__init__()
        first, second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.branch = nn.Sequential(
            *_normed(first, width), second, nn.InstanceNorm2d(width, affine=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Translator(nn.Module):
    """An image as it would be under another label: tanh(x + change).

    The network learns the change, so that an image which needs none asks for zeros.

    Args:
        channels: Of the image.
        width: Channels of the first convolution (64 as published), doubled by each of two strided
            ones.
        blocks: Residual blocks at a quarter of the side (6 as published).
    """

    dictated: ClassVar = ("channels",)  # by the method

    @checked
    def __init__(
        self,
        *,
        channels: Channels = 1,
        width: Annotated[int, Range(1, 1024)] = 64,
        blocks: Annotated[int, Range(0, 32)] = 6,
    ):
        super().__init__()
        w = width
        layers = _normed(nn.Conv2d(channels + 1, w, 7, padding=3, bias=False), w)
        for out in (2 * w, 4 * w):
            layers += _normed(nn.Conv2d(out // 2, out, 4, stride=2, padding=1, bias=False), out)
        layers += [Unchanged(4 * w) for _ in range(blocks)]
        for out in (2 * w, w):
            layers += _normed(
                nn.ConvTranspose2d(2 * out, out, 4, stride=2, padding=1, bias=False), out
            )
        self.change = nn.Sequential(*layers, nn.Conv2d(w, channels, 7, padding=3, bias=False))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The image (B, channels, H, W) under a label.

        Args:
            x: (B, channels, H, W) in [-1, 1]; 4 divides H and W.
            label: Of the image that is returned, (B,), 0 or 1.
        """
        if x.shape[2] % 4 or x.shape[3] % 4:
            raise ValueError(f"image of {x.shape[2]} x {x.shape[3]}: choose sides that 4 divides")
        plane = label.to(x)[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.tanh(x + self.change(torch.cat([x, plane], 1)))


class PatchCritic(nn.Module):
    """How real an image is, patch by patch, and which label it shows.

    Args:
        channels: Of the image.
        size: Side of the image in pixels.
        width: Channels of the first layer (64 as published), doubled by each further one.
        layers: Strided convolutions (6 as published).

    Raises:
        ValueError: where so many layers leave nothing of the image.
    """

    dictated: ClassVar = ("channels", "size")  # by the method

    @checked
    def __init__(
        self,
        *,
        channels: Channels = 1,
        size: Size = 128,
        width: Annotated[int, Range(1, 1024)] = 64,
        layers: Annotated[int, Range(1, 10)] = 6,
    ):
        super().__init__()
        if size >> layers < 1:
            raise ValueError(
                f"layers = {layers} for size {size}: give 1 to {size.bit_length() - 1}"
            )
        body, before = [], channels
        for level in range(layers):
            out = width * 2**level
            body += [nn.Conv2d(before, out, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
            before = out
        self.body = nn.Sequential(*body)
        self.real = nn.Conv2d(before, 1, 3, padding=1, bias=False)
        self.label = nn.Conv2d(before, 1, size >> layers, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Realness (B,), the mean over patches, and the logit of label 1 (B,), of x (B, channels,
        size, size)."""
        h = self.body(x)
        return self.real(h).flatten(1).mean(1), self.label(h).flatten(1)[:, 0]


def _widths(size: int, width: int) -> list[int]:
    """Channels of the residual networks at sides size, size / 2, ..., 4."""
    if size < 8 or size & (size - 1):
        raise ValueError(f"size {size}: choose a power of two from 8")
    return [width * min(WIDEST, 2**level) for level in range(size.bit_length() - 2)]


class Residual(nn.Module):
    """Norm, ReLU, 3 x 3, twice, residual.

    Args:
        channels, out: Channels of input and output.
        way: "up" doubles the side before the first convolution, "down" halves it after the second.
        groups: Of the group norms.
    """

    def __init__(self, channels: int, out: int, way: str, groups: int):
        super().__init__()
        self.way = way
        inner = out if way == "up" else channels
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, inner), nn.Conv2d(inner, out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        if self.way == "up":
            h, x = (F.interpolate(value, scale_factor=2.0, mode="nearest") for value in (h, x))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        if self.way == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        return h + self.shortcut(x)


class Generator(nn.Module):
    """A code (B, latent) to an image (B, channels, size, size) in [-1, 1].

    Group norm where the original has batch norm: an image must not depend on its neighbours.

    Args:
        channels: Of the image.
        size: Side of the image, a power of two from 8.
        latent: Length of the code.
        width: Channels at full size (64 as published), a multiple of 8, doubled with every halving
            up to eightfold.
    """

    dictated: ClassVar = ("channels", "size", "latent")  # by the method

    @checked
    def __init__(
        self, *, channels: Channels = 1, size: Size = 64, latent: int = 128, width: Width8 = 64
    ):
        super().__init__()
        widths = _widths(size, width)[::-1]
        self.first = nn.Linear(latent, widths[0] * 16)
        self.blocks = nn.Sequential(*(Residual(a, b, "up", GROUPS) for a, b in pairwise(widths)))
        self.norm, self.out = nn.GroupNorm(GROUPS, width), nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.blocks(self.first(z).unflatten(1, (-1, 4, 4)))
        return torch.tanh(self.out(F.relu(self.norm(h))))


class Critic(nn.Module):
    """An image to `outputs` numbers, the mirror of `Generator`; one number says how real it is.

    Layer norm (group norm of one group), as WGAN-GP has it in the critic.
    """

    dictated: ClassVar = ("channels", "size", "outputs")  # by the method

    @checked
    def __init__(
        self, *, channels: Channels = 1, size: Size = 64, width: Width8 = 64, outputs: int = 1
    ):
        super().__init__()
        widths = _widths(size, width)
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Residual(a, b, "down", 1) for a, b in pairwise(widths)))
        self.out = nn.Linear(widths[-1] * 16, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers (B, outputs) of x (B, channels, size, size), and the features (B, F) before
        them."""
        features = self.blocks(self.first(x)).flatten(1)
        return self.out(features), features
