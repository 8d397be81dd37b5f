"""Figures by class of the annotated boxes: rows of classes.csv and the table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pseudohealthy.evaluation.records import (
    CONTROL,
    Record,
    class_name,
    class_of,
    class_rank,
    merit,
    number,
)
from pseudohealthy.metrics.table import METRICS, names


def by_class(records: Sequence[Record]) -> dict[tuple[str, str], dict[str, Record]]:
    """Return the records by metric of each (class, method), classes in the order of `CLASSES`."""
    groups: dict[tuple[str, str], dict[str, Record]] = {}
    for record in records:
        metric, kind = class_of(record.metric)
        if kind:
            groups.setdefault((kind, record.method), {})[metric] = record
    return dict(sorted(groups.items(), key=lambda item: class_rank(item[0][0])))


def rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return one row per class and method: boxes, images, patients, figures with their
    intervals."""
    lines = []
    for (kind, method), group in by_class(records).items():
        row: dict[str, Any] = {
            "class": kind,
            "name": class_name(kind),
            "method": method,
            **_counts(group),
        }
        for metric in filter(group.get, names("table")):
            low, high = group[metric].ci95 or (None, None)
            row |= {metric: group[metric].value, f"{metric}_low": low, f"{metric}_high": high}
        thresholded = next(record for record in group.values() if record.threshold_source)
        lines.append(
            row
            | {"threshold": thresholded.threshold, "threshold_source": thresholded.threshold_source}
        )
    return lines


def table(records: Sequence[Record]) -> Table | None:
    """Return a line per class and method for a terminal; None without classes.

    Of the controls the one with the best F1 (the last figure) in that class is shown.
    """
    groups = by_class(records)
    metrics = [
        metric for metric in names("table") if any(metric in group for group in groups.values())
    ]
    if not metrics:
        return None
    grid = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for heading in ("class", "method"):
        grid.add_column(heading, overflow="fold")
    for heading in (
        "boxes",
        "images",
        *(
            METRICS[metric].heading.removesuffix(" @") + METRICS[metric].warning
            for metric in metrics
        ),
    ):
        grid.add_column(Text(heading), justify="right")
    for kind in dict.fromkeys(kind for kind, _ in groups):
        methods = {method: group for (of, method), group in groups.items() if of == kind}
        controls = [method for method in methods if method.startswith(CONTROL)]
        best = max(
            controls,
            key=lambda m: [merit(methods[m][metric]) for metric in reversed(metrics)],
            default=None,
        )
        for index, method in enumerate([m for m in methods if m not in controls or m == best]):
            group = methods[method]
            counts = map(str, list(_counts(group).values())[:2]) if not index else ("", "")
            cells = [number(group[metric]).replace(" [", "\n[") for metric in metrics]
            grid.add_row(
                Text("" if index else class_name(kind)), Text(method), *counts, *map(Text, cells)
            )
    return grid


def _counts(group: dict[str, Record]) -> dict[str, int]:
    any_of = next(iter(group.values()))
    return {
        "boxes": int(group["n_boxes"].value),
        "images": any_of.n_cases,
        "patients": any_of.n_patients,
    }
