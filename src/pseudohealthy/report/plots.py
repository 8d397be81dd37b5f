"""ROC, precision-recall, score, forest, training and sweep plots as PNG, several methods in one
picture.

Colours are those of Okabe and Ito (distinguishable with every colour vision); controls are grey and
dashed, so methods are told apart from them without colour too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.evaluation.records import CONTROL, Record, class_of, merit, summarise
from pseudohealthy.io.atomic import atomic
from pseudohealthy.metrics.curves import Curve
from pseudohealthy.metrics.table import shown_in
from pseudohealthy.metrics.thresholds import Threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Styles = dict[str, dict[str, Any]]

BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
)
HEALTHY_COLOUR, ANOMALOUS_COLOUR = BLUE, VERMILION
METHOD_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
CONTROL_DASHES = (
    (0, (5, 2)),
    (0, (1, 1.5)),
    (0, (5, 2, 1, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (8, 3)),
)
CONTROL_GREYS = ("#555555", "#888888", "#333333", "#777777", "#999999")


def roc(
    path: Path | str, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None = None
) -> Path:
    """Image-level and, beside it where given, pooled voxel-level ROC curves with their areas."""

    def draw(axes: Axes, curves: Mapping[str, Curve], styles: Styles) -> None:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1, zorder=1)
        for name, style in styles.items():
            if curve := curves.get(name):
                axes.plot(*curve.roc_points(), label=f"{_short(name)}: {curve.auroc:.3f}", **style)
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        _square(axes, "lower right", "area under the curve")

    return _side_by_side(path, draw, image, voxel)


def precision_recall(
    path: Path | str, image: Mapping[str, Curve], voxel: Mapping[str, Curve] | None = None
) -> Path:
    """Precision-recall steps (no interpolation); the chance level, which is the prevalence, is
    drawn."""

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
    """One histogram per method of its case scores (N,), healthy against anomalous, with the
    threshold and its source.

    by_method: (scores (N,), is anomalous (N,) bool) by name.
    """
    shown = {name: pair for name, pair in by_method.items() if len(pair[0])}
    columns = 2 if len(shown) == 4 else min(len(shown), 3)
    rows = -(-len(shown) // columns)
    figure = _figure(4.6 * columns, 3.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (name, (values, anomalous)) in zip(grid, shown.items(), strict=False):
        threshold = (thresholds or {}).get(name)
        _histogram(
            axes, np.asarray(values, dtype=np.float64), np.asarray(anomalous, dtype=bool), threshold
        )
        axes.set_title(_short(name), fontsize=10)
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    return _save(figure, path)


def forest(path: Path | str, by_data: Mapping[str, Sequence[Record]]) -> Path:
    """Values and intervals of all methods, a panel per headline metric, class of boxes and data
    set; the line is the best control.

    Where controls stand in several runs' settings, each kind is drawn once, in the setting it does
    best in.
    """
    panels = []
    for data, records in by_data.items():
        table = summarise(records)
        metric = {heading: cell.metric for (_, heading), cell in table.cells.items()}
        by_class = [heading for heading in table.headings if class_of(metric[heading])[1]]
        pooled = [heading for heading in table.headings if heading not in by_class]
        shown = [heading for heading in pooled if shown_in(metric[heading], "forest")] or pooled[:6]
        for heading in (*shown, *by_class):
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
    figure = _figure(3.6 * columns + 1.6, (0.3 * len(rows) + 1.1) * lines)
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
                color="#999999",
                linewidth=1,
                linestyle=":",
                zorder=1,
            )
        axes.set_title(
            _short(heading if len(by_data) == 1 else f"{data}: {heading}", 46), fontsize=9
        )
        axes.set_yticks(range(len(rows)), [_short(name) for name in rows], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(axis="x", color="#eeeeee", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylim(len(rows) - 0.5, -0.5)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel(
        "95 % intervals over patients; controls in grey, dotted line: the best of them", fontsize=8
    )
    return _save(figure, path)


def training(path: Path | str, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """Validation ROC-AUC over epochs, a line per run, its best epoch marked: from scratch against
    pretrained.

    histories: entries of training_history.json by run; those without ``validation_auroc`` are left
    out.
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
    figure = _figure(6.4, 4.2)
    axes = figure.subplots()
    axes.axhline(0.5, color="#bbbbbb", linewidth=1, zorder=1, label="chance")
    for (name, points), colour, marker in zip(
        curves.items(), cycle(METHOD_COLOURS), cycle("osD^vP"), strict=False
    ):
        top = max(points, key=lambda point: point[1])
        label = f"{_short(name)}: best {top[1]:.3f} at epoch {top[0]:g}"
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
    axes.grid(color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.9)
    return _save(figure, path)


Axis = tuple[str, Sequence[str]]  # a setting and its values as text


def sweep(
    path: Path | str,
    axes_of: Sequence[Axis],
    figures: Mapping[str, np.ndarray],
    title: str = "",
    *,
    lines: bool = False,
) -> Path:
    """Figures of a grid of settings: a line over one axis, a heat map over two, one heat map per
    value of the others.

    figures: by name, (3, n1, n2, ...) value, lower and upper end of the interval, nan where there
    is none. With three axes or more only the first figure is drawn, in at most twelve panels.
    lines: over the first axis, one for each value of the others, at most twelve, for every figure
    (Wolleb 2022, Fig. 4); intervals are shaded.
    """
    lined = lines or len(axes_of) == 1
    rest = [()] if lined else list(product(*(range(len(values)) for _, values in axes_of[2:])))[:12]
    shown = dict(figures) if lined or len(axes_of) < 3 else dict(list(figures.items())[:1])
    panels = [(name, values, at) for name, values in shown.items() for at in rest]
    columns = min(len(panels), 3)
    deep = -(-len(panels) // columns)
    figure = _figure(3.9 * columns + 0.5, 3.2 * deep + 0.4)
    grid = figure.subplots(deep, columns, squeeze=False).ravel()
    for axes, (name, values, at) in zip(grid, panels, strict=False):
        fixed = ", ".join(
            f"{key} = {texts[i]}" for (key, texts), i in zip(axes_of[2:], at, strict=False)
        )
        axes.set_title(_short(f"{name}, {fixed}" if fixed else name, 60), fontsize=9)
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
        figure.suptitle(_short(title, 110), fontsize=10)
    return _save(figure, path)


def strip(
    path: Path | str,
    columns: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    title: str = "",
) -> Path:
    """One case under several settings (Wolleb 2022, Figs 5 and 6): rows input, healthy twin and
    map, one colour scale.

    columns: (setting, input, twin, map), pictures of any size; input and twin in [-1, 1].
    """
    top = max(float(np.quantile(np.stack([c[3] for c in columns]), 0.998)), 1e-6)
    figure = _figure(1.75 * len(columns) + 1.0, 5.9)
    grid = figure.subplots(3, len(columns), squeeze=False)
    for column, (name, *pictures) in enumerate(columns):
        for row, picture in enumerate(pictures):
            scale = (
                {"cmap": "gray", "vmin": -1, "vmax": 1}
                if row < 2
                else {"cmap": "inferno", "vmin": 0, "vmax": top}
            )
            shown = grid[row][column].imshow(picture, interpolation="nearest", **scale)
            grid[row][column].set(xticks=[], yticks=[])
        grid[0][column].set_title(_short(name.replace(", ", "\n"), 90), fontsize=7.5)
    for row, text in enumerate(("input", "healthy twin", "anomaly map")):
        grid[row][0].set_ylabel(text, fontsize=9)
    figure.colorbar(
        shown, ax=list(grid.ravel()), fraction=0.03, pad=0.01, shrink=0.32, anchor=(0, 0)
    ).ax.tick_params(labelsize=7)
    if title:
        figure.suptitle(_short(title, 90), fontsize=10)
    figure.supxlabel("Research use only - not for diagnosis", fontsize=8, color="#666666")
    return _save(figure, path)


def overlaid(
    path: Path | str, groups: Mapping[str, np.ndarray], x: str, y: str, title: str = ""
) -> Path:
    """Histograms of several samples (N,) over one range, as shares of each, outlined so that they
    read on each other."""
    figure = _figure(6.2, 3.6)
    axes = figure.subplots()
    low, high = min(v.min() for v in groups.values()), max(v.max() for v in groups.values())
    most = max(map(len, groups.values()))
    edges = np.linspace(
        low, high if high > low else low + 1, int(np.clip(2 * np.sqrt(most), 10, 80)) + 1
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def series(
    path: Path | str, x: Sequence[float], lines: Mapping[str, Sequence[float]], across: str, up: str
) -> Path:
    """Lines over common x values."""
    figure = _figure(5.6, 3.6)
    axes = figure.subplots()
    for (name, values), colour, marker in zip(
        lines.items(), cycle(METHOD_COLOURS), cycle("osD"), strict=False
    ):
        axes.plot(x, values, color=colour, marker=marker, label=name)
    axes.set(xlabel=across, ylabel=up)
    axes.grid(color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    return _save(figure, path)


def _lines(axes: Axes, axes_of: Sequence[Axis], values: np.ndarray) -> None:
    """Values (3, n1, n2, ...) over the first axis, a line for each place on the others."""
    (key, texts), *others = axes_of
    try:
        x = np.array([float(text) for text in texts])
    except ValueError:
        x = np.arange(len(texts), dtype=float)
        axes.set_xticks(x, texts, fontsize=8)
    order = np.argsort(x)
    places = list(product(*(range(len(values)) for _, values in others)))[:12]
    for place, colour, marker in zip(places, cycle(METHOD_COLOURS), cycle("osD^vP"), strict=False):
        value, low, high = (row[(slice(None), *place)][order] for row in values)
        if others:
            axes.fill_between(x[order], low, high, color=colour, alpha=0.1, linewidth=0)
        else:
            axes.vlines(x[order], low, high, color=colour, linewidth=1.2)
        name = ", ".join(_short(texts[i], 20) for (_, texts), i in zip(others, place, strict=True))
        axes.plot(x[order], value, color=colour, marker=marker, markersize=5, label=name)
    axes.set_xlabel(key)
    axes.grid(color="#eeeeee", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if others:
        axes.legend(
            fontsize=7.5,
            framealpha=0.8,
            title=_short(", ".join(key for key, _ in others), 60),
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


def _kind(method: str) -> str:
    """A control without the run in whose setting it stands."""
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
        ("healthy", ~anomalous, HEALTHY_COLOUR, ""),
        ("anomalous", anomalous, ANOMALOUS_COLOUR, "////"),
    )
    for name, chosen, colour, hatch in groups:
        if chosen.any():
            label = f"{name} (n = {np.count_nonzero(chosen)})"
            axes.hist(values[chosen], edges, label=label, color=colour, alpha=0.35)
            axes.hist(
                values[chosen], edges, histtype="step", color=colour, linewidth=1.4, hatch=hatch
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
    axes.spines[["top", "right"]].set_visible(False)


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
    figure = _figure(5.2 * len(panels), 5.2)
    for axes, (title, curves) in zip(
        figure.subplots(1, len(panels), squeeze=False).ravel(), panels, strict=True
    ):
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
    # Without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path | str) -> Path:
    with atomic(path) as tmp:
        figure.savefig(tmp, dpi=130, format="png", bbox_inches="tight", pad_inches=0.1)
    return Path(path)


blank, save, short = _figure, _save, _short  # for `analysis_plots`
