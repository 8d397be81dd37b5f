"""Pictures of the analyses that follow cDDPM's figures 3 to 5 (Behrendt et al. 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.design import tokens
from pseudohealthy.design.figures import blank, research_use, save, short
from pseudohealthy.evaluation.conditioning import Swapped
from pseudohealthy.evaluation.examples import Example
from pseudohealthy.evaluation.intensity import FIGURE_4, KINDS, Histograms, kl

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOGETHER = 10  # of the measured bins in one drawn bin


def intensities(path: Path | str, by_data: Mapping[str, Histograms]) -> Path:
    """Draw figure 4: histograms of images and of their twins in healthy tissue, with divergence.

    A row per data set, kind of plane and run, a column per contrast.
    """
    rows = [
        (data, kind, run)
        for data, counts in by_data.items()
        for kind in KINDS
        for run in dict.fromkeys(name for of, name, _ in counts if of == kind)
    ]
    figure = blank(3.3 * len(FIGURE_4) + 1.2, 1.75 * len(rows) + 0.8)
    grid = figure.subplots(len(rows), len(FIGURE_4), squeeze=False, sharex=True)
    for line, (data, kind, run) in zip(grid, rows, strict=True):
        for axes, factor in zip(line, FIGURE_4, strict=True):
            counts = by_data[data][kind, run, factor]
            histograms(axes, counts.images.sum(0), counts.twins.sum(0))
        for axes in line:
            axes.set_ylim(0, max(panel.get_ylim()[1] for panel in line))
        line[0].set_ylabel(f"{short(run, 22)}\n{short(data, 22)}, planes\n{kind}", fontsize=8)
    for axes, factor in zip(grid[0], FIGURE_4, strict=True):
        axes.set_title(
            "contrast as it is" if factor == 1 else f"contrast $x^{{{factor:g}}}$", fontsize=10
        )
    for axes in grid[-1]:
        axes.set_xlabel("intensity, -1 to 1", fontsize=8)
    handles, names = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return save(figure, path)


def histograms(axes: Axes, images: np.ndarray, twins: np.ndarray) -> None:
    """Draw counts of intensities of images and of their twins, as shares, with their divergence."""
    edges = np.linspace(-1, 1, len(images) // TOGETHER + 1)
    image_share, twin_share = (
        c.reshape(-1, TOGETHER).sum(1) / max(c.sum(), 1) for c in (images, twins)
    )
    axes.stairs(
        image_share, edges, fill=True, color=tokens("methods")["sky"], alpha=0.5, label="image"
    )
    axes.stairs(
        twin_share, edges, color=tokens("methods")["vermilion"], linewidth=1.4, label="healthy twin"
    )
    # Room for the text.
    axes.set_ylim(0, 1.3 * max(float(image_share.max()), float(twin_share.max()), 1e-6))
    axes.text(
        0.03, 0.97, f"KL {kl(images, twins):.3f}", transform=axes.transAxes, va="top", fontsize=8
    )
    axes.set(yticks=[])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def conditioning(path: Path | str, swapped: Sequence[Swapped]) -> Path:
    """Draw figure 3: rows of noise level, columns of conditioning image; above them those
    images."""
    first_row = swapped[0]
    figure = blank(1.5 * (len(first_row.names) + 1) + 1.6, 1.65 * (len(swapped) + 1) + 0.7)
    grid = figure.subplots(len(swapped) + 1, len(first_row.names) + 1, squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[], frame_on=False)
    grid[0][0].set_ylabel("conditioned on", fontsize=9)
    show(grid[0][0], None)
    for axes, name, condition in zip(
        grid[0][1:], first_row.names, first_row.conditions, strict=True
    ):
        show(axes, condition)
        axes.set_title(name, fontsize=9)
    for line, result in zip(grid[1:], swapped, strict=True):
        answer = (
            f"follows {result.row['follows']:.2f}"
            if result.noised is not None
            else "not conditioned:\ntwins of these images"
        )
        line[0].set_ylabel(
            f"{short(result.run, 22)}\n{100 * result.noise:g} % noise\n{answer}", fontsize=8
        )
        show(line[0], result.noised)
        for axes, twin in zip(line[1:], result.twins, strict=True):
            show(axes, twin)
    grid[1][0].set_title("what is noised", fontsize=9)
    research_use(figure)
    return save(figure, path)


def examples(path: Path | str, cases: Sequence[Sequence[Example]]) -> Path:
    """Draw figure 5: a block of four columns per case.

    Above input and reference, then a row per run of twin, map, mask at the best Dice (an oracle)
    and histogram of healthy tissue. Maps have a scale per run, up to its 99.8 % quantile.
    """
    runs = len(cases[0])
    figure = blank(5.9 * len(cases) + 0.6, 1.6 * (runs + 1) + 0.7)
    grid = figure.subplots(runs + 1, 4 * len(cases), squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[], frame_on=False)
    tops = [
        max(float(np.quantile(np.stack([c[r].map.numpy() for c in cases]), 0.998)), 1e-6)
        for r in range(runs)
    ]
    for column, case in enumerate(cases):
        start = 4 * column
        show(grid[0][start], case[0].image)
        grid[0][start + 1].imshow(case[0].reference, "gray")
        plane = f"{short(case[0].row['case_id'], 26)}, plane {case[0].row['plane']}"
        grid[0][start].set_title("input", fontsize=8)
        grid[0][start + 1].set_title("reference", fontsize=8)
        grid[0][start + 2].text(0, 0.5, plane, fontsize=8, in_layout=False)
        for row, (result, top) in enumerate(zip(case, tops, strict=True), 1):
            line = grid[row][start : start + 4]
            show(line[0], result.twin)
            line[1].imshow(result.map, "inferno", vmin=0, vmax=top)
            line[2].imshow(result.mask, "gray", vmin=0, vmax=1)
            line[3].set(frame_on=True)
            histograms(line[3], result.images, result.twins)
            line[2].set_title(f"oracle Dice {result.row['dice_oracle']:.2f}", fontsize=8)
            if row == 1:
                for axes, text in zip(line, ("healthy twin", "anomaly map"), strict=False):
                    axes.set_title(text, fontsize=8)
                line[3].set_title("image (blue), twin (red),\nhealthy tissue", fontsize=8)
            if not column:
                line[0].set_ylabel(short(result.row["run"], 20), fontsize=9)
    research_use(figure, "Masks: the threshold with the best Dice of that case, an oracle.")
    return save(figure, path)


def show(axes: Axes, picture: Any) -> None:
    """Draw a picture (S, S) in [-1, 1] in grey; nothing for None."""
    if picture is not None:
        axes.imshow(picture, "gray", vmin=-1, vmax=1, interpolation="nearest")
