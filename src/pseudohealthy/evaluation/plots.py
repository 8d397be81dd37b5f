"""ROC, precision-recall and score plots as PNG, several methods in one picture.

Colours are those of Okabe and Ito (distinguishable with every colour vision); controls are grey and dashed, so methods
are told apart from them without colour too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.evaluation.curves import Curve
from pseudohealthy.evaluation.records import CONTROL
from pseudohealthy.evaluation.thresholds import Threshold
from pseudohealthy.io.atomic import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Styles = dict[str, dict[str, Any]]

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"
HEALTHY_COLOUR, ANOMALOUS_COLOUR = BLUE, VERMILION
METHOD_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
CONTROL_DASHES = ((0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)))
CONTROL_GREYS = ("#555555", "#888888", "#333333", "#777777", "#999999")


def roc(path: Path | str, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None = None) -> Path:
    """Image-level and, beside it where given, pooled voxel-level ROC curves with their areas."""

    def draw(axes: Axes, curves: Mapping[str, Curve], styles: Styles) -> None:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, zorder=1)
        for name, style in styles.items():
            if curve := curves.get(name):
                axes.plot(*curve.roc_points(), label=f"{_short(name)}: {curve.auroc:.3f}", **style)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        _square(axes, "lower right", "area under the curve")

    return _side_by_side(path, draw, image, voxel)


def precision_recall(path: Path | str, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None = None) -> Path:
    """Precision-recall steps (no interpolation); the chance level, which is the prevalence, is drawn."""

    def draw(axes: Axes, curves: Mapping[str, Curve], styles: Styles) -> None:
        chance = next(iter(curves.values())).prevalence
        axes.axhline(chance, color="#bbbbbb", linewidth=1, zorder=1, label=f"chance: {chance:.3f}")
        for name, style in styles.items():
            if curve := curves.get(name):
                recall, precision = curve.precision_recall_points()
                recall, precision = np.r_[0, recall], np.r_[precision[:1], precision]
                label = f"{_short(name)}: {curve.average_precision:.3f}"
                axes.step(recall, precision, where="pre", label=label, **style)
        axes.set(xlabel="recall", ylabel="precision")
        _square(axes, "best", "average precision")

    return _side_by_side(path, draw, image, voxel)


def scores(
    path: Path | str,
    by_method: Mapping[str, tuple[np.ndarray, np.ndarray]],
    thresholds: Mapping[str, Threshold] | None = None,
) -> Path:
    """One histogram per method of its case scores (N,), healthy against anomalous, with the threshold and its source.

    by_method: (scores (N,), is anomalous (N,) bool) by name.
    """
    shown = {name: pair for name, pair in by_method.items() if len(pair[0])}
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = _figure(4.6 * columns, 3.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, (values, anomalous)) in zip(grid, shown.items(), strict=False):
        threshold = (thresholds or {}).get(name)
        _histogram(axes, np.asarray(values, dtype=np.float64), np.asarray(anomalous, dtype=bool), threshold)
        axes.set_title(_short(name), fontsize=10)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    return _save(figure, path)


def _histogram(axes: Axes, values: np.ndarray, anomalous: np.ndarray, threshold: Threshold | None) -> None:
    low, high = float(values.min()), float(values.max())
    if threshold is not None:
        low, high = min(low, threshold.value), max(high, threshold.value)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, min(40, max(10, int(np.sqrt(len(values)) * 2))) + 1).tolist()
    # The second histogram is hatched so that the overlap reads without colour.
    groups = (("healthy", ~anomalous, HEALTHY_COLOUR, ""), ("anomalous", anomalous, ANOMALOUS_COLOUR, "////"))
    for name, chosen, colour, hatch in groups:
        if chosen.any():
            label = f"{name} (n = {np.count_nonzero(chosen)})"
            axes.hist(values[chosen], edges, label=label, color=colour, alpha=0.35)
            axes.hist(values[chosen], edges, histtype="step", color=colour, linewidth=1.4, hatch=hatch)
    if threshold is not None:
        axes.axvline(
            threshold.value, ymax=0.72, color="black", linewidth=1.2, linestyle="--", label=f"threshold {threshold}"
        )
    axes.set(xlabel="anomaly score", ylabel="cases")
    axes.locator_params(axis="y", integer=True)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top * (1.28 if threshold is None else 1.42))  # room for the legend above the bars
    axes.legend(fontsize=7.5, loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _side_by_side(path: Path | str, draw: Any, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None) -> Path:
    panels = [(title, curves) for title, curves in (("cases", image), ("voxels, pooled", voxel or {})) if curves]
    if not panels:
        raise ValueError("no curve to draw")
    styles = _styles(dict.fromkeys([*image, *(voxel or {})]))  # a method looks the same in both
    figure = _figure(5.2 * len(panels), 5.2)
    for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False).ravel(), panels, strict=True):
        draw(axes, curves, styles)
        axes.set_title(title, fontsize=11)
    return _save(figure, path)


def _styles(names: Iterable[str]) -> Styles:
    """Methods first, in colour and solid; then the controls, grey and dashed."""
    colours, greys, dashes = cycle(METHOD_COLOURS), cycle(CONTROL_GREYS), cycle(CONTROL_DASHES)
    return {
        name: {"color": next(greys), "linestyle": next(dashes), "linewidth": 1.3, "zorder": 2}
        if name.startswith(CONTROL)
        else {"color": next(colours), "linewidth": 2, "zorder": 3}
        for name in sorted(names, key=lambda name: name.startswith(CONTROL))
    }


def _short(name: str, most: int = 34) -> str:
    """Names come from outside: cut, and without the mathtext that a dollar sign would start."""
    name = name if len(name) <= most else name[: most - 1] + "…"
    return name.replace("$", r"\$")


def _square(axes: Axes, legend: Any, title: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    axes.grid(color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc=legend, fontsize=8, title=title, title_fontsize=8, framealpha=0.9)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no global state, no display, safe in threads

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path | str) -> Path:
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=130, format="png", bbox_inches="tight", pad_inches=0.1)
    return Path(path)
