"""Ranges of settings that several networks share."""

from __future__ import annotations

from typing import Annotated

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.marks import Choice, Length, Range

Size = Annotated[int, Range(4, 2048)]  # side of the square, model pixels
Channels = Annotated[int, Range(1, 64)]  # of an image
# even: half of a time embedding are sines, half cosines.
Width = Annotated[int, Range(2, 1024, step=2)]
Width8 = Annotated[int, Range(8, 1024, step=8)]  # group norm of 8 groups
Multipliers = Annotated[tuple[Annotated[int, Range(1, 32)], ...], Length(1, 10)]
Blocks = Annotated[int, Range(1, 32)]
Factors = Annotated[
    tuple[Annotated[int, Choice(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)], ...], Length(0, 10)
]
Heads = Annotated[int, Range(1, 64)]
HeadChannels = Annotated[int, Range(1, 1024)]
Groups = Annotated[int, Range(1, 1024)]
Eps = Annotated[float, Range(1e-12, 0.1)]
Share = Annotated[float, Range(0, 1, open="high")]  # dropout and stochastic depth
Stem = Annotated[int, Range(1, 32)]


def groups_fit(groups: int, channels: int) -> None:
    """Check that `groups` divide the channels, or are a power of two, which is halved until they
    do.

    Raises:
        ValueError: where they are neither.
    """
    if channels % groups and groups & (groups - 1):
        raise ValueError(
            f"block.groups = {groups} of {channels} channels: give a divisor, or a power of two"
        )


def side_fits(network, side: int, where: str) -> None:
    """Check that a network's `factor` divides the side of an image.

    Raises:
        Fault: RECIPE (exit 2), naming `where`.
    """
    if side % network.factor:
        message = (
            f"{where} needs sides that {network.factor} divides (stem and levels), and gets {side}"
        )
        raise Fault(
            "RECIPE",
            message,
            "give another canvas.size, a smaller stem or fewer multipliers",
            exit=USAGE,
        )


def norms_fit(values: int, where: str) -> None:
    """Check that batch norm gets at least two values per channel, since one has no spread.

    Raises:
        Fault: RECIPE (exit 2), naming `where`.
    """
    if values < 2:
        message = (
            f"training.batch = 1 leaves {where} one value per channel, of which batch norm can"
            " learn nothing"
        )
        raise Fault(
            "RECIPE", message, "give a batch of at least 2, or a larger canvas.size", exit=USAGE
        )
