"""What `compare` writes: tables, forest plot, training curves, and every record as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from pseudohealthy.evaluation.records import CONTROL, Record, heading_of, merit, summarise
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.io.table import write_table
from pseudohealthy.metrics.table import shown_in, sorting
from pseudohealthy.report import evaluation_tables, example, plots
from pseudohealthy.report.page import Cases, Report, write_report
from pseudohealthy.runs.run import provenance

if TYPE_CHECKING:
    from pseudohealthy.evaluation.compare import Comparison

COSTS = (
    "restorer",
    "network_calls",
    "seconds_per_case",
    "peak_mb",
    "parameters",
    "input_channels",
    "training_steps",
    "training_planes",
    "planes_seen",
    "training_seconds",
    "best_validation_auroc",
    "best_validation_loss",
)


def save(result: Comparison, folder: Path, record: Mapping[str, Any]) -> list[Path]:
    """Write comparison.csv, .json, .tex, .md, .png, panel.png, curves.png and report.html.

    The second data set's panel is panel_2.png; a plot without anything to draw is left out.
    """
    by_data = {data: evaluation.records for data, evaluation in result.evaluations.items()}
    table = rows(result)
    examples = {
        data: shown_case for data, shown_case in result.examples.items() if shown_case.pictures
    }
    paths = [write_table(folder / "comparison.csv", table)]
    paths.append(
        write_json(
            folder / "comparison.json",
            {
                "made": {**provenance(), **record},
                "methods": result.facts,
                "costs": [
                    {"data": data, "method": method, **cost}
                    for (data, method), cost in result.costs.items()
                ],
                "records": [
                    {"data": data, **r.as_dict()} for data, group in by_data.items() for r in group
                ],
                "against_best": [
                    {"data": data, **r.as_dict()}
                    for data, group in result.against_best.items()
                    for r in group
                ],
                "panels": [
                    {"data": data, "case": e.case_id, "plane": e.plane, "why": e.why}
                    for data, e in examples.items()
                ],
                "notes": notes(result),
            },
        )
    )
    paths.append(write_text(folder / "comparison.tex", latex(result)))
    paths.append(write_text(folder / "comparison.md", markdown(result)))
    if any(summarise(group).headings for group in by_data.values()):
        paths.append(plots.forest(folder / "comparison.png", by_data))
    panels = [
        folder / ("panel.png" if number == 1 else f"panel_{number}.png")
        for number in range(1, len(examples) + 1)
    ]
    for path, (data, shown_case) in zip(panels, examples.items(), strict=True):
        paths.append(example.draw(shown_case, path, f"{data}, " if len(by_data) > 1 else ""))
    if any(
        "validation_auroc" in entry for history in result.histories.values() for entry in history
    ):
        paths.append(plots.training(folder / "curves.png", result.histories))
    facts = {
        "runs": sum(not name.startswith(CONTROL) for name in result.facts),
        "controls": sum(name.startswith(CONTROL) for name in result.facts),
        "data sets": len(by_data),
        "cases": sum(len({row["case_id"] for row in e.rows}) for e in result.evaluations.values()),
    }
    values = [{k: v for k, v in row.items() if not k.endswith(("_low", "_high"))} for row in table]
    report = Report(
        title="Comparison",
        cases=Cases(values, "Methods: figures and costs"),
        summary=facts,
        records=by_data if len(by_data) > 1 else next(iter(by_data.values())),
        figures=[folder / "comparison.png", *panels, folder / "curves.png"],
        notes=notes(result),
        provenance={**provenance(), **record},
    )
    return [*paths, write_report(folder, report)]


def printed(result: Comparison) -> Any:
    """Return the table of each data set for a terminal, with costs and notes.

    Of the controls it has those that are somebody's rival.
    """

    parts: list[Any] = []
    for data, evaluation in result.evaluations.items():
        rivals = {record.against for record in evaluation.records if record.against}
        records = [
            r for r in evaluation.records if not r.is_control or r.method in rivals or not rivals
        ]
        parts += [
            Text(data, style="bold"),
            evaluation_tables.table(replace(evaluation, records=records, notes=[])),
        ]
    costs = Table(
        "method",
        "calls",
        "s/case",
        "peak MB",
        "parameters",
        "channels",
        "steps",
        "planes seen",
        "training s",
        "best val. ROC-AUC",
        "best val. loss",
        box=None,
    )
    for row in rows(result):
        if not row["method"].startswith(CONTROL):
            keys = (
                "network_calls",
                "seconds_per_case",
                "peak_mb",
                "parameters",
                "input_channels",
                "training_steps",
                "planes_seen",
                "training_seconds",
                "best_validation_auroc",
                "best_validation_loss",
            )
            values = [_short(value) for value in map(row.get, keys)]
            costs.add_row(Text(row["method"]), *values)
    return Group(*parts, costs, *(Text(line, style="dim") for line in notes(result)))


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def notes(result: Comparison) -> list[str]:
    """Return leaks, what each evaluation says, then what a run is ahead of or behind the best
    one."""
    lines = list(result.notes)
    several = len(result.evaluations) > 1
    for data, evaluation in result.evaluations.items():
        lines += [f"{data}: {note}" if several else note for note in evaluation.notes]
        differences = result.against_best.get(data, [])
        headline = [record for record in differences if shown_in(record.metric, "forest")]
        for record in headline or differences:  # comparison.csv has all
            ends = "" if record.ci95 is None else f" [{record.ci95[0]:+.3f}, {record.ci95[1]:+.3f}]"
            chance = "" if record.p_holm is None else f", p {record.p_holm:.3f} (Holm)"
            at = f"{data}: " if several else ""
            lines.append(
                f"{at}{record.method} minus {record.against}, {heading_of(record)}:"
                f" {record.value:+.3f}{ends}{chance}"
            )
    return lines


def rows(result: Comparison) -> list[dict[str, Any]]:
    """Return one row per data set and method: figures, differences and costs.

    Figures have the ends of their intervals; differences are to the best control and to the best
    run. Keys are the metric, with ``@source`` where a threshold was used.
    """
    lines = []
    for data, evaluation in result.evaluations.items():
        table = summarise(evaluation.records)
        ahead = {(r.method, r.metric): r for r in result.against_best.get(data, [])}
        caveats = {record.method: record.caveat for record in evaluation.records if record.caveat}
        # Also where no figure is defined.
        costly = [method for at, method in result.costs if at == data]
        for method in dict.fromkeys([*table.methods, *costly]):
            row: dict[str, Any] = {"data": data, "method": method}
            if caveats:
                row["caveat"] = caveats.get(method, "")
            for heading in table.headings:
                record = table.cells.get((method, heading))
                if record is None:
                    continue
                key = record.metric + (
                    f"@{record.threshold_source}" if record.threshold_source else ""
                )
                row |= _figure(key, record)
                if against := table.differences.get((method, heading)):
                    row |= _figure(f"{key}_minus_control", against) | {
                        f"{key}_control": against.against
                    }
                if against := ahead.get((method, f"{record.metric}_difference")):
                    row |= _figure(f"{key}_minus_best_run", against) | {
                        f"{key}_best_run": against.against
                    }
            costs = result.facts.get(method, {}) | result.costs.get((data, method), {})
            row |= {key: costs.get(key) for key in COSTS}
            lines.append(row | {"postprocessing": costs.get("postprocessing")})
    return lines


def _figure(key: str, record: Record) -> dict[str, Any]:
    low, high = record.ci95 or (None, None)
    cells: dict[str, Any] = {key: record.value, f"{key}_low": low, f"{key}_high": high}
    if record.against and record.p_holm is not None:
        cells[f"{key}_p_holm"] = record.p_holm
    return cells


def latex(result: Comparison) -> str:
    """Return the table for a paper (package booktabs).

    The best of a column is bold, intervals stand beside the values.
    """
    parts = []
    for data, evaluation in result.evaluations.items():
        table = summarise(evaluation.records)
        lines = [
            f"% {escaped(data)}: 95 % intervals over patients; controls below the rule",
            rf"\begin{{tabular}}{{l{'r' * len(table.headings)}rr}}",
            r"\toprule",
            " & ".join(["method", *map(escaped, table.headings), "calls", r"s/case \\"]),
            r"\midrule",
        ]
        ruled = False
        for method in table.methods:
            if method.startswith(CONTROL) and not ruled:
                lines.append(r"\midrule")
                ruled = True
            cells = [
                _cell(table.cells.get((method, h)), (method, h) in table.best)
                for h in table.headings
            ]
            costs = result.facts.get(method, {}) | result.costs.get((data, method), {})
            seconds = costs.get("seconds_per_case")
            cells += [
                str(costs.get("network_calls", "")),
                "" if seconds is None else f"{seconds:.2f}",
            ]
            lines.append(" & ".join([escaped(method), *cells]) + r" \\")
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""]))
    return "\n".join(parts)


def markdown(result: Comparison) -> str:
    """Return the table for a page: runs, the best first, then the controls that are some run's
    rival.

    Last is the paired difference of the headline figure to the best control.
    """
    parts = []
    by = sorting()
    for data, evaluation in result.evaluations.items():
        table = summarise(evaluation.records)
        metric = {heading: record.metric for (_, heading), record in table.cells.items()}
        headings = [heading for heading in table.headings if shown_in(metric[heading], "forest")]
        if not headings:
            continue
        head = min(headings, key=lambda h: by.index(metric[h]) if metric[h] in by else len(by))
        order = sorted(
            table.methods,
            key=lambda m: (m.startswith(CONTROL), -_merit(table.cells.get((m, head)))),
        )
        rivals = {record.against for record in table.differences.values()}
        lines = [
            " | ".join(
                [f"| {data}", "calls", "s/case", "steps", *headings, f"{head}, less best control |"]
            ),
            "|---" * (5 + len(headings)) + "|",
        ]
        for method in order:
            if method.startswith(CONTROL) and method not in rivals:
                continue
            costs = result.facts.get(method, {}) | result.costs.get((data, method), {})
            seconds = costs.get("seconds_per_case")
            cells = [
                str(costs.get("network_calls", "")),
                "" if seconds is None else f"{seconds:.1f}",
            ]
            cells += [str(costs.get("training_steps") or "")]
            cells += [
                _plain_cell(table.cells.get((method, h)), (method, h) in table.best)
                for h in headings
            ]
            cells += [_plain_cell(table.differences.get((method, head)), False, sign="+")]
            lines.append(" | ".join([f"| {method}", *cells]) + " |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def _merit(record: Record | None) -> float:
    return float("-inf") if record is None else merit(record)


def _plain_cell(record: Record | None, best: bool, sign: str = "") -> str:
    if record is None:
        return ""
    value = format(record.value, sign + ".3f") + (
        ""
        if record.ci95 is None
        else f" [{format(record.ci95[0], sign + '.2f')}, {format(record.ci95[1], sign + '.2f')}]"
    )
    return f"**{value}**" if best else value


def _cell(record: Record | None, best: bool) -> str:
    if record is None:
        return ""
    value = rf"\textbf{{{record.value:.3f}}}" if best else f"{record.value:.3f}"
    return value + (
        ""
        if record.ci95 is None
        else rf" {{\scriptsize [{record.ci95[0]:.2f}, {record.ci95[1]:.2f}]}}"
    )


def escaped(text: str) -> str:
    """Return the text in one line in which nothing is a LaTeX command."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        **{character: "\\" + character for character in "&%$#_{}"},
    }
    return "".join(special.get(character, character) for character in " ".join(text.split()))
