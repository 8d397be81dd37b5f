"""An evaluation as a table for a terminal and as a folder of files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import (
    CONTROL,
    Record,
    Summary,
    class_of,
    context,
    family_of,
    number,
    summarise,
)
from pseudohealthy.io.atomic import atomic, write_json
from pseudohealthy.io.table import harmless_cell
from pseudohealthy.metrics.table import families
from pseudohealthy.report import class_tables, plots


def table(evaluation: Evaluation) -> Table:
    """Return a row per method, then each method minus the best control, then the controls.

    ``*`` marks the best value. Tables stand one below the other, so that 80 columns hold them: one
    for each family of metrics, then classes of boxes.
    """
    summary = summarise(evaluation.records)
    stacked = Table.grid()
    for family in families():
        pooled = (
            (key, cell) for key, cell in summary.cells.items() if not class_of(cell.metric)[1]
        )
        headings = dict.fromkeys(key[1] for key, cell in pooled if family_of(cell) == family)
        if headings:
            stacked.add_row(
                _part(summary, [heading for heading in summary.headings if heading in headings])
            )
    if (of_classes := class_tables.table(evaluation.records)) is not None:
        stacked.add_row(of_classes)
    for line in filter(
        None, [context(evaluation.records), evaluation.unmarked(), *evaluation.notes]
    ):
        stacked.add_row(Text(line, style="dim"))
    return stacked


def save(evaluation: Evaluation, folder: Path | str) -> list[Path]:
    """Write metrics.json, cases.csv and, as far as they apply, classes.csv and plots.

    roc, precision_recall and scores (.png) need both classes; classes.csv needs figures by class of
    the boxes.
    """

    folder = Path(folder)
    paths = [
        write_json(folder / "metrics.json", [record.as_dict() for record in evaluation.records])
    ]
    with atomic(folder / "cases.csv") as tmp:
        table = pd.DataFrame(evaluation.rows)
        for column in ("case_id", "patient_id", "method"):
            table[column] = table[column].map(harmless_cell)
        table["label"] = table["label"].astype("Int64")
        table.to_csv(tmp, index=False)
    paths.append(folder / "cases.csv")
    if of_classes := class_tables.rows(evaluation.records):
        with atomic(folder / "classes.csv") as tmp:
            pd.DataFrame(
                [
                    {k: harmless_cell(v) if isinstance(v, str) else v for k, v in row.items()}
                    for row in of_classes
                ]
            ).to_csv(tmp, index=False)
        paths.append(folder / "classes.csv")
    if evaluation.image_curves or evaluation.voxel_curves:
        paths.append(
            plots.roc(folder / "roc.png", evaluation.image_curves, evaluation.voxel_curves)
        )
        paths.append(
            plots.precision_recall(
                folder / "precision_recall.png", evaluation.image_curves, evaluation.voxel_curves
            )
        )
    if any(len(scores) for scores, _ in evaluation.scores.values()):
        paths.append(
            plots.scores(folder / "scores.png", evaluation.scores, evaluation.score_thresholds)
        )
    return paths


def _part(summary: Summary, headings: list[str]) -> Table:

    def cells(of: dict[tuple[str, str], Record], method: str, *, signed: bool) -> list[Text]:
        texts = []
        for heading in headings:
            record = of.get((method, heading))
            best = not signed and (method, heading) in summary.best
            value, _, ci = (number(record, signed=signed) if record else "").partition(" [")
            texts.append(
                Text(
                    f"{value}{'*' if best else ''}\n[{ci}" if ci else value,
                    style="bold" if best else "",
                )
            )
        return texts

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for heading in headings:
        table.add_column(
            Text(heading), justify="right", min_width=max(14, *map(len, heading.split()))
        )
    present = [
        method
        for method in summary.methods
        if any((method, heading) in summary.cells for heading in headings)
    ]
    methods = [method for method in present if not method.startswith(CONTROL)]
    for method in methods:
        table.add_row(Text(method), *cells(summary.cells, method, signed=False))
    for method in methods:
        if any((method, heading) in summary.differences for heading in headings):
            table.add_row(
                Text(f"{method} minus best control"),
                *cells(summary.differences, method, signed=True),
                style="dim",
            )
    for method in present[len(methods) :]:
        table.add_row(Text(method), *cells(summary.cells, method, signed=False))
    return table
