"""Blocks of the U-Nets of the ADM family and their classifiers (Dhariwal & Nichol 2021), and their
settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pseudohealthy.networks.ranges import Eps, Factors, Groups, HeadChannels, Heads, Share
from pseudohealthy.settings import check_fields

# Rows of the attention matrix at a time on the CPU, fewer for a batch: 1.2 to 1.9 times faster than
# all 4096 at once
QUERY_ROWS = 512

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class AttentionSettings:
    """[network.attention]: self-attention of the places of a feature map.

    Args:
        at: Downsampling factors (1, 2, 4, ..., counted after the stem) with attention in every
            block.
        middle: Whether there is attention between the way down and the way up.
        heads: Number of heads, where `head_channels` does not say it.
        head_channels: Channels per head.
        order: Of the channels of queries, keys and values, see `attend`.
    """

    at: Factors = ()
    middle: bool = True
    heads: Heads = 1
    head_channels: HeadChannels | None = None
    order: Literal["legacy", "new"] = "legacy"

    def __post_init__(self) -> None:
        check_fields(self, "AttentionSettings.{}".format)

    def heads_of(self, channels: int) -> int:
        """Number of heads of a layer with so many channels.

        Raises:
            ValueError: where they do not divide the channels.
        """
        heads = channels // self.head_channels if self.head_channels else self.heads
        if not heads or channels % heads or (self.head_channels and channels % self.head_channels):
            setting = (
                f"head_channels = {self.head_channels}"
                if self.head_channels
                else f"heads = {self.heads}"
            )
            raise ValueError(f"attention.{setting} of {channels} channels: give a divisor")
        return heads


@dataclass(frozen=True)
class BlockSettings:
    """[network.block]: settings that all blocks of one network share.

    Args:
        scale_shift: The embedding scales and shifts after the norm instead of being added before
            it.
        residual_sampling: Halve and double inside residual blocks instead of by strided and nearest
            convolutions.
        pad_end: Strided convolutions see a row of zeros below and a column to the right only, as in
            DDPM, not all around.
        groups, eps: Of the group norms; groups that do not divide the channels are halved until
            they do.
        dropout: Share of the features that a block drops in training.
        checkpointing: In training, keep only what goes from stage to stage and compute the rest
            again for the gradient: a fraction of the memory (256 px on a small GPU), a third more
            time, the same result.
    """

    scale_shift: bool = False
    residual_sampling: bool = False
    pad_end: bool = False
    groups: Groups = 32
    eps: Eps = 1e-5
    dropout: Share = 0.0
    checkpointing: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "BlockSettings.{}".format)
        if self.pad_end and self.residual_sampling:
            raise ValueError(
                "pad_end = true is of strided convolutions, not of residual_sampling: choose one"
            )


class Style(NamedTuple):
    """Settings of the blocks of one network, with the length of the embedding they are conditioned
    on."""

    embedding: int
    attention: AttentionSettings
    block: BlockSettings

    def norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(math.gcd(self.block.groups, channels), channels, eps=self.block.eps)


def zeroed(module: M) -> M:
    """Set a residual branch's last layer to zero, so that a fresh block is the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_embedding(t: Tensor, width: int, order: str = "cos-sin", shift: int = 0) -> Tensor:
    """Sinusoids (B, width) float32 of noise levels.

    Args:
        t: Noise levels - 1, as published: (B,), from 0.
        width: Length of the embedding.
        order: "cos-sin" or "sin-cos".
        shift: With 1 the last frequency is 1/10000 itself.
    """
    half = width // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device)
    frequency = torch.exp(exponent / (half - shift))
    angle = t.float()[:, None] * frequency
    parts = (angle.cos(), angle.sin()) if order == "cos-sin" else (angle.sin(), angle.cos())
    return torch.cat(parts, dim=1)


def attend(qkv: Tensor, heads: int, order: str) -> Tensor:
    """Attention output (B, C, L), with the softmax in float32.

    Args:
        qkv: Queries, keys and values (B, 3C, L).
        heads: Number of heads.
        order: "legacy": channels are heads first, then q|k|v within a head; "new": q|k|v first,
            then heads.
    """
    batch, width, length = qkv.shape
    channels = width // (3 * heads)
    if order == "legacy":
        q, k, v = qkv.reshape(batch, heads, 3, channels, length).unbind(2)
    else:
        q, k, v = qkv.reshape(batch, 3, heads, channels, length).unbind(1)
    q, k, v = (part.transpose(-1, -2) for part in (q, k, v))  # (B, heads, L, channels)
    out = (F.scaled_dot_product_attention if qkv.is_cuda else by_rows)(q, k, v)
    # Channels beside each other again, as the convolution after this wants them for inference
    return out.transpose(1, 2).reshape(batch, length, -1).transpose(1, 2)


def by_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention output (B, heads, L, c) of inputs of that shape, some rows of queries at a time."""
    batch, heads, _, channels = q.shape
    scale = channels**-0.25  # on both factors: keeps half precision from overflowing
    keys, v = (k * scale).transpose(-1, -2), v.contiguous()
    at_once = max(QUERY_ROWS // 4, min(QUERY_ROWS, 2 * QUERY_ROWS // (batch * heads)))
    return torch.cat([_weights(rows * scale, keys) @ v for rows in q.split(at_once, dim=2)], dim=2)


def _weights(q: Tensor, keys: Tensor) -> Tensor:
    # torch's softmax computes in float32 whatever it is given.
    return torch.softmax(q @ keys, dim=-1).to(q.dtype)


class Attention(nn.Module):
    """Self-attention over all places, residual."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.heads, self.order = style.attention.heads_of(channels), style.attention.order
        self.norm = style.norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            flat = x.flatten(2)
            out = self.proj_out(attend(self.qkv(self.norm(flat)), self.heads, self.order))
            return (flat + out).reshape(x.shape)
        # The same as convolutions of images, which keep channels_last: without it all that follows
        # would be contiguous.
        qkv = F.conv2d(self.norm(x), self.qkv.weight[..., None], self.qkv.bias)
        out = attend(qkv.flatten(2), self.heads, self.order).unflatten(2, x.shape[2:])
        return added(F.conv2d(out, self.proj_out.weight[..., None], self.proj_out.bias), x)


def active(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient is taken; the caller must not need x again."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y, in place where no gradient is taken; the caller must not need x again.

    Memory for a new feature map costs more time than the sum.
    """
    return x + y if torch.is_grad_enabled() or x.dtype != y.dtype else x.add_(y)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x (1 + scale) + shift, in one pass where no gradient is taken; the caller must not need x
    again."""
    if torch.is_grad_enabled() or x.dtype != scale.dtype:
        return x * (1 + scale) + shift
    return torch.addcmul(shift, x, 1 + scale, out=x)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


class ResBlock(nn.Module):
    """GroupNorm-SiLU-conv twice with the embedding in between, residual.

    Args:
        channels, out: Channels of input and output.
        resample: Halve or double, before the first convolution.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        style: Style,
        resample: Callable[[Tensor], Tensor] | None = None,
    ):
        super().__init__()
        self.resample, self.scale_shift = resample, style.block.scale_shift
        self.in_layers = nn.Sequential(
            style.norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(
            nn.SiLU(), nn.Linear(style.embedding, out * (2 if style.block.scale_shift else 1))
        )
        last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.out_layers = nn.Sequential(
            style.norm(out), nn.SiLU(), nn.Dropout(style.block.dropout), last
        )
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, _, conv = self.in_layers
        h = active(norm(x))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = conv(h)
        emb = self.emb_layers(emb)[:, :, None, None]
        norm, _, drop, conv = self.out_layers
        h = modulated(norm(h), *emb.chunk(2, dim=1)) if self.scale_shift else norm(added(h, emb))
        return added(conv(drop(active(h))), self.skip_connection(x))


class Downsample(nn.Module):
    def __init__(self, channels: int, pad_end: bool = False):
        super().__init__()
        self.pad_end = pad_end
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if pad_end else 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(F.pad(x, (0, 1, 0, 1)) if self.pad_end else x)


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(double(x))


class Stage(nn.Sequential):
    """A few layers in a row; residual blocks get the embedding too."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


def encoder(
    in_channels: int, widths: Sequence[int], blocks: int, style: Style
) -> tuple[nn.ModuleList, list[int]]:
    """The stages of the downward path, and the channels that each puts out.

    Args:
        in_channels: Of the image.
        widths: Channels of each level.
        blocks: Residual blocks of each level.
    """
    stages, channels = [Stage(nn.Conv2d(in_channels, widths[0], 3, padding=1))], [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            layers: list[nn.Module] = [ResBlock(channels[-1], width, style)]
            if 2**level in style.attention.at:
                layers.append(Attention(width, style))
            stages.append(Stage(*layers))
            channels.append(width)
        if level + 1 < len(widths):
            halving = (
                ResBlock(width, width, style, halve)
                if style.block.residual_sampling
                else Downsample(width, style.block.pad_end)
            )
            stages.append(Stage(halving))
            channels.append(width)
    return nn.ModuleList(stages), channels


def middle(channels: int, style: Style) -> Stage:
    between = [Attention(channels, style)] if style.attention.middle else []
    return Stage(ResBlock(channels, channels, style), *between, ResBlock(channels, channels, style))


def fast_layout(x: Tensor) -> Tensor:
    """The tensor channels_last for inference, contiguous for training.

    GroupNorm's backward is many times slower in channels_last.
    """
    if torch.is_grad_enabled():
        return x.contiguous()
    x = x.contiguous(memory_format=torch.channels_last)
    if not torch.is_autocast_enabled(x.device.type):
        # torch's GroupNorm of channels_last loses two digits on flat images, which only float32
        # would show.
        return x
    # One channel is contiguous in both layouts, and would be taken for the other one through the
    # whole network.
    _, channels, height, width = x.shape
    return x.as_strided(x.shape, (channels * height * width, 1, channels * width, channels))


def unfolded(x: Tensor, stem: int, levels: int) -> Tensor:
    """Space to depth by `stem`, in the layout of `fast_layout`.

    Raises:
        ValueError: where the levels do not halve the sides evenly.
    """
    factor = stem * 2 ** (levels - 1)
    if any(size % factor for size in x.shape[2:]):
        raise ValueError(
            f"image of {x.shape[2]} x {x.shape[3]}: this network needs sides that {factor} divides"
        )
    return fast_layout(F.pixel_unshuffle(x, stem) if stem > 1 else x)


def at_once(stage: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    return stage(h, emb)


def again(stage: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """Call a stage so that its inner activations are computed again when the gradient needs
    them."""
    return checkpoint(stage, h, emb, use_reentrant=False)
