"""The ADM family of U-Nets (Dhariwal & Nichol 2021) with the parameter names of the published code.

One file covers the networks of Wolleb et al. 2022, pDDPM (Behrendt et al. 2024) and cDDPM (2025):
the names and shapes are those of guided-diffusion, so their state dicts load strictly. Published
sizes:

    Wolleb  UNet(channels=4, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2,
                 attention={"at": (16,)}, condition={"classes": 2}, learned_variance=True)
                 113,681,160
    pDDPM   UNet(width=128, multipliers=(1, 2, 2), blocks=3, attention={"head_channels": 64,
                 "order": "new"}, block={"scale_shift": True, "residual_sampling": True})
                 37,513,857
    cDDPM   the same with condition={"vector": 512}
                 44,068,481

`UNet2DModel` of Hugging Face diffusers is the same network under other names (`interop.diffusers`),
among them google/ddpm-ema-celebahq-256, with the details of the original DDPM (Ho et al. 2020):

    UNet(channels=3, width=128, multipliers=(1, 1, 2, 2, 4, 4), blocks=2, attention={"at": (16,)},
         block={"eps": 1e-6, "pad_end": True}, time={"order": "sin-cos", "frequency_shift": 1})
         113,673,219
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pseudohealthy.networks.blocks import (
    Attention,
    AttentionSettings,
    BlockSettings,
    ResBlock,
    Stage,
    Style,
    Upsample,
    again,
    at_once,
    double,
    encoder,
    middle,
    timestep_embedding,
    unfolded,
    zeroed,
)
from pseudohealthy.networks.ranges import Blocks, Channels, Multipliers, Stem, Width, groups_fit
from pseudohealthy.settings import check_fields, checked


@dataclass(frozen=True)
class TimeSettings:
    """[network.time]: embedding of the noise level that the network is conditioned on.

    Args:
        order: Of the sinusoids: "cos-sin" (guided-diffusion) or "sin-cos" (AnoDDPM, DDPM).
        frequency_shift: 1 spaces their frequencies by one step less, as DDPM does.
    """

    order: Literal["cos-sin", "sin-cos"] = "cos-sin"
    frequency_shift: Literal[0, 1] = 0

    def __post_init__(self) -> None:
        check_fields(self, "TimeSettings.{}".format)


@dataclass(frozen=True)
class Condition:
    """What a network is conditioned on beside the noise level: a class or a vector, not both.

    Args:
        classes: Number of labels; their embedding is added to that of the noise level. 0 for none.
        vector: Length of a vector that passes two layers and is concatenated to the embedding of
            the noise level (cDDPM). 0 for none.

    Raises:
        ValueError: for both.
    """

    classes: int = 0
    vector: int = 0

    def __post_init__(self) -> None:
        if self.classes and self.vector:
            raise ValueError("condition on classes or on a vector, not on both")


class UNet(nn.Module):
    """Predicts noise, image or velocity of a noisy image.

    Args:
        channels: Of the image, in and out.
        learned_variance: Doubles the channels that come out ([estimate, v]).
        condition: What the network is conditioned on beside the noise level.
        width, multipliers, blocks: Channels of level i are width * multipliers[i], with `blocks`
            residual blocks each.
        time: Embedding of the noise level.
        stem: Space to depth by this factor first and back last: 1.6 to 3.3 times faster at the same
            parameter count.

    Raises:
        ValueError: for contradictory settings.
    """

    dictated: ClassVar = ("channels", "learned_variance", "condition")  # by the method

    @checked
    def __init__(
        self,
        *,
        channels: Channels = 1,
        learned_variance: bool = False,
        condition: Condition = Condition(),
        width: Width = 128,
        multipliers: Multipliers = (1, 2, 2),
        blocks: Blocks = 2,
        attention: AttentionSettings = AttentionSettings(),
        block: BlockSettings = BlockSettings(),
        time: TimeSettings = TimeSettings(),
        stem: Stem = 1,
    ):
        super().__init__()
        if time.frequency_shift and width < 4:
            raise ValueError(
                f"width = {width} has one frequency, which time.frequency_shift = 1 leaves no room"
                " for: give 4"
            )
        groups_fit(block.groups, width)
        hidden = 4 * width
        self.width = width
        self.levels = len(multipliers)
        self.stem = stem
        self.learned_variance = learned_variance
        self.factor = stem * 2 ** (self.levels - 1)  # must divide the sides of the image
        self.time, self.pad_end, self.checkpointing = time, block.pad_end, block.checkpointing
        self.condition = condition
        style = Style(hidden * (2 if condition.vector else 1), attention, block)
        widths = [width * m for m in multipliers]

        self.time_embed = nn.Sequential(
            nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        if condition.classes:
            self.label_emb: nn.Module = nn.Embedding(condition.classes, hidden)
        elif condition.vector:
            self.label_emb = nn.Sequential(
                nn.Linear(condition.vector, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
            )
        self.input_blocks, skips = encoder(channels * stem**2, widths, blocks, style)
        self.middle_block = middle(widths[-1], style)
        stages, current = [], widths[-1]
        for level, out in reversed(list(enumerate(widths))):
            for place in range(blocks + 1):
                layers: list[nn.Module] = [ResBlock(current + skips.pop(), out, style)]
                if 2**level in attention.at:
                    layers.append(Attention(out, style))
                if level and place == blocks:
                    layers.append(
                        ResBlock(out, out, style, double)
                        if block.residual_sampling
                        else Upsample(out)
                    )
                stages.append(Stage(*layers))
                current = out
        self.output_blocks = nn.ModuleList(stages)
        last = nn.Conv2d(current, channels * (2 if learned_variance else 1) * stem**2, 3, padding=1)
        self.out = nn.Sequential(style.norm(current), nn.SiLU(), zeroed(last))

    def forward(
        self,
        x: Tensor,
        t: int | Tensor,
        label: int | Tensor | None = None,
        vector: Tensor | None = None,
    ) -> Tensor:
        """Output (B, channels [* 2], H, W).

        Args:
            x: (B, channels, H, W).
            t: Noise level - 1, as published: an int or (B,), from 0.
            label: An int or (B,) long in 0..classes - 1, exactly where the network has classes.
            vector: (B, length), exactly where the network has a vector.

        Raises:
            ValueError: for a missing or unexpected condition, or sides that the levels do not
                divide.
        """
        classes, length = self.condition.classes, self.condition.vector
        if (label is not None) != bool(classes) or (vector is not None) != bool(length):
            raise ValueError(
                f"this network has {classes} classes and a vector of {length}: condition on that"
            )
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        emb = self.time_embed(
            timestep_embedding(t, self.width, self.time.order, self.time.frequency_shift)
        )
        if label is not None:
            emb = emb + self.label_emb(torch.as_tensor(label, device=x.device).expand(len(x)))
        elif vector is not None:
            emb = torch.cat([emb, self.label_emb(vector)], dim=1)

        call = again if self.checkpointing and torch.is_grad_enabled() else at_once
        h, skips = unfolded(x, self.stem, self.levels), []
        for stage in self.input_blocks:
            h = call(stage, h, emb)
            skips.append(h)
        h = call(self.middle_block, h, emb)
        for stage in self.output_blocks:
            h = call(stage, torch.cat([h, skips.pop()], dim=1), emb)
        h = self.out(h)
        return (F.pixel_shuffle(h, self.stem) if self.stem > 1 else h).contiguous()
