"""Patched diffusion: noise one patch, denoise it in the sight of its clean surroundings, and stitch the patches.

pDDPM (Behrendt et al., MIDL 2023). One box that is the whole image makes it the DDPM baseline of the same papers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.denoiser import Denoiser
from pseudohealthy.diffusion.noise import Draw, Key
from pseudohealthy.diffusion.schedule import Schedule
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.ssim import ssim
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.ranges import Depths, Draws, Levels, Square, Weight, Weights, levels_fit, patch_fits
from pseudohealthy.settings import Range, build

PIXELS = 2**18  # of the images in one network call: 28 of 96 x 96, about 1 GB of activations at width 128


class Box(NamedTuple):
    """Rows top..bottom and columns left..right of an image; may overhang its lower and right border."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, images: Tensor) -> Tensor:
        """The part of images (..., H, W) inside."""
        return images[..., self.top : self.bottom, self.left : self.right]


def masks(boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """(N, 1, H, W) bool: inside box n."""
    inside = torch.zeros(len(boxes), 1, height, width, dtype=torch.bool)
    for box, mask in zip(boxes, inside, strict=True):
        box.cut(mask).fill_(True)
    return inside


def shared_fields(draw: Draw, like: Tensor, key: Key, count: int = 1) -> Tensor:
    """The published codes' noise: one simplex field in float16 for all slices and patches of a call, (count, C, H, W).

    Keyed by `key` and the seed of the draw, not by its items, so that a case still does not depend on its batch.
    """
    own = Draw(draw.seed, [(key, copy) for copy in range(count)], "simplex")
    return own.noise(like[:1].expand(count, -1, -1, -1)).half().to(like.dtype)


@register("patched")
class Patched(Restorer):
    """Estimate every patch of a grid in one step, the rest of the image clean; each patch may differ from the input.

    patch: side of the square, model pixels. stride: of the grid where boxes overlap; 0 is the patch.
    overlap: "none" (boxes lie side by side, the last is cut off at the border), or whole boxes spread evenly from border
        to border, as many as the stride needs, where "cut" gives each pixel to the first box that has it and "average"
        to all of them alike.
    sampling: training draws a box of that grid ("grid", the published fixed sampling) or any whole one ("random").
    weights, schedule, levels, target, noise, standardise: as of "ddpm". depths, draws: levels and noises, averaged.
    objective: of the clean estimate inside the patch, "l1" or "mse+ssim" (MSE + `ssim_weight` (1 - SSIM)).
    clip: keep the clean estimate in [-1, 1].
    quirks: "published" has one float16 simplex field for all slices and patches of a call, a loss diluted by the clean
        surroundings, random boxes that overhang the border, and "cut" by cells of a grid without overlap, which leaves
        strips of input between three boxes a side. (The published "average" is wrong and not reproduced.)
    """

    paper = "Behrendt et al., Patched Diffusion Models for Unsupervised Anomaly Detection in Brain MRI, MIDL 2023"
    nested = {"network": UNet}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
        patch: Square = 48,
        stride: Annotated[int, Range(0, 2048)] = 0,
        overlap: Literal["none", "cut", "average"] = "none",
        sampling: Literal["grid", "random"] = "grid",
        schedule: Literal["linear", "cosine"] = "cosine",
        levels: Levels = 1000,
        target: Literal["noise", "clean", "velocity"] = "clean",
        noise: Literal["gaussian", "simplex"] = "simplex",
        standardise: bool = False,
        depths: Depths = (500,),
        draws: Draws = 1,
        objective: Literal["l1", "mse+ssim"] = "l1",
        ssim_weight: Weight = 1.0,
        clip: bool = True,
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        patch_fits(patch, size)
        levels_fit("depths", depths, levels, "levels")
        if stride > patch or (stride and overlap == "none"):
            raise Fault("RECIPE", f"restorer.stride = {stride} with patch = {patch} and overlap = {overlap}",
                        "give at most the patch, and 0 where boxes do not overlap", exit=USAGE)  # fmt: skip
        net = build(UNet, network, "restorer.network", in_channels=channels, out_channels=channels)
        self.denoiser = Denoiser(net, Schedule(schedule, levels), target=target)
        side_fits(net, size, "restorer.network")
        self.patch, self.stride, self.overlap, self.sampling = patch, stride or patch, overlap, sampling
        self.noise, self.standardise, self.depths, self.draws = noise, standardise, depths, draws
        self.objective, self.ssim_weight, self.clip, self.weights = objective, ssim_weight, clip, weights
        self.published, self.shared = quirks == "published", quirks == "published" and noise == "simplex"

    def parts(self) -> tuple[str, ...]:
        return ("denoiser",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.denoiser.network, self.weights),)

    def spans(self, length: int) -> list[tuple[int, int, int, int]]:
        """(start, end) of every box along one axis, and (start, end) of what it gives to the stitched image."""
        count = max(1, math.ceil((length - self.patch) / self.stride) + 1)
        found: list[tuple[int, int, int, int]] = []
        for i in range(count):
            start = i * (length - self.patch) // (count - 1) if self.overlap != "none" and count > 1 else i * self.patch
            box, cell = (start, start + self.patch), (start, start + self.patch)
            if self.overlap == "cut":
                before = found[-1][1] if i else 0
                cell = (i * self.patch, (i + 1) * self.patch) if self.published else (before, box[1])
            found.append((*box, *cell))
        return found

    def grid(self, height: int, width: int) -> list[tuple[Box, Box]]:
        """Boxes, row by row, and the cell of the stitched image that each fills."""
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
        t = draw.integers(1, self.denoiser.schedule.steps + 1).to(images.device)
        boxes = self.training_boxes(draw, *images.shape[-2:])
        key = ("training", draw.keys[0])
        noise = shared_fields(draw, images, key) if self.shared else self.noisy(draw).noise(images)
        return self.patch_loss(images, noise, t, boxes)

    def patch_loss(self, images: Tensor, noise: Tensor, t: Tensor, boxes: Sequence[Box]) -> Tensor:
        """Loss (B,) of images (B, C, H, W) noised to levels t (B,) inside one box each."""
        inside = masks(boxes, *images.shape[-2:]).to(images.device)
        noised = torch.where(inside, self.denoiser.noised(images, noise, t), images)
        clean = self.denoiser(noised, t).clean.float()
        patches = ((box.cut(a)[None], box.cut(b)[None]) for box, a, b in zip(boxes, clean, images, strict=True))
        losses = torch.cat([self.distance(a, b) for a, b in patches])
        # Over the whole image as published, what lies outside the patch adds zeros.
        return losses * inside.float().mean((1, 2, 3)) if self.published else losses

    def distance(self, clean: Tensor, images: Tensor) -> Tensor:
        if self.objective == "l1":
            return (clean - images).abs().flatten(1).mean(1)
        return (clean - images).square().flatten(1).mean(1) + self.ssim_weight * (1 - ssim(clean, images))

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        return averaged([self.stitched(images, depth, draw.fork(f"depth {depth}")) for depth in self.depths], self.clip)

    def stitched(self, images: Tensor, depth: int, draw: Draw) -> Tensor:
        """One-step estimates of all patches from `depth`, put together: (B, draws, C, H, W)."""
        boxes, cells = zip(*self.grid(*images.shape[-2:]), strict=True)
        copies = (len(images), self.draws, len(boxes))
        clean = images[:, None, None].expand(*copies, *images.shape[1:])
        if self.shared:
            noise = shared_fields(draw, images, f"depth {depth}", self.draws)[None, :, None].expand_as(clean)
        else:
            noise = self.noisy(draw).repeat(self.draws * len(boxes)).noise(clean.flatten(0, 2)).reshape(clean.shape)
        inside = masks(boxes, *images.shape[-2:]).to(images.device).expand(*copies, -1, -1, -1)
        mixed = torch.where(inside, self.denoiser.noised(clean, noise, depth), clean).flatten(0, 2)
        at_once = max(1, PIXELS // (images.shape[-2] * images.shape[-1]))
        estimate = torch.cat([self.denoiser(part, depth).clean for part in mixed.split(at_once)]).float()
        patches = torch.where(inside, estimate.reshape(clean.shape), clean)  # (B, draws, boxes, C, H, W)
        total, count = torch.zeros_like(patches[:, :, 0]), torch.zeros_like(images[:1, None])
        for index, cell in enumerate(cells):
            cell.cut(total).add_(cell.cut(patches[:, :, index]))
            cell.cut(count).add_(1)
        return total / count

    def noisy(self, draw: Draw) -> Draw:
        """The same stream, giving this method's kind of noise."""
        return draw.of_kind(self.noise, **({"standardise": self.standardise} if self.noise == "simplex" else {}))

    def network_calls(self) -> int:
        return self.draws * len(self.depths) * len(self.grid(self.size, self.size))
