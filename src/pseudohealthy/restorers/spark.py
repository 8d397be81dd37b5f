"""Masked pretraining of the encoder that `conditioned` starts from.

SparK (Tian et al., ICLR 2023; cDDPM, figure 2). It is also a restorer: every cell of the image is
painted from the others.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.marks import Range
from pseudohealthy.networks.ranges import Channels, Size, norms_fit
from pseudohealthy.networks.resnet import ResNet
from pseudohealthy.networks.spark import Spark, cell_errors
from pseudohealthy.restorers.base import Batch, Restoration, Restorer, register
from pseudohealthy.settings import check


@register("spark")
class MaskedPretraining(Restorer):
    """Hide cells of the image and paint them.

    The loss is the mean squared error of hidden cells in [0, 1], as published without scaling
    cells. To restore, maskings that together hide every cell are painted, and each cell is the mean
    of its paintings.

    Args:
        encoder: The ResNet; its downsampling is the side of a cell, 32 pixels with four stages.
        decoder_width: Channels of the coarsest decoder level.
        hidden: Share of the cells that is hidden.
    """

    nested = {"encoder": ResNet}

    def __init__(
        self,
        *,
        size: Size,
        channels: Channels,
        encoder: dict = {},  # noqa: B006 (read only)
        decoder_width: Annotated[int, Range(1, 4096)] = 512,
        hidden: Annotated[float, Range(0, 1, open="both")] = 0.65,
    ):
        super().__init__(size=size, channels=channels)
        settings = check(ResNet, encoder, "restorer.encoder")
        self.model = Spark(channels=channels, encoder=settings, width=decoder_width)
        cell = self.model.factor
        if size % cell or size == cell:
            raise Fault(
                "RECIPE",
                f"canvas.size = {size} for restorer.encoder's cells of {cell} pixels",
                f"give a multiple of {cell}, at least {2 * cell}, or fewer layers",
                exit=USAGE,
            )
        self.side = size // cell
        self.cells = self.side**2
        # Of 3 x 3 cells: 3.
        self.seen = min(max(1, round(self.cells * (1 - hidden))), self.cells - 1)

    def fits(self, batch: int) -> None:
        norms_fit(batch * self.seen, "restorer.encoder")

    def parts(self) -> tuple[str, ...]:
        return ("model",)

    def order(self, draw: Draw, images: Tensor) -> Tensor:
        """A random order of the cells of each image, (B, cells)."""
        ranks = draw.of_kind("gaussian").noise(torch.empty(len(images), self.cells)).argsort(1)
        return ranks.to(images.device)

    def visible(self, order: Tensor, first: int) -> Tensor:
        """The cells at first..first + seen of the (cyclic) order, (B, 1, side, side) bool."""
        indices = order.roll(-first, 1)[:, : self.seen]
        cells = torch.zeros_like(order, dtype=torch.bool).scatter(1, indices, True)
        return cells.unflatten(1, (1, self.side, self.side))

    def loss(self, batch: Batch, part: str) -> Tensor:
        x = (batch.images + 1) / 2
        visible = self.visible(self.order(batch.draw, x), 0)
        errors = cell_errors(self.model(x, visible), x, self.model.factor)
        return (errors * ~visible).flatten(1).sum(1) / (self.cells - self.seen)

    def restore(self, images: Tensor, draw: Draw) -> Restoration:
        x, order = (images + 1) / 2, self.order(draw, images)
        total, count = torch.zeros_like(x), torch.zeros_like(x)
        for first in self.maskings():
            visible = self.visible(order, first)
            hidden = ~visible.repeat_interleave(self.model.factor, 2).repeat_interleave(
                self.model.factor, 3
            )
            total, count = total + self.model(x, visible).float() * hidden, count + hidden
        return Restoration(healthy=(2 * total / count - 1).clamp(-1, 1))

    def maskings(self) -> range:
        """Starts of the visible cells in the order, such that every cell is hidden at least
        once."""
        return range(0, self.cells, min(self.seen, self.cells - self.seen))

    def network_calls(self) -> int:
        return len(self.maskings())
