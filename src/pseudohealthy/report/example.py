"""One image by all methods: a column each, rows of channels, the map below (Wolleb 2022, Figs 2,
3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pseudohealthy.design import tokens
from pseudohealthy.design.figures import blank, research_use, save, short
from pseudohealthy.evaluation.example import Example, Pictures


def draw(example: Example, path: Path, title: str = "") -> Path:
    """Draw the input with its reference, then every method's healthy twin and map.

    Inputs and twins share the model's range of grey; maps run from 0 to twice the run's threshold,
    or to their own 99.8 % where it has none. Each method is shown on its own canvas, the input on
    that of the method with most channels.
    """
    # Of equals the first.
    widest = max(example.pictures.values(), key=lambda pictures: len(pictures.image))
    columns, rows = 1 + len(example.pictures), 1 + len(widest.image)
    channels = example.channels
    if len(channels) != len(widest.image):  # the first run has fewer
        channels = [f"channel {n + 1}" for n in range(len(widest.image))]
    figure = blank(1.75 * columns + 0.4, 1.75 * rows + 0.9)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    grey = {"cmap": "gray", "vmin": -1, "vmax": 1, "interpolation": "nearest"}
    images = {"input": widest.image} | {
        name: pictures.healthy for name, pictures in example.pictures.items()
    }
    for column, (name, planes) in enumerate(images.items()):
        grid[0][column].set_title(short(name, 24), fontsize=9)
        for row, plane in enumerate(planes):
            grid[row][column].imshow(plane, **grey)
    if widest.reference is None:
        grid[-1][0].text(
            0.5,
            0.5,
            "no reference",
            ha="center",
            va="center",
            fontsize=8,
            transform=grid[-1][0].transAxes,
        )
    else:
        grid[-1][0].imshow(widest.reference, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    for axes, pictures in zip(grid[-1][1:], example.pictures.values(), strict=True):
        axes.imshow(
            pictures.map, cmap="inferno", vmin=0, vmax=top(pictures), interpolation="nearest"
        )
        if pictures.reference is not None and pictures.reference.any():
            axes.contour(
                pictures.reference, [0.5], colors=tokens("dark")["healthy"], linewidths=0.9
            )
    for axes, name in zip(grid[:, 0], [*channels, "reference | map"], strict=True):
        axes.set_ylabel(short(name, 24), fontsize=9)
    position = f", plane {example.plane + 1} of {example.planes}" if example.planes > 1 else ""
    figure.suptitle(short(f"{title}{example.case_id}{position}: {example.why}", 110), fontsize=10)
    research_use(figure, "each run on its own canvas, maps to twice its threshold")
    return save(figure, path)


def top(pictures: Pictures) -> float:
    """Return the map value of the brightest colour."""
    doubled = 2 * pictures.threshold
    return doubled if doubled > 0 else max(1e-6, float(np.quantile(pictures.map, 0.998)))
