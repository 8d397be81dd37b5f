"""What `sweep` writes: the table of settings, plots over it, one case under each, the best
setting."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy import models
from pseudohealthy.evaluation.sweep import name_of
from pseudohealthy.io.atomic import write_json
from pseudohealthy.io.table import write_table
from pseudohealthy.metrics.table import find, shown_in
from pseudohealthy.report import sweep_plots, terminal
from pseudohealthy.report.page import Cases, Report, write_report
from pseudohealthy.runs.run import provenance

if TYPE_CHECKING:
    from pseudohealthy.evaluation.sweep import Sweep

PANELS, COLUMNS = 6, 8  # figures drawn, settings in the strip


def save(result: Sweep, folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """Write sweep.csv, sweep.json, sweep.png, strip.png and report.html.

    Plots without anything to draw are left out.
    """
    table = rows(result)
    title = f"{result.run}, {result.split} split" + (
        " (an oracle choice)" if result.split == "test" else ""
    )
    title += "" if result.protocol == "strict" else f", protocol {result.protocol}"
    paths = [write_table(folder / "sweep.csv", table)]
    paths.append(
        write_json(
            folder / "sweep.json",
            {
                "made": {
                    **provenance(),
                    "run": result.run,
                    "split": result.split,
                    "protocol": result.protocol,
                    **record,
                },
                "axes": [{"key": key, "values": values} for key, values in result.axes],
                "best": {"metric": result.metric, "settings": result.settings(result.best)},
                "records": [
                    {"settings": result.settings(place), **r.as_dict()}
                    for place, group in result.records.items()
                    for r in group
                ],
                "notes": result.notes,
            },
        )
    )
    names = metrics(result)
    if result.protocol != "strict":  # its own figures, where it has any, as in the paper
        names = [name for name in names if shown_in(name, "table")] or names
    figures = {heading(name): grid_of(result, name) for name in names}
    figures = {name: values for name, values in figures.items() if np.isfinite(values[0]).any()}
    selected = dict(list(figures.items())[:PANELS])
    paths.append(
        sweep_plots.sweep(folder / "sweep.png", result.axes, selected, title, lines=result.lines)
    )
    if result.columns:
        keep = np.unique(np.linspace(0, len(result.columns) - 1, COLUMNS).round().astype(int))
        columns = [
            (", ".join(t.partition(".")[2] for t in result.settings(place)), *pictures)
            for place, *pictures in (result.columns[i] for i in keep)
        ]
        paths.append(sweep_plots.strip(folder / "strip.png", columns, title))
    report = Report(
        title=f"Sweep of {result.run}",
        cases=Cases(table, "Settings"),
        summary={
            "settings": len(table),
            "split": result.split,
            "protocol": result.protocol,
            f"best {result.metric}": "; ".join(result.settings(result.best)),
        },
        figures=[folder / "sweep.png", folder / "strip.png"],
        notes=[*result.notes, keep_it(result)],
        provenance={**provenance(), **record},
    )
    return [*paths, write_report(folder, report)]


def metrics(result: Sweep) -> list[str]:
    """Return the figures of the table, first what the best setting is best in, by its name
    there."""
    names = result.metrics()
    headline = next(
        (name for name in names if result.metric in (name, name.split("@")[0])), result.metric
    )
    return list(dict.fromkeys([headline, *names]))


def rows(result: Sweep) -> list[dict[str, Any]]:
    """Return one row per setting: its values, figures with the ends of their intervals, costs."""
    lines = []
    for place, records in result.records.items():
        row: dict[str, Any] = {
            key: values[i] for (key, values), i in zip(result.axes, place, strict=True)
        }
        row |= {"split": result.split, "best": place == result.best}
        for record in records:
            low, high = record.ci95 or (None, None)
            name = name_of(record)
            row |= {name: record.value, f"{name}_low": low, f"{name}_high": high}
        lines.append(
            row
            | {
                "network_calls": result.network_calls[place],
                "seconds_per_case": result.seconds[place],
            }
        )
    return lines


def grid_of(result: Sweep, metric: str) -> np.ndarray:
    """Return (3, n1, n2, ...): value, lower and upper end of the interval; nan without such a
    figure."""
    values = np.full((3, *(len(texts) for _, texts in result.axes)), np.nan)
    for place in result.records:
        if record := result.value(place, metric):
            for row, value in enumerate((record.value, *(record.ci95 or (np.nan, np.nan)))):
                values[row][place] = value
    return values


def heading(name: str) -> str:
    """Return the words of a metric, with the source of its threshold."""
    metric = find(name)
    return name if metric is None else metric.words(name.partition("@")[2] or "oracle")


def text(result: Sweep) -> str:
    """Return a table for the terminal, the best setting and how to keep it."""
    names = metrics(result)[:5]
    lines = []
    for place in result.records:
        records = [result.value(place, name) for name in names]
        lines.append(
            [
                *(values[i] for (_, values), i in zip(result.axes, place, strict=True)),
                *("" if record is None else f"{record.value:.4g}" for record in records),
                str(result.network_calls[place]),
                f"{result.seconds[place]:.3g}",
                "best" if place == result.best else "",
            ]
        )
    heads = [*(key for key, _ in result.axes), *names, "calls", "s/case", ""]
    table = terminal.columns(lines, heads, right=range(len(heads) - 1))
    return terminal.text(table, *result.notes, keep_it(result, result.going_on))


def keep_it(result: Sweep, going_on: str = "") -> str:
    """Return the best setting as the command that makes it the run's own.

    Files do not tell the path of the run.
    """
    best = result.settings(result.best)
    quoted = " ".join(
        f"'{setting}'" if set(setting) & set('[]"* ') else setting for setting in best
    )
    line = f"{going_on or f'pseudohealthy train --resume PATH/{result.run}'} --set {quoted}"
    if models.find(result.run):  # it stays as it is
        line = f"pseudohealthy detect {result.run} INPUT... --out DIR --set {quoted}"
    return f"best {result.metric} on {result.split}; keep it: {line}"
