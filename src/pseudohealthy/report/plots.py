"""ROC, precision-recall, score, forest and training plots as PNG, several methods in one picture.

Colours are those of Okabe and Ito (distinguishable with every colour vision); controls are grey and
dashed, so methods are told apart from them without colour too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.design import tokens
from pseudohealthy.design.figures import blank, plain, save, short, square
from pseudohealthy.evaluation.records import CONTROL, Record, class_of, merit, summarise
from pseudohealthy.metrics.curves import Curve
from pseudohealthy.metrics.table import shown_in
from pseudohealthy.metrics.thresholds import Threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Styles = dict[str, dict[str, Any]]

LIGHT = tokens("light")
METHOD_COLOURS = tuple(tokens("methods").values())
CONTROL_GREYS = tuple(tokens("controls").values())
CONTROL_DASHES = (
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (5, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 3)),
)


def roc(
    path: Path | str, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None = None
) -> Path:
    """Draw image-level and, beside it where given, pooled voxel-level ROC curves with their
    areas."""

    def draw(axes: Axes, curves: Mapping[str, Curve], styles: Styles) -> None:
        axes.plot([0, 1], [0, 1], color=LIGHT["quiet"], alpha=0.5, linewidth=1, zorder=1)
        for name, style in styles.items():
            if curve := curves.get(name):
                axes.plot(*curve.roc_points(), label=f"{short(name)}: {curve.auroc:.3f}", **style)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        square(axes, "lower right", "area under the curve")

    return _side_by_side(path, draw, image, voxel)


def precision_recall(
    path: Path | str, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None = None
) -> Path:
    """Draw precision-recall steps (no interpolation) and the chance level, which is the
    prevalence."""

    def draw(axes: Axes, curves: Mapping[str, Curve], styles: Styles) -> None:
        chance = next(iter(curves.values())).prevalence
        axes.axhline(
            chance,
            color=LIGHT["quiet"],
            alpha=0.5,
            linewidth=1,
            zorder=1,
            label=f"chance: {chance:.3f}",
        )
        for name, style in styles.items():
            if curve := curves.get(name):
                recall, precision = curve.precision_recall_points()
                recall, precision = np.r_[0, recall], np.r_[precision[:1], precision]
                label = f"{short(name)}: {curve.average_precision:.3f}"
                axes.step(recall, precision, where="pre", label=label, **style)
        axes.set(xlabel="recall", ylabel="precision")
        square(axes, "best", "average precision")

    return _side_by_side(path, draw, image, voxel)


def scores(
    path: Path | str,
    by_method: Mapping[str, tuple[np.ndarray, np.ndarray]],
    thresholds: Mapping[str, Threshold] | None = None,
) -> Path:
    """Draw a histogram per method of its case scores, healthy against anomalous.

    Args:
        path: of the picture.
        by_method: (scores (N,), is anomalous (N,) bool) by name.
        thresholds: drawn with their source.
    """
    groups = {name: pair for name, pair in by_method.items() if len(pair[0])}
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    rows = -(-len(groups) // columns)
    figure = blank(4.6 * columns, 3.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, (values, anomalous)) in zip(grid, groups.items(), strict=False):
        threshold = (thresholds or {}).get(name)
        _histogram(
            axes, np.asarray(values, dtype=np.float64), np.asarray(anomalous, dtype=bool), threshold
        )
        axes.set_title(short(name), fontsize=10)
    for axes in grid[len(groups) :]:
        axes.set_axis_off()
    return save(figure, path)


def forest(path: Path | str, by_data: Mapping[str, Sequence[Record]]) -> Path:
    """Draw values and intervals of all methods, a panel per headline metric, class and data set.

    The line is the best control. Where controls stand in several runs' settings, each kind is drawn
    once, in the setting it does best in.
    """
    panels = []
    for data, records in by_data.items():
        table = summarise(records)
        metric = {heading: cell.metric for (_, heading), cell in table.cells.items()}
        by_class = [heading for heading in table.headings if class_of(metric[heading])[1]]
        pooled = [heading for heading in table.headings if heading not in by_class]
        heads = [heading for heading in pooled if shown_in(metric[heading], "forest")] or pooled[:6]
        for heading in (*heads, *by_class):
            panels.append(
                (data, heading, [c for (_, at), c in table.cells.items() if at == heading])
            )
    if not panels:
        raise ValueError("no figure to draw")
    rows = list(dict.fromkeys(_kind(r.method) for _, _, cells in panels for r in cells))
    rows.sort(key=lambda name: name.startswith(CONTROL))
    styles = _styles(rows)
    columns = min(len(panels), 3)
    lines = -(-len(panels) // columns)
    figure = blank(3.6 * columns + 1.6, (0.3 * len(rows) + 1.1) * lines)
    grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, (data, heading, cells) in zip(grid.ravel(), panels, strict=False):
        best = {}
        for record in sorted(cells, key=merit):
            best[_kind(record.method)] = record
        for name, record in best.items():
            place, colour = rows.index(name), styles[name]["color"]
            if record.ci95:
                axes.plot(record.ci95, (place, place), color=colour, linewidth=1.6)
            axes.plot(
                record.value,
                place,
                "D" if name.startswith(CONTROL) else "o",
                color=colour,
                markersize=5.5,
            )
        controls = [record for name, record in best.items() if name.startswith(CONTROL)]
        if controls:
            axes.axvline(
                max(controls, key=merit).value,
                color=LIGHT["quiet"],
                linewidth=1,
                linestyle=":",
                zorder=1,
            )
        axes.set_title(
            short(heading if len(by_data) == 1 else f"{data}: {heading}", 46), fontsize=9
        )
        axes.set_yticks(range(len(rows)), [short(name) for name in rows], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", color=LIGHT["line"], zorder=0)
        plain(axes)
    for axes in grid[:, 0]:
        axes.set_ylim(len(rows) - 0.5, -0.5)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(
        "95 % intervals over patients; controls in grey, dotted line: the best of them", fontsize=8
    )
    return save(figure, path)


def training(path: Path | str, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Draw validation ROC-AUC over epochs, a line per run, its best epoch marked.

    Args:
        path: of the picture.
        histories: entries of training_history.json by run; those without ``validation_auroc`` are
            left out.
    """
    curves = {
        name: [
            (float(e["epoch"]), float(e["validation_auroc"]))
            for e in history
            if e.get("validation_auroc") is not None
        ]
        for name, history in histories.items()
    }
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        raise ValueError("no run has a validation ROC-AUC")
    figure = blank(6.4, 4.2)
    axes = figure.subplots()
    axes.axhline(0.5, color=LIGHT["quiet"], alpha=0.5, linewidth=1, zorder=1, label="chance")
    for (name, points), colour, marker in zip(
        curves.items(), cycle(METHOD_COLOURS), cycle("osD^vP"), strict=False
    ):
        top = max(points, key=lambda point: point[1])
        label = f"{short(name)}: best {top[1]:.3f} at epoch {top[0]:g}"
        axes.plot(
            *zip(*points, strict=True),
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=1.8,
            label=label,
        )
        axes.plot(
            *top,
            marker="*",
            markersize=13,
            color=colour,
            markeredgecolor="black",
            markeredgewidth=0.6,
        )
    axes.set(xlabel="epoch", ylabel="validation ROC-AUC")
    plain(axes, grid=True)
    axes.legend(fontsize=8, framealpha=0.9)
    return save(figure, path)


def overlaid(
    path: Path | str, groups: Mapping[str, np.ndarray], x: str, y: str, title: str = ""
) -> Path:
    """Draw histograms of several samples (N,) over one range, as shares of each.

    They are outlined, so that they read on each other.
    """
    figure = blank(6.2, 3.6)
    axes = figure.subplots()
    low, high = min(v.min() for v in groups.values()), max(v.max() for v in groups.values())
    largest = max(map(len, groups.values()))
    edges = np.linspace(
        low, high if high > low else low + 1, int(np.clip(2 * np.sqrt(largest), 10, 80)) + 1
    ).tolist()
    for (name, values), colour, dashes in zip(
        groups.items(), cycle(METHOD_COLOURS), cycle(("-", "--", ":")), strict=False
    ):
        share = np.full(len(values), 1 / len(values))
        axes.hist(values, edges, weights=share, color=colour, alpha=0.2)
        axes.hist(
            values,
            edges,
            weights=share,
            histtype="step",
            color=colour,
            linestyle=dashes,
            linewidth=1.6,
            label=name,
        )
    axes.set(xlabel=x, ylabel=f"share of {y}")
    axes.set_title(title, fontsize=9)
    plain(axes)
    axes.legend(fontsize=8, frameon=False)
    return save(figure, path)


def series(
    path: Path | str,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
) -> Path:
    """Draw lines over common x values."""
    figure = blank(5.6, 3.6)
    axes = figure.subplots()
    for (name, values), colour, marker in zip(
        lines.items(), cycle(METHOD_COLOURS), cycle("osD"), strict=False
    ):
        axes.plot(x, values, color=colour, marker=marker, label=name)
    axes.set(xlabel=x_label, ylabel=y_label)
    plain(axes, grid=True)
    axes.legend(fontsize=8, frameon=False)
    return save(figure, path)


def _kind(method: str) -> str:
    """Return the name of a control without the run in whose setting it stands."""
    return method.split(" (")[0] if method.startswith(CONTROL) else method


def _histogram(
    axes: Axes, values: np.ndarray, anomalous: np.ndarray, threshold: Threshold | None
) -> None:
    low, high = float(values.min()), float(values.max())
    if threshold is not None:
        low, high = min(low, threshold.value), max(high, threshold.value)
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, min(40, max(10, int(np.sqrt(len(values)) * 2))) + 1).tolist()
    # The second histogram is hatched so that the overlap reads without colour.
    groups = (
        ("healthy", ~anomalous, LIGHT["healthy"], ""),
        ("anomalous", anomalous, LIGHT["anomalous"], "////"),
    )
    for name, group, colour, hatch in groups:
        if group.any():
            label = f"{name} (n = {np.count_nonzero(group)})"
            axes.hist(values[group], edges, label=label, color=colour, alpha=0.35)
            axes.hist(
                values[group], edges, histtype="step", color=colour, linewidth=1.4, hatch=hatch
            )
    if threshold is not None:
        axes.axvline(
            threshold.value,
            ymax=0.72,
            color="black",
            linewidth=1.2,
            linestyle="--",
            label=f"threshold {threshold}",
        )
    axes.set(xlabel="anomaly score", ylabel="cases")
    axes.locator_params(axis="y", integer=True)
    top = axes.get_ylim()[1]
    # Room for the legend above the bars.
    axes.set_ylim(0, top * (1.28 if threshold is None else 1.42))
    axes.legend(fontsize=7.5, loc="upper right", frameon=False)
    plain(axes)


def _side_by_side(
    path: Path | str, draw: Any, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None
) -> Path:
    panels = [
        (title, curves)
        for title, curves in (("cases", image), ("voxels, pooled", voxel or {}))
        if curves
    ]
    if not panels:
        raise ValueError("no curve to draw")
    styles = _styles(dict.fromkeys([*image, *(voxel or {})]))  # a method looks the same in both
    figure = blank(5.2 * len(panels), 5.2)
    for axes, (title, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False).ravel(), panels, strict=True
    ):
        draw(axes, curves, styles)
        axes.set_title(title, fontsize=11)
    return save(figure, path)


def _styles(names: Iterable[str]) -> Styles:
    """Return the style of each: methods first, in colour and solid, then controls, grey and
    dashed."""
    colours, greys, dashes = cycle(METHOD_COLOURS), cycle(CONTROL_GREYS), cycle(CONTROL_DASHES)
    return {
        name: {"color": next(greys), "linestyle": next(dashes), "linewidth": 1.3, "zorder": 2}
        if name.startswith(CONTROL)
        else {"color": next(colours), "linewidth": 2, "zorder": 3}
        for name in sorted(names, key=lambda name: name.startswith(CONTROL))
    }
