"""Plots of a sweep: curves, heat maps, one case under several settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pseudohealthy.design import tokens
from pseudohealthy.design.figures import blank, plain, research_use, save, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Axis = tuple[str, Sequence[str]]  # a setting and its values as text


def sweep(
    path: Path | str,
    axes_of: Sequence[Axis],
    figures: Mapping[str, np.ndarray],
    title: str = "",
    *,
    lines: bool = False,
) -> Path:
    """Draw figures of a grid of settings: a line over one axis, a heat map over two.

    Of more axes there is one heat map for each value of the others.

    Args:
        path: of the picture.
        axes_of: each setting with its values.
        figures: by name, (3, n1, n2, ...) value, lower and upper end of the interval, nan where
            there is none. With three axes or more only the first figure is drawn, in at most twelve
            panels.
        title: above all.
        lines: over the first axis, one for each value of the others, at most twelve, for every
            figure (Wolleb 2022, Fig. 4); intervals are shaded.
    """
    lined = lines or len(axes_of) == 1
    places = (
        [()] if lined else list(product(*(range(len(values)) for _, values in axes_of[2:])))[:12]
    )
    selected = dict(figures) if lined or len(axes_of) < 3 else dict(list(figures.items())[:1])
    panels = [(name, values, at) for name, values in selected.items() for at in places]
    columns = min(len(panels), 3)
    n_rows = -(-len(panels) // columns)
    figure = blank(3.9 * columns + 0.5, 3.2 * n_rows + 0.4)
    grid = figure.subplots(n_rows, columns, squeeze=False).ravel()
    for axes, (name, values, at) in zip(grid, panels, strict=False):
        fixed = ", ".join(
            f"{key} = {texts[i]}" for (key, texts), i in zip(axes_of[2:], at, strict=False)
        )
        axes.set_title(short(f"{name}, {fixed}" if fixed else name, 60), fontsize=9)
        if lined:
            _lines(axes, axes_of, values)
        else:
            # Axes three and up are fixed by moving them first and indexing.
            flat = np.moveaxis(values[0], (0, 1), (-2, -1))[at]
            _heat(
                axes, axes_of[:2], flat, (float(np.nanmin(values[0])), float(np.nanmax(values[0])))
            )
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    if title:
        figure.suptitle(short(title, 110), fontsize=10)
    return save(figure, path)


def strip(
    path: Path | str,
    columns: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    title: str = "",
) -> Path:
    """Draw one case under several settings (Wolleb 2022, Figs 5 and 6): input, healthy twin and
    map.

    Args:
        path: of the picture.
        columns: (setting, input, twin, map), pictures of any size; input and twin in [-1, 1]; maps
            have one colour scale.
        title: above all.
    """
    top = max(float(np.quantile(np.stack([c[3] for c in columns]), 0.998)), 1e-6)
    figure = blank(1.75 * len(columns) + 1.0, 5.9)
    grid = figure.subplots(3, len(columns), squeeze=False)
    for column, (name, *pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            scale = (
                {"cmap": "gray", "vmin": -1, "vmax": 1}
                if row < 2
                else {"cmap": "inferno", "vmin": 0, "vmax": top}
            )
            image = grid[row][column].imshow(picture, interpolation="nearest", **scale)
            grid[row][column].set(xticks=[], yticks=[])
        grid[0][column].set_title(short(name, 90).replace(", ", "\n"), fontsize=7.5)
    for row, text in enumerate(("input", "healthy twin", "anomaly map")):
        grid[row][0].set_ylabel(text, fontsize=9)
    figure.colorbar(
        image, ax=list(grid.ravel()), fraction=0.03, pad=0.01, shrink=0.32, anchor=(0, 0)
    ).ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(short(title, 90), fontsize=10)
    research_use(figure)
    return save(figure, path)


def _lines(axes: Axes, axes_of: Sequence[Axis], values: np.ndarray) -> None:
    """Draw values (3, n1, n2, ...) over the first axis, a line for each place on the others."""
    (key, texts), *others = axes_of
    try:
        x = np.array([float(text) for text in texts])
    except ValueError:
        x = np.arange(len(texts), dtype=float)
        axes.set_xticks(x, texts, fontsize=8)
    order = np.argsort(x)
    places = list(product(*(range(len(values)) for _, values in others)))[:12]
    for place, colour, marker in zip(
        places, cycle(tokens("methods").values()), cycle("osD^vP"), strict=False
    ):
        value, low, high = (row[(slice(None), *place)][order] for row in values)
        if others:
            axes.fill_between(x[order], low, high, color=colour, alpha=0.1, linewidth=0)
        else:
            axes.vlines(x[order], low, high, color=colour, linewidth=1.2)
        name = ", ".join(short(texts[i], 20) for (_, texts), i in zip(others, place, strict=True))
        axes.plot(x[order], value, color=colour, marker=marker, markersize=5, label=name)
    axes.set_xlabel(key)
    plain(axes, grid=True)
    if others:
        axes.legend(
            fontsize=7.5,
            framealpha=0.8,
            title=short(", ".join(key for key, _ in others), 60),
            title_fontsize=7.5,
        )


def _heat(axes: Axes, pair: Sequence[Axis], values: np.ndarray, ends: tuple[float, float]) -> None:
    (down, rows), (across, columns) = pair
    axes.imshow(
        values, cmap="viridis", vmin=ends[0], vmax=max(ends[1], ends[0] + 1e-9), aspect="auto"
    )
    for (row, column), value in np.ndenumerate(values):
        dark = np.isnan(value) or value < (ends[0] + ends[1]) / 2
        text = "" if np.isnan(value) else f"{value:.3f}"
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set(xlabel=across, ylabel=down)
