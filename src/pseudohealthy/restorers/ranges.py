"""Ranges of settings that several methods share, and checks of levels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.marks import Aside, File, Length, Range

HIGHEST = 10_000  # noise levels; published are 1000 and 4000

Levels = Annotated[int, Range(2, HIGHEST)]
MaxLevel = Annotated[int, Range(0, HIGHEST)]  # 0: all
Level = Annotated[int, Range(1, HIGHEST)]
StartLevels = Annotated[tuple[Annotated[int, Range(1, HIGHEST)], ...], Length(1, 32)]
Harmonised = Annotated[
    StartLevels, Aside("those not below the start are left out, at least one must remain")
]
Beta = Annotated[float, Range(0, 1, open="both")]
Betas = tuple[Beta, Beta]
Calls = Annotated[int, Range(0, HIGHEST)]  # of a walk; 0: every level
Draws = Annotated[int, Range(1, 1000)]
Eta = Annotated[float, Range(0, 1)]
Octaves = Annotated[int, Range(1, 8)]
Frequency = Annotated[float, Range(1, 4096)]  # longest wave, model pixels
Sigma = Annotated[float, Range(0, 64)]  # model pixels
Side = Annotated[int, Range(1, 127, step=2)]  # of a square that is centred on a pixel
Square = Annotated[int, Range(1, 2048)]  # model pixels
Weight = Annotated[float, Range(0, 10_000)]  # of a part of a loss
Weights = Annotated[str, File("the path of a run or of a diffusers folder, or nothing")]


def levels_fit(key: str, levels: Iterable[int], highest: int, setting: str) -> None:
    """Check that no noise level lies above the highest.

    Args:
        key: Setting of the levels, within [restorer].
        highest: The highest that is allowed.
        setting: The one that states it, within [restorer].

    Raises:
        Fault: RECIPE (exit 2).
    """
    wrong = [level for level in levels if level > highest]
    if wrong:
        message = f"restorer.{key} = {wrong[0]} lies above restorer.{setting} = {highest}"
        raise Fault("RECIPE", message, f"give levels from 1 to {highest}", exit=USAGE)


def patch_fits(table: str, side: int, size: int) -> None:
    """Check that the squares of a table of settings are no larger than the image.

    Raises:
        Fault: RECIPE (exit 2).
    """
    if side > size:
        message = f"restorer.{table}.side = {side} is larger than canvas.size = {size}"
        raise Fault("RECIPE", message, f"give a side of 1 to {size} pixels", exit=USAGE)
