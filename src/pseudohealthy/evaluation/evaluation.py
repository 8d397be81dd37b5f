"""An evaluation made: records, rows and curves, printed as a table and saved as a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pseudohealthy.evaluation import classes
from pseudohealthy.evaluation.records import CONTROL, Record, Summary, class_of, context, covered, number, summarise
from pseudohealthy.io.atomic import atomic, write_json
from pseudohealthy.io.table import harmless_cell
from pseudohealthy.metrics.curves import Curve
from pseudohealthy.metrics.thresholds import Threshold

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


@dataclass
class Evaluation:
    """records: every figure; rows: one dict per case and method; notes: what could not be computed and why.

    scores: (score, is anomalous) of the labelled cases by method; the curves are for plots.
    """

    records: list[Record] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    image_curves: dict[str, Curve] = field(default_factory=dict)
    voxel_curves: dict[str, Curve] = field(default_factory=dict)
    score_thresholds: dict[str, Threshold] = field(default_factory=dict)

    @property
    def cases(self) -> pd.DataFrame:
        """One row per case and method: label, score, Dice (empty where the reference is), voxel counts, threshold."""
        import pandas as pd

        return pd.DataFrame(self.rows)

    def table(self) -> Table:
        """One row per method, then each method minus the best control, then the controls; ``*`` marks the best value.

        Tables one below the other, so that 80 columns hold them: images, voxels, Dice, lesions, boxes, classes of boxes.
        """
        from rich.table import Table
        from rich.text import Text

        found = summarise(self.records)
        stacked = Table.grid()
        for family in (("image", "plane"), ("voxel",), ("dice",), ("lesion",), ("box",)):
            pooled = ((key, cell) for key, cell in found.cells.items() if not class_of(cell.metric)[1])
            headings = dict.fromkeys(key[1] for key, cell in pooled if cell.metric.startswith(family))
            if headings:
                stacked.add_row(_part(found, [heading for heading in found.headings if heading in headings]))
        if (of_classes := classes.table(self.records)) is not None:
            stacked.add_row(of_classes)
        for line in filter(None, [context(self.records), self.unmarked(), *self.notes]):
            stacked.add_row(Text(line, style="dim"))
        return stacked

    def unmarked(self) -> str:
        """Which cases have no reference, and so no voxel figures, where others have; else empty."""
        rows = {str(row["case_id"]): row.get("reference_voxels") for row in self.rows}
        without = [case for case, voxels in rows.items() if voxels is None]
        if not covered(self.records) or not without:
            return ""
        names = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        return f"no reference mask, so no voxel figures: {names}"

    def save(self, folder: Path | str) -> list[Path]:
        """Write metrics.json, cases.csv and, where both classes are there, roc, precision_recall and scores (.png); where
        figures are by class of the boxes, classes.csv."""
        import pandas as pd

        from pseudohealthy.report import plots

        folder = Path(folder)
        written = [write_json(folder / "metrics.json", [record.as_dict() for record in self.records])]
        with atomic(folder / "cases.csv") as tmp:
            table = self.cases
            for column in ("case_id", "patient_id", "method"):
                table[column] = table[column].map(harmless_cell)
            table["label"] = table["label"].astype("Int64")
            table.to_csv(tmp, index=False)
        written.append(folder / "cases.csv")
        if of_classes := classes.rows(self.records):
            with atomic(folder / "classes.csv") as tmp:
                pd.DataFrame([{k: harmless_cell(v) if isinstance(v, str) else v for k, v in row.items()}
                              for row in of_classes]).to_csv(tmp, index=False)  # fmt: skip
            written.append(folder / "classes.csv")
        if self.image_curves or self.voxel_curves:
            written.append(plots.roc(folder / "roc.png", self.image_curves, self.voxel_curves))
            written.append(
                plots.precision_recall(folder / "precision_recall.png", self.image_curves, self.voxel_curves)
            )
        if any(len(scores) for scores, _ in self.scores.values()):
            written.append(plots.scores(folder / "scores.png", self.scores, self.score_thresholds))
        return written


def _part(found: Summary, headings: list[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    def cells(of: dict[tuple[str, str], Record], method: str, *, signed: bool) -> list[Text]:
        texts = []
        for heading in headings:
            record = of.get((method, heading))
            best = not signed and (method, heading) in found.best
            value, _, ci = (number(record, signed=signed) if record else "").partition(" [")
            texts.append(Text(f"{value}{'*' if best else ''}\n[{ci}" if ci else value, style="bold" if best else ""))
        return texts

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", overflow="fold")
    for heading in headings:
        table.add_column(Text(heading), justify="right", min_width=max(14, *map(len, heading.split())))
    present = [method for method in found.methods if any((method, heading) in found.cells for heading in headings)]
    methods = [method for method in present if not method.startswith(CONTROL)]
    for method in methods:
        table.add_row(Text(method), *cells(found.cells, method, signed=False))
    for method in methods:
        if any((method, heading) in found.differences for heading in headings):
            table.add_row(
                Text(f"{method} minus best control"), *cells(found.differences, method, signed=True), style="dim"
            )
    for method in present[len(methods) :]:
        table.add_row(Text(method), *cells(found.cells, method, signed=False))
    return table
