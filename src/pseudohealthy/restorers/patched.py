"""Patched diffusion: noise one patch, denoise it conditioned on its clean surroundings, and stitch.

pDDPM (Behrendt et al., MIDL 2023). With one box for the whole image it is the DDPM that the same
papers compare with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw, Key
from pseudohealthy.marks import Range
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.ssim import ssim
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.noising import Diffusion, OneStep
from pseudohealthy.restorers.ranges import Square, Weight, Weights, patch_fits
from pseudohealthy.settings import build, check_fields

# Of the images in one network call: 28 of 96 x 96, about 1 GB of activations at width 128.
PIXELS = 2**18


class Box(NamedTuple):
    """Rows top..bottom and columns left..right; may overhang an image's lower and right border."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, images: Tensor) -> Tensor:
        """The part of images (..., H, W) inside the box."""
        return images[..., self.top : self.bottom, self.left : self.right]


def masks(boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """Masks of boxes, (N, 1, H, W) bool."""
    inside = torch.zeros(len(boxes), 1, height, width, dtype=torch.bool)
    for box, mask in zip(boxes, inside, strict=True):
        box.cut(mask).fill_(True)
    return inside


def shared_fields(draw: Draw, like: Tensor, key: Key, count: int = 1) -> Tensor:
    """The published codes' noise: one float16 simplex field for all planes and patches of a call.

    Keyed by `key` and the seed of the draw, not by its items, so that a case does not depend on its
    batch.

    Args:
        draw: For its seed.
        like: (B, C, H, W).
        key: Of the field.
        count: Number of fields.

    Returns:
        (count, C, H, W).
    """
    shared = Draw(draw.seed, [(key, copy) for copy in range(count)], "simplex")
    return shared.noise(like[:1].expand(count, -1, -1, -1)).half().to(like.dtype)


@dataclass(frozen=True)
class Patches:
    """Which squares of the image are noised, and how their estimates are stitched.

    Args:
        side: Of the square, model pixels.
        stride: Of the grid where boxes overlap; 0 is the side.
        overlap: "none" (boxes lie side by side, the last is cut off at the border), or whole boxes
            spread evenly from border to border, as many as the stride needs, where "cut" gives each
            pixel to the first box that has it and "average" to all of them alike.
        sampling: Training draws a box of that grid ("grid", the published fixed sampling) or any
            whole one ("random").
    """

    side: Square = 48
    stride: Annotated[int, Range(0, 2048)] = 0
    overlap: Literal["none", "cut", "average"] = "none"
    sampling: Literal["grid", "random"] = "grid"

    def __post_init__(self) -> None:
        check_fields(self, "Patches.{}".format)
        if self.stride > self.side or (self.stride and self.overlap == "none"):
            raise ValueError(
                f"stride = {self.stride} with side = {self.side} and overlap = {self.overlap}: "
                "give at most the side, and 0 where boxes do not overlap"
            )


@register("patched")
class Patched(Restorer):
    """One-step estimates of all patches of a grid, each conditioned on the rest of the clean image.

    Args:
        weights: a run or a diffusers folder whose network training starts from; read then only.
        objective: Of the clean estimate inside the patch, "l1" or "mse+ssim" (MSE + `ssim_weight`
            (1 - SSIM)).
        quirks: "published" has one float16 simplex field for all planes and patches of a call, a
            loss diluted by the clean surroundings, random boxes that overhang the border, and "cut"
            by cells of a grid without overlap, which leaves strips of input between three boxes a
            side. (The published "average" is wrong and not reproduced.)
    """

    nested = {"network": UNet}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        diffusion: Diffusion = Diffusion(schedule="cosine", target="clean", noise="simplex"),
        walk: OneStep = OneStep(start_levels=(500,)),
        patches: Patches = Patches(),
        objective: Literal["l1", "mse+ssim"] = "l1",
        ssim_weight: Weight = 1.0,
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        patch_fits("patches", patches.side, size)
        walk.fits(diffusion)
        net = build(UNet, network, "restorer.network", channels=channels)
        side_fits(net, size, "restorer.network")
        self.denoiser = diffusion.denoiser(net)
        self.patch, self.stride = patches.side, patches.stride or patches.side
        self.overlap, self.sampling = patches.overlap, patches.sampling
        self.diffusion, self.walk, self.weights = diffusion, walk, weights
        self.objective, self.ssim_weight = objective, ssim_weight
        self.published = quirks == "published"
        self.shared = self.published and diffusion.noise == "simplex"

    def parts(self) -> tuple[str, ...]:
        return ("denoiser",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.denoiser.network, self.weights),)

    def spans(self, length: int) -> list[tuple[int, int, int, int]]:
        """(start, end) of every box along one axis, and (start, end) of its cell in the stitched
        image."""
        count = max(1, math.ceil((length - self.patch) / self.stride) + 1)
        spans: list[tuple[int, int, int, int]] = []
        for i in range(count):
            start = (
                i * (length - self.patch) // (count - 1)
                if self.overlap != "none" and count > 1
                else i * self.patch
            )
            box, cell = (start, start + self.patch), (start, start + self.patch)
            if self.overlap == "cut":
                before = spans[-1][1] if i else 0
                cell = (
                    (i * self.patch, (i + 1) * self.patch) if self.published else (before, box[1])
                )
            spans.append((*box, *cell))
        return spans

    def grid(self, height: int, width: int) -> list[tuple[Box, Box]]:
        """Boxes by rows, and the cell of the stitched image that each fills."""
        return [
            (Box(top, bottom, left, right), Box(*rows, *columns))
            for top, bottom, *rows in self.spans(height)
            for left, right, *columns in self.spans(width)
        ]

    def training_boxes(self, draw: Draw, height: int, width: int) -> list[Box]:
        """One box per item."""
        if self.sampling == "grid":
            boxes = [box for box, _ in self.grid(height, width)]
            return [boxes[i] for i in draw.integers(0, len(boxes)).tolist()]
        ends = [n if self.published else max(0, n - self.patch) + 1 for n in (height, width)]
        tops, lefts = (draw.integers(0, end).tolist() for end in ends)
        return [Box(y, y + self.patch, x, x + self.patch) for y, x in zip(tops, lefts, strict=True)]

    def loss(self, batch: Batch, part: str) -> Tensor:
        images, draw = batch.images, batch.draw
        t = self.diffusion.drawn_levels(draw, images)
        boxes = self.training_boxes(draw, *images.shape[-2:])
        key = ("training", draw.keys[0])
        noise = (
            shared_fields(draw, images, key)
            if self.shared
            else self.diffusion.noisy(draw).noise(images)
        )
        return self.patch_loss(images, noise, t, boxes)

    def patch_loss(self, images: Tensor, noise: Tensor, t: Tensor, boxes: Sequence[Box]) -> Tensor:
        """Loss (B,) of images (B, C, H, W) noised to noise levels t (B,) inside one box each."""
        inside = masks(boxes, *images.shape[-2:]).to(images.device)
        noised = torch.where(inside, self.denoiser.noised(images, noise, t), images)
        clean = self.denoiser(noised, t).clean.float()
        patches = (
            (box.cut(a)[None], box.cut(b)[None])
            for box, a, b in zip(boxes, clean, images, strict=True)
        )
        losses = torch.cat([self.distance(a, b) for a, b in patches])
        losses = self.diffusion.weighted(losses, self.denoiser.schedule, t)
        # Over the whole image as published, what lies outside the patch adds zeros.
        return losses * inside.float().mean((1, 2, 3)) if self.published else losses

    def distance(self, clean: Tensor, images: Tensor) -> Tensor:
        if self.objective == "l1":
            return (clean - images).abs().flatten(1).mean(1)
        return (clean - images).square().flatten(1).mean(1) + self.ssim_weight * (
            1 - ssim(clean, images)
        )

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        starts = self.walk.start_levels
        estimates = [self.stitched(images, start, draw.fork(f"depth {start}")) for start in starts]
        return averaged(estimates, self.walk.clip)

    def stitched(self, images: Tensor, start: int, draw: Draw) -> Tensor:
        """One-step estimates of all patches from noise level `start`, stitched to (B, draws, C, H,
        W)."""
        boxes, cells = zip(*self.grid(*images.shape[-2:]), strict=True)
        draws = self.walk.draws
        copies = (len(images), draws, len(boxes))
        clean = images[:, None, None].expand(*copies, *images.shape[1:])
        if self.shared:
            noise = shared_fields(draw, images, f"depth {start}", draws)[None, :, None].expand_as(
                clean
            )
        else:
            noise = (
                self.diffusion.noisy(draw)
                .repeat(draws * len(boxes))
                .noise(clean.flatten(0, 2))
                .reshape(clean.shape)
            )
        inside = masks(boxes, *images.shape[-2:]).to(images.device).expand(*copies, -1, -1, -1)
        mixed = torch.where(inside, self.denoiser.noised(clean, noise, start), clean).flatten(0, 2)
        at_once = max(1, PIXELS // (images.shape[-2] * images.shape[-1]))
        estimate = torch.cat(
            [self.denoiser(part, start).clean for part in mixed.split(at_once)]
        ).float()
        # (B, draws, boxes, C, H, W).
        patches = torch.where(inside, estimate.reshape(clean.shape), clean)
        total, count = torch.zeros_like(patches[:, :, 0]), torch.zeros_like(images[:1, None])
        for index, cell in enumerate(cells):
            cell.cut(total).add_(cell.cut(patches[:, :, index]))
            cell.cut(count).add_(1)
        return total / count

    def network_calls(self) -> int:
        return self.walk.draws * len(self.walk.start_levels) * len(self.grid(self.size, self.size))
