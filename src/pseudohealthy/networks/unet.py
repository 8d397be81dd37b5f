"""The ADM family of U-Nets (Dhariwal & Nichol 2021) with the parameter names of the published code.

One file covers the networks of Wolleb et al. 2022, pDDPM (Behrendt et al. 2024) and cDDPM (2025): the names and
shapes are those of guided-diffusion, so their state dicts load strictly. Published sizes:

    Wolleb  UNet(in_channels=4, out_channels=4, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2,
                 attention=(16,), classes=2, learned_variance=True)                              113,681,160
    pDDPM   UNet(width=128, multipliers=(1, 2, 2), blocks=3, head_channels=64, attention_order="new",
                 scale_shift=True, residual_sampling=True)                                        37,513,857
    cDDPM   the same with vector=512                                                              44,068,481

`UNet2DModel` of Hugging Face diffusers is the same network under other names (`interop.diffusers`), among them
google/ddpm-ema-celebahq-256, with the details of the original DDPM (Ho et al. 2020):

    UNet(in_channels=3, out_channels=3, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention=(16,), eps=1e-6,
         embedding_order="sin-cos", frequency_shift=1, pad_end=True)                             113,673,219
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pseudohealthy.networks.ranges import (
    Blocks,
    Channels,
    Eps,
    Factors,
    Groups,
    HeadChannels,
    Heads,
    Multipliers,
    Share,
    Stem,
    Width,
    groups_fit,
)
from pseudohealthy.settings import checked

# Rows of the attention matrix at a time on the CPU, fewer for a batch: 1.2 to 1.9 times faster than all 4096 at once
QUERY_ROWS = 512

M = TypeVar("M", bound=nn.Module)


class Style(NamedTuple):
    """What all blocks of one network share."""

    embedding: int
    heads: int = 1
    head_channels: int | None = None
    attention_order: str = "legacy"
    scale_shift: bool = False
    groups: int = 32
    eps: float = 1e-5
    dropout: float = 0.0
    pad_end: bool = False

    def norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(math.gcd(self.groups, channels), channels, eps=self.eps)


def zeroed(module: M) -> M:
    """Last layer of a residual branch: starts at zero, so that a fresh block is the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def timestep_embedding(t: Tensor, width: int, order: str = "cos-sin", shift: int = 0) -> Tensor:
    """Sinusoids (B, width) float32 of the 0-based steps t (B,); with `shift` 1 the last frequency is 1/10000 itself."""
    half = width // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device)
    frequency = torch.exp(exponent / (half - shift))
    angle = t.float()[:, None] * frequency
    parts = (angle.cos(), angle.sin()) if order == "cos-sin" else (angle.sin(), angle.cos())
    return torch.cat(parts, dim=1)


def attend(qkv: Tensor, heads: int, order: str) -> Tensor:
    """Attention output (B, C, L) of queries, keys and values (B, 3C, L); softmax in float32.

    order "legacy": channels are heads first, then q|k|v within a head; "new": q|k|v first, then heads.
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
    """Attention output (B, heads, L, c) of queries, keys and values of that shape, some rows of queries at a time."""
    batch, heads, _, channels = q.shape
    scale = channels**-0.25  # on both factors: keeps half precision from overflowing
    keys, v = (k * scale).transpose(-1, -2), v.contiguous()
    at_once = max(QUERY_ROWS // 4, min(QUERY_ROWS, 2 * QUERY_ROWS // (batch * heads)))
    return torch.cat([_weights(rows * scale, keys) @ v for rows in q.split(at_once, dim=2)], dim=2)


def _weights(q: Tensor, keys: Tensor) -> Tensor:
    return torch.softmax(q @ keys, dim=-1).to(q.dtype)  # which computes in float32 whatever it is given


class Attention(nn.Module):
    """Self-attention over all places, residual."""

    def __init__(self, channels: int, style: Style):
        super().__init__()
        self.heads = style.heads if style.head_channels is None else channels // style.head_channels
        if self.heads < 1 or channels % self.heads or (style.head_channels and channels % style.head_channels):
            how = f"head_channels = {style.head_channels}" if style.head_channels else f"heads = {style.heads}"
            raise ValueError(f"{how} of {channels} channels: give a divisor")
        self.order = style.attention_order
        self.norm = style.norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            flat = x.flatten(2)
            out = self.proj_out(attend(self.qkv(self.norm(flat)), self.heads, self.order))
            return (flat + out).reshape(x.shape)
        # The same as convolutions of images, which keep channels_last: without it all that follows would be contiguous.
        qkv = F.conv2d(self.norm(x), self.qkv.weight[..., None], self.qkv.bias)
        out = attend(qkv.flatten(2), self.heads, self.order).unflatten(2, x.shape[2:])
        return added(F.conv2d(out, self.proj_out.weight[..., None], self.proj_out.bias), x)


def active(x: Tensor) -> Tensor:
    """SiLU of a tensor that nobody else needs: in place where no gradient wants it back."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y, where nobody else needs x: in place where no gradient is taken (a fresh image costs more than the sum)."""
    return x + y if torch.is_grad_enabled() or x.dtype != y.dtype else x.add_(y)


def modulated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x (1 + scale) + shift, where nobody else needs x; in one pass where no gradient is taken."""
    if torch.is_grad_enabled() or x.dtype != scale.dtype:
        return x * (1 + scale) + shift
    return torch.addcmul(shift, x, 1 + scale, out=x)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


class ResBlock(nn.Module):
    """GroupNorm-SiLU-conv twice with the embedding in between; `resample` (halve or double) acts before the conv."""

    def __init__(self, channels: int, out: int, style: Style, resample: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.resample, self.scale_shift = resample, style.scale_shift
        self.in_layers = nn.Sequential(style.norm(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(style.embedding, out * (2 if style.scale_shift else 1)))
        last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.out_layers = nn.Sequential(style.norm(out), nn.SiLU(), nn.Dropout(style.dropout), last)
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
    in_channels: int, widths: Sequence[int], blocks: int, attention: Sequence[int], residual: bool, style: Style
) -> tuple[nn.ModuleList, list[int]]:
    """The downward path and the channels that each of its stages puts out."""
    stages, channels = [Stage(nn.Conv2d(in_channels, widths[0], 3, padding=1))], [widths[0]]
    for level, width in enumerate(widths):
        for _ in range(blocks):
            layers: list[nn.Module] = [ResBlock(channels[-1], width, style)]
            if 2**level in attention:
                layers.append(Attention(width, style))
            stages.append(Stage(*layers))
            channels.append(width)
        if level + 1 < len(widths):
            halving = ResBlock(width, width, style, halve) if residual else Downsample(width, style.pad_end)
            stages.append(Stage(halving))
            channels.append(width)
    return nn.ModuleList(stages), channels


def middle(channels: int, attention: bool, style: Style) -> Stage:
    between = [Attention(channels, style)] if attention else []
    return Stage(ResBlock(channels, channels, style), *between, ResBlock(channels, channels, style))


def fast_layout(x: Tensor) -> Tensor:
    """channels_last for inference, contiguous for training: GroupNorm's backward is many times slower in the former."""
    if torch.is_grad_enabled():
        return x.contiguous()
    x = x.contiguous(memory_format=torch.channels_last)
    if not torch.is_autocast_enabled(x.device.type):
        return x  # torch's GroupNorm of channels_last loses two digits on flat images, which only float32 would show
    # One channel is contiguous in both layouts, and would be taken for the other one through the whole network.
    _, channels, height, width = x.shape
    return x.as_strided(x.shape, (channels * height * width, 1, channels * width, channels))


def unfolded(x: Tensor, stem: int, levels: int) -> Tensor:
    """Space to depth by `stem`, after a check that every level halves evenly; the layout for what follows."""
    factor = stem * 2 ** (levels - 1)
    if any(size % factor for size in x.shape[2:]):
        raise ValueError(f"image of {x.shape[2]} x {x.shape[3]}: this network needs sides that {factor} divides")
    return fast_layout(F.pixel_unshuffle(x, stem) if stem > 1 else x)


def at_once(stage: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    return stage(h, emb)


def again(stage: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    """A stage whose inner activations are computed again when the gradient needs them."""
    return checkpoint(stage, h, emb, use_reentrant=False)


class UNet(nn.Module):
    """Predicts noise, image or velocity of a noisy image.

    in_channels, out_channels: of the image; learned_variance doubles the output ([estimate, v]).
    width, multipliers, blocks: channels of level i are width * multipliers[i], with `blocks` residual blocks each.
    attention: downsampling factors (1, 2, 4, ..., counted after the stem) with attention in every block.
    heads, or head_channels (channels per head, then heads follow); attention_order: see `attend`.
    classes: embedding of a label added to that of the time. vector: length of a conditioning vector that goes
        through a two-layer network and is concatenated (cDDPM). Not both.
    scale_shift: the embedding scales and shifts after the norm instead of being added before it.
    residual_sampling: halve and double inside residual blocks instead of by strided and nearest convolutions.
    embedding_order: "cos-sin" (guided-diffusion) or "sin-cos" (AnoDDPM, DDPM). frequency_shift: 1 spaces the frequencies
        of the time embedding by one step less, as DDPM does.
    pad_end: strided convolutions see a row of zeros below and a column to the right only, as in DDPM, not all around.
    stem: space to depth by this factor first and back last: 1.6 to 3.3 times faster at the same parameter count.
    checkpointing: in training, keep only what goes from stage to stage and compute the rest again for the gradient: a
        fraction of the memory (256 px on a small GPU), a third more time, the same result.
    Raises ValueError for contradictory settings.
    """

    dictated: ClassVar = ("in_channels", "out_channels", "classes", "vector", "learned_variance")  # by the method

    @checked
    def __init__(
        self,
        *,
        in_channels: Channels = 1,
        out_channels: Channels = 1,
        width: Width = 128,
        multipliers: Multipliers = (1, 2, 2),
        blocks: Blocks = 2,
        attention: Factors = (),
        middle_attention: bool = True,
        heads: Heads = 1,
        head_channels: HeadChannels | None = None,
        attention_order: Literal["legacy", "new"] = "legacy",
        classes: int = 0,
        vector: int = 0,
        scale_shift: bool = False,
        residual_sampling: bool = False,
        groups: Groups = 32,
        eps: Eps = 1e-5,
        dropout: Share = 0.0,
        embedding_order: Literal["cos-sin", "sin-cos"] = "cos-sin",
        frequency_shift: Literal[0, 1] = 0,
        pad_end: bool = False,
        stem: Stem = 1,
        checkpointing: bool = False,
        learned_variance: bool = False,
    ):
        super().__init__()
        if classes and vector:
            raise ValueError("condition on classes or on a vector, not on both")
        if pad_end and residual_sampling:
            raise ValueError("pad_end is of strided convolutions, not of residual_sampling: choose one")
        if frequency_shift and width < 4:
            raise ValueError(f"width = {width} has one frequency, which frequency_shift = 1 leaves no room for: give 4")
        groups_fit(groups, width)
        hidden = 4 * width
        self.width, self.levels, self.stem, self.learned_variance = width, len(multipliers), stem, learned_variance
        self.factor = stem * 2 ** (self.levels - 1)  # must divide the sides of the image
        self.embedding_order, self.frequency_shift, self.pad_end = embedding_order, frequency_shift, pad_end
        self.classes, self.vector, self.checkpointing = classes, vector, checkpointing
        embedding = hidden * (2 if vector else 1)
        style = Style(
            embedding, heads, head_channels, attention_order, scale_shift, groups, eps, dropout, pad_end=pad_end
        )
        widths = [width * m for m in multipliers]

        self.time_embed = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        if classes:
            self.label_emb: nn.Module = nn.Embedding(classes, hidden)
        elif vector:
            self.label_emb = nn.Sequential(nn.Linear(vector, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.input_blocks, skips = encoder(in_channels * stem**2, widths, blocks, attention, residual_sampling, style)
        self.middle_block = middle(widths[-1], middle_attention, style)
        stages, channels = [], widths[-1]
        for level, out in reversed(list(enumerate(widths))):
            for block in range(blocks + 1):
                layers: list[nn.Module] = [ResBlock(channels + skips.pop(), out, style)]
                if 2**level in attention:
                    layers.append(Attention(out, style))
                if level and block == blocks:
                    layers.append(ResBlock(out, out, style, double) if residual_sampling else Upsample(out))
                stages.append(Stage(*layers))
                channels = out
        self.output_blocks = nn.ModuleList(stages)
        last = nn.Conv2d(channels, out_channels * (2 if learned_variance else 1) * stem**2, 3, padding=1)
        self.out = nn.Sequential(style.norm(channels), nn.SiLU(), zeroed(last))

    def forward(
        self, x: Tensor, t: int | Tensor, label: int | Tensor | None = None, vector: Tensor | None = None
    ) -> Tensor:
        """Output (B, out_channels [* 2], H, W) for x (B, in_channels, H, W) at 0-based steps t, an int or (B,).

        label: int or (B,) long in 0..classes-1; vector: (B, vector). Required exactly when the network has them.
        Raises ValueError for a missing or unexpected condition, or sides that the levels do not divide.
        """
        if (label is not None) != bool(self.classes) or (vector is not None) != bool(self.vector):
            raise ValueError(
                f"this network has {self.classes} classes and a vector of {self.vector}: condition on that"
            )
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        emb = self.time_embed(timestep_embedding(t, self.width, self.embedding_order, self.frequency_shift))
        if label is not None:
            emb = emb + self.label_emb(torch.as_tensor(label, device=x.device).expand(len(x)))
        elif vector is not None:
            emb = torch.cat([emb, self.label_emb(vector)], dim=1)

        run = again if self.checkpointing and torch.is_grad_enabled() else at_once
        h, skips = unfolded(x, self.stem, self.levels), []
        for stage in self.input_blocks:
            h = run(stage, h, emb)
            skips.append(h)
        h = run(self.middle_block, h, emb)
        for stage in self.output_blocks:
            h = run(stage, torch.cat([h, skips.pop()], dim=1), emb)
        h = self.out(h)
        return (F.pixel_shuffle(h, self.stem) if self.stem > 1 else h).contiguous()
