"""Patched diffusion for haemorrhage on head CT, by sliding windows.

One window is noised and estimated, conditioned on the rest of the plane. CT Hemorrhage Detection
with Patched Diffusion Models (Loevlie, Liang, Brockett 2025), after pDDPM (Behrendt et al., MIDL
2023). The experiment on whole planes of the same authors' poster is restorer "ddpm".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.marks import Range
from pseudohealthy.networks.ct_unet import CtUNet
from pseudohealthy.networks.ranges import Channels, Size, side_fits
from pseudohealthy.networks.ssim import ssim
from pseudohealthy.networks.unet import UNet
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, averaged, register
from pseudohealthy.restorers.noising import Diffusion, OneStep
from pseudohealthy.restorers.patched import Box
from pseudohealthy.restorers.ranges import Square, Weight, Weights, patch_fits
from pseudohealthy.restorers.symmetry import mirror_residual
from pseudohealthy.settings import build, check_fields, checked

EMPTY = -0.999  # a window no brighter than this is air, with nothing to restore


@dataclass(frozen=True)
class Windows:
    """Which squares of a plane are noised, and the context that the network gets of each.

    Args:
        side, stride: Side and step of the windows, model pixels, at most the side of the image.
        context: Side of the square about a window that the network gets; 0 is the whole image, as
            published.
        at_once: How many go through the network at once.
    """

    side: Square = 64
    stride: Square = 32
    context: Annotated[int, Range(0, 2048)] = 0
    at_once: Annotated[int, Range(1, 4096)] = 64

    def __post_init__(self) -> None:
        check_fields(self, "Windows.{}".format)
        if self.stride > self.side or (self.context and self.context < self.side):
            raise ValueError(
                f"stride = {self.stride}, side = {self.side} and context = {self.context}: "
                "give a stride of at most the side, and a context of at least it or 0"
            )


@dataclass(frozen=True)
class Reading:
    """How the windows become one map and one score.

    Args:
        symmetry: The healthy twin keeps what both halves of the head share (`mirror_residual`).
        score: "map" takes map and score from the residual as for every method. "published": map and
            score are the absolute errors of the windows, averaged over all pixels, background
            included (they grow with the area of tissue).
    """

    symmetry: bool = False
    score: Literal["map", "published"] = "map"

    def __post_init__(self) -> None:
        check_fields(self, "Reading.{}".format)
        if self.symmetry and self.score == "published":
            raise ValueError(
                "symmetry = true changes the residual, which score = published does not use: choose"
                " one of them"
            )


class CtNetwork:
    """The network of the windows: its kind, and the settings of either kind.

    Args:
        architecture: "ct" (settings in `ct`) or "unet" (in `unet`).
        weights: a run or a diffusers folder whose network training starts from; read then only. ""
            starts from scratch.
    """

    nested: ClassVar[dict[str, Any]] = {"ct": CtUNet, "unet": UNet}

    @checked
    def __init__(
        self,
        *,
        architecture: Literal["ct", "unet"] = "ct",
        ct: dict = {},  # noqa: B006 (read only)
        unet: dict = {},  # noqa: B006 (read only)
        weights: Weights = "",
    ):
        self.where = f"restorer.network.{architecture}"
        self.kind, self.settings = (CtUNet, ct) if architecture == "ct" else (UNet, unet)
        self.weights = weights

    def made(self, channels: int, quirks: str) -> CtUNet | UNet:
        """The network of images with so many channels."""
        settings = {"quirks": quirks} if self.kind is CtUNet else {}
        return build(self.kind, self.settings, self.where, channels=channels, **settings)


@register("ct-patched")
class CtPatched(Restorer):
    """The mean of one-step estimates of the windows of a sliding grid.

    The schedule is the cosine (s = 0.008), and the network puts out the clean window. Windows of
    air (all pixels <= -0.999) are their own healthy twins and take no call.

    Args:
        walk: The published 0-based index 150 is level 151.
        ssim_weight: Of 1 - SSIM beside the mean squared error (1 in the README, 0.1 in the authors'
            last code).
        quirks: "published" has the network as executed (`CtUNet`), betas of at least 1e-4,
            estimates clamped before the loss (no gradient beyond the range), SSIM constants for
            range 1 with zero padding, and works on empty windows.
    """

    nested = {"network": CtNetwork}
    dictated = (
        "size",
        "channels",
        "diffusion.schedule",
        "diffusion.betas",
        "diffusion.target",
        "diffusion.noise",
        "diffusion.standardise",
        "diffusion.octaves",
        "diffusion.frequency",
    )

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        network: dict = {},  # noqa: B006 (read only)
        diffusion: Diffusion = Diffusion(schedule="cosine", target="clean"),
        walk: OneStep = OneStep(start_levels=(151,)),
        windows: Windows = Windows(),
        ssim_weight: Weight = 1.0,
        reading: Reading = Reading(),
        quirks: Literal["none", "published"] = "none",
    ):
        super().__init__(size=size, channels=channels)
        patch_fits("windows", windows.side, size)
        walk.fits(diffusion)
        self.published, kind = quirks == "published", build(CtNetwork, network, "restorer.network")
        net = kind.made(channels, quirks)
        self.denoiser = diffusion.denoiser(net, floor=1e-4 if self.published else 0.0)
        side_fits(net, min(windows.context or size, size), kind.where)
        self.weights = kind.weights
        self.diffusion = diffusion
        self.walk = walk
        self.windows = windows
        self.ssim_weight = ssim_weight
        self.symmetry = reading.symmetry
        self.own_map = reading.score == "published"

    def parts(self) -> tuple[str, ...]:
        return ("denoiser",)

    def starts(self) -> tuple[tuple[nn.Module, str], ...]:
        return ((self.denoiser.network, self.weights),)

    def grid(self, height: int, width: int) -> list[Box]:
        """Windows by rows, spread evenly from border to border, as many as the stride needs.

        As published they start at multiples of the stride, and a border that remains is left out.
        """
        side = min(self.windows.side, height, width)
        spread = steps if self.published else spans
        rows, columns = (spread(n, side, min(self.windows.stride, side)) for n in (height, width))
        return [Box(*row, *column) for row in rows for column in columns]

    def training_boxes(self, draw: Draw, height: int, width: int) -> list[Box]:
        """One whole window per item, at any offset."""
        side = min(self.windows.side, height, width)
        tops, lefts = (draw.integers(0, n - side + 1).tolist() for n in (height, width))
        return [Box(y, y + side, x, x + side) for y, x in zip(tops, lefts, strict=True)]

    def loss(self, batch: Batch, part: str) -> Tensor:
        """MSE + `ssim_weight` (1 - SSIM) of the clean estimate of one noised window per item."""
        images, draw = batch.images, batch.draw
        t = self.diffusion.drawn_levels(draw, images)
        boxes = self.training_boxes(draw, *images.shape[-2:])
        side = boxes[0].bottom - boxes[0].top
        return self.patch_loss(
            images, draw.noise(images.new_empty(()).expand(*images.shape[:2], side, side)), t, boxes
        )

    def patch_loss(self, images: Tensor, noise: Tensor, t: Tensor, boxes: Sequence[Box]) -> Tensor:
        """Loss (B,) of images with one noised window each.

        Args:
            images: (B, C, H, W).
            noise: (B, C, patch, patch).
            t: Noise levels (B,).
            boxes: One window per image.
        """
        truth = torch.stack([box.cut(image) for box, image in zip(boxes, images, strict=True)])
        estimate = self.estimate(images, boxes, self.denoiser.noised(truth, noise, t), t)
        if self.published:
            estimate = estimate.clamp(-1, 1)
        likeness = ssim(
            estimate, truth, **({"data_range": 1.0, "border": "zeros"} if self.published else {})
        )
        errors = (estimate - truth).square().flatten(1).mean(1) + self.ssim_weight * (1 - likeness)
        return self.diffusion.weighted(errors, self.denoiser.schedule, t)

    def estimate(
        self, images: Iterable[Tensor], boxes: Sequence[Box], patches: Tensor, t: int | Tensor
    ) -> Tensor:
        """Clean estimates (N, C, patch, patch) of noised patches of otherwise clean images.

        Args:
            images: N images (C, H, W).
            boxes: Where each patch lies.
            patches: (N, C, patch, patch), noised.
            t: Noise level, an int or (N,).
        """
        views, places = [], []
        for image, box, patch in zip(images, boxes, patches, strict=True):
            view = surroundings(box, self.windows.context, *image.shape[-2:])
            views.append(view.cut(image).clone())
            places.append(
                Box(
                    box.top - view.top,
                    box.bottom - view.top,
                    box.left - view.left,
                    box.right - view.left,
                )
            )
            places[-1].cut(views[-1]).copy_(patch)
        clean = self.denoiser(torch.stack(views), t).clean.float()
        return torch.stack([place.cut(part) for place, part in zip(places, clean, strict=True)])

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        starts = self.walk.start_levels
        slid = (self.slid(images, start, draw.fork(f"depth {start}")) for start in starts)
        twins, errors = zip(*slid, strict=True)
        twin, error = averaged(twins), averaged(errors)
        reading = self.read(images, twin, error)
        pairs = zip(twin.without, error.without, strict=True)
        reading.without = [partial(self.reread, images, *pair) for pair in pairs]
        return reading

    def reread(self, images: Tensor, *pair: Callable[[], Restoration]) -> Restoration:
        return self.read(images, *(without() for without in pair))

    def read(self, images: Tensor, twin: Restoration, error: Restoration) -> Restoration:
        """The restoration by `score` and `symmetry`.

        Args:
            images: (B, C, H, W).
            twin: Mean healthy twins (B, C, H, W).
            error: Mean errors (B, 1, H, W).
        """
        if self.own_map:
            maps = error.healthy[:, 0]
            return Restoration(twin.healthy, twin.trail, map=maps, score=maps.flatten(1).mean(1))
        if not self.symmetry:
            return twin
        residual = mirror_residual(images - twin.healthy, images, sigma=images.shape[-1] / 64)
        return Restoration(images - residual, twin.trail)

    def slid(self, images: Tensor, start: int, draw: Draw) -> tuple[Tensor, Tensor]:
        """Healthy twins and absolute errors by one-step estimates of all windows.

        Args:
            images: (B, C, H, W).
            start: Noise level of the windows.

        Returns:
            (B, draws, C, H, W) and (B, draws, 1, H, W).
        """
        boxes, draws = self.grid(*images.shape[-2:]), self.walk.draws
        truth = torch.stack([box.cut(images) for box in boxes], 1)[:, None].expand(
            -1, draws, *[-1] * 4
        )
        copies, shape = truth.shape[:3], truth.shape[3:]
        noise = draw.repeat(draws * len(boxes)).noise(
            images.new_empty(()).expand(copies.numel(), *shape)
        )
        noised = self.denoiser.noised(truth, noise.reshape(truth.shape), start)
        estimates = truth.clone()
        occupied = (
            torch.ones(copies, dtype=torch.bool)
            if self.published
            else truth.amax((3, 4, 5)).cpu() > EMPTY
        )
        for part in occupied.nonzero().split(self.windows.at_once):
            item, copy, window = part.unbind(1)
            part_boxes = [boxes[i] for i in window.tolist()]
            clean = self.estimate(
                [images[i] for i in item.tolist()], part_boxes, noised[item, copy, window], start
            )
            estimates[item, copy, window] = clean.clamp(-1, 1) if self.walk.clip else clean
        # (B, draws, windows, 1, patch, patch).
        errors = (truth - estimates).abs().mean(3, keepdim=True)
        nothing = torch.zeros_like(images[:, :1])
        return stitched(estimates, boxes, images), stitched(errors, boxes, nothing)

    def describe(self) -> str:
        return "absolute errors of the windows, averaged" if self.own_map else ""

    def network_calls(self) -> int:
        """Network calls of an image without empty windows."""
        return self.walk.draws * len(self.walk.start_levels) * len(self.grid(self.size, self.size))


def spans(length: int, side: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of windows along one axis, evenly spread from border to border."""
    count = math.ceil((length - side) / stride) + 1
    starts = [i * (length - side) // max(1, count - 1) for i in range(count)]
    return [(start, start + side) for start in starts]


def steps(length: int, side: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of whole windows along one axis, at multiples of the stride."""
    return [(start, start + side) for start in range(0, length - side + 1, stride)]


def surroundings(box: Box, context: int, height: int, width: int) -> Box:
    """The square of side `context` about a box, moved into the image; the whole image for 0."""
    tall, wide = min(context or height, height), min(context or width, width)
    top = min(max(0, (box.top + box.bottom - tall) // 2), height - tall)
    left = min(max(0, (box.left + box.right - wide) // 2), width - wide)
    return Box(top, top + tall, left, left + wide)


def stitched(patches: Tensor, boxes: Sequence[Box], outside: Tensor) -> Tensor:
    """Mean of patches over the windows that hold a pixel, (B, draws, C, H, W).

    Args:
        patches: (B, draws, windows, C, patch, patch).
        boxes: Where each window lies.
        outside: (B, C, H, W), taken where no window lies.
    """
    total = torch.zeros_like(outside[:, None].repeat(1, patches.shape[1], 1, 1, 1))
    count = torch.zeros_like(outside[:1, None])
    for index, box in enumerate(boxes):
        box.cut(total).add_(patches[:, :, index])
        box.cut(count).add_(1)
    return torch.where(count > 0, total / count.clamp(min=1), outside[:, None])
