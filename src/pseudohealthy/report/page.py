"""report.html: one page that works offline, loads nothing, and shows hostile names as text.

All values are escaped by jinja2; the only script and style are ours, allowed by their hash in the
content security policy, so nothing that slips into the page could run or call out.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pseudohealthy import design
from pseudohealthy.counts import many
from pseudohealthy.detection.ranks import rank_of
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import (
    CONTROL,
    Record,
    Summary,
    class_of,
    context,
    covered,
    number,
    summarise,
)
from pseudohealthy.io.atomic import write_text
from pseudohealthy.report.histogram import histogram
from pseudohealthy.report.rows import cell, columns, flat, foreign, is_foreign, raw, urgency
from pseudohealthy.report.rows import kind as kind_of
from pseudohealthy.version import __version__

EMBED_MEGABYTES = 20.0  # pictures beyond this total are linked, so that a large cohort still opens
OUTSIDE = "out of the run's domain"
CAPTIONS = {
    "roc": "ROC curves; grey dashes are the controls",
    "precision_recall": "Precision and recall; the grey line is chance, the prevalence",
    "scores": "Scores of the cases by method",
    "comparison": (
        "Metrics with 95 % intervals over patients; controls in grey, the dotted line is the best"
        " of them"
    ),
    "panel": (
        "One test case by all runs: input and reference, then each run's healthy twin and"
        " anomaly map"
    ),
    "curves": "Validation ROC-AUC while the runs trained; stars are the best epochs",
    "healthy_in": (
        "Mean anomaly of healthy cases, and of diseased ones outside and inside the reference"
    ),
    "histograms": "Intensities of images and of their healthy twins, healthy tissue only",
    "contrast": "Mean anomaly as the contrast of the marked tissue is changed",
    "intensities": (
        "Intensities of healthy tissue in images and twins, at original and changed contrast"
    ),
    "conditioning": "Twins of one noised image, conditioned on other images: what the vector does",
    "examples_oracle": (
        "Cases: twin, map, mask at the case's best Dice (an oracle), intensities of healthy tissue"
    ),
}
Records = Sequence[Record | Mapping[str, Any]]
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Cases:
    """The table of a report and the pictures beneath it.

    Args:
        rows: One dictionary per case, as in findings.csv or cases.csv. Failed ones come first, then
            warnings, then by falling `score`.
        title: What the rows are.
        panels: Case id -> picture; one that is missing is left out.
        captions: Case id -> what its picture shows.
        pages: Case id -> its own page, linked from the table.
        validation_scores: Of healthy cases, drawn behind the scores of the rows.
        most: Rows shown, and their pictures, first in that order; None for all.
    """

    rows: Sequence[Mapping[str, Any]] = ()
    title: str = "Cases"
    panels: Mapping[str, Path] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, Path] = field(default_factory=dict)
    validation_scores: Sequence[float] = ()
    most: int | None = None


@dataclass(frozen=True)
class Report:
    """What a report says, from top to bottom.

    Args:
        title: Of the page.
        lead: Sentences that say what was found, above everything.
        links: Text -> further page, beneath them.
        summary: Facts by name.
        sections: Heading -> sentences, behind the first picture.
        records: Metrics, as `Record` or as stored in metrics.json, or several tables by title.
        notes: What has to be known beside the metrics.
        figures: Plots.
        cases: Table and pictures.
        provenance: How it was made.
    """

    title: str
    lead: Sequence[str] = ()
    links: Mapping[str, Path] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)
    records: Records | Mapping[str, Records] = ()
    notes: Sequence[str] = ()
    figures: Sequence[Path] = ()
    cases: Cases = Cases()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def write_report(folder: Path | str, report: Report, name: str = "report.html") -> Path:
    """Write `folder`/`name`: one file that loads nothing.

    Pictures are embedded up to 20 MB together, and linked relative to the page beyond.
    """
    folder = Path(folder)
    files = resources.files("pseudohealthy.report") / "templates"
    style, script = ((files / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    style = design.css() + style
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": cell, "raw": raw, "kind": kind_of, "rank": rank_of}
    pictures = _Pictures(folder)
    plots = [
        {"name": _caption(path.stem), "source": pictures.source(path)}
        for path in map(Path, report.figures)
    ]
    page = environment.from_string((files / "report.html.j2").read_text("utf-8")).render(
        csp=_policy(style, script),
        style=_ours(style),
        script=_ours(script),
        title=report.title,
        lead=list(report.lead),
        links={text: _relative(Path(path), folder) for text, path in report.links.items()},
        summary=dict(report.summary),
        sections=dict(report.sections),
        tables=_tables(report.records),
        number=number,
        figures=[plot for plot in plots if plot["source"]],
        provenance=flat(report.provenance),
        version=__version__,
        **_cases(report.cases, report.notes, pictures),
    )
    return write_text(folder / name, page)


def _tables(records: Records | Mapping[str, Records]) -> list[dict[str, Any]]:
    """Return what the template needs of each table of metrics that has a method."""
    by_title = records if isinstance(records, Mapping) else {"": records}
    tables = []
    for name, group in by_title.items():
        table = summarise(
            [r if isinstance(r, Record) else Record.from_dict(dict(r)) for r in group]
        )
        if table.methods:
            words = context(list(table.cells.values()))
            rows = _metric_rows(table)
            tables.append({"name": name, "metrics": table, "rows": rows, "context": words})
    return tables


def _cases(cases: Cases, notes: Sequence[str], pictures: _Pictures) -> dict[str, Any]:
    """Return what the template needs of the rows and their pictures."""
    ordered, panels, notes = sorted(cases.rows, key=urgency), dict(cases.panels), list(notes)
    if cases.most is not None and len(ordered) > cases.most:
        rule = "failed ones, warnings, then by score; the table beside this page has all"
        notes.append(f"the first {cases.most:,} of {many(len(ordered), 'row')} are shown: {rule}")
        ordered = ordered[: cases.most]
        first_ids = {str(row["case_id"]) for row in ordered}
        panels = {case: path for case, path in panels.items() if case in first_ids}
    outside = {str(row.get("case_id")) for row in cases.rows if is_foreign(row)}
    case_ids = [str(row["case_id"]) for row in ordered if str(row.get("case_id")) in panels]
    # The first picture is of a scan that the run is meant for.
    case_ids.sort(key=outside.__contains__)
    case_ids = list(dict.fromkeys([*case_ids, *panels]))
    sources = {case: pictures.source(Path(panels[case])) for case in case_ids}
    anchors = {case: f"picture-{n}" for n, (case, source) in enumerate(sources.items()) if source}
    return {
        "foreign": foreign(ordered),
        "notes": notes,
        "bars": histogram(cases.rows, cases.validation_scores),
        "rows": ordered,
        "rows_title": cases.title,
        "columns": columns(ordered),
        "anchors": anchors,
        "pages": {c: _relative(Path(page), pictures.folder) for c, page in cases.pages.items()},
        "pictures": [
            {
                "name": case,
                "source": source,
                "anchor": anchors[case],
                "about": _about(OUTSIDE * (case in outside), cases.captions.get(case)),
            }
            for case, source in sources.items()
            if source
        ],
    }


MOST_ROWS = 5000


def evaluation_report(
    folder: Path | str, evaluation: Evaluation, provenance: Mapping[str, Any]
) -> Path:
    """Write the page of `evaluate` into the folder that the evaluation was saved to.

    It has at most `MOST_ROWS` rows; cases.csv has all.
    """
    folder = Path(folder)
    methods = summarise(evaluation.records).methods
    rows = [row for row in evaluation.rows if not str(row["method"]).startswith(CONTROL)]
    notes = [line for line in (evaluation.unmarked(), *evaluation.notes) if line]
    if len(rows) > MOST_ROWS:
        notes.append(
            f"the first {MOST_ROWS:,} of {many(len(rows), 'row')} are shown here; cases.csv has all"
        )
    facts: dict[str, Any] = {
        "cases": len({row["case_id"] for row in evaluation.rows}),
        "patients": len({row["patient_id"] for row in evaluation.rows}),
        "methods": sum(not method.startswith(CONTROL) for method in methods),
        "controls": sum(method.startswith(CONTROL) for method in methods),
    }
    if coverage := covered(evaluation.records):
        facts["figures"] = coverage
    figures = [folder / f"{plot}.png" for plot in ("roc", "precision_recall", "scores")]
    by_class = "by class (classes.csv has the boxes, images and patients of each)"
    tables: dict[str, list[Record]] = {"": [], by_class: []}
    for record in evaluation.records:
        tables[by_class if class_of(record.metric)[1] else ""].append(record)
    report = Report(
        title="Evaluation",
        cases=Cases(rows[:MOST_ROWS]),
        summary=facts,
        provenance=provenance,
        records=tables,
        figures=figures,
        notes=notes,
    )
    return write_report(folder, report)


class _Pictures:
    """Where an ``<img>`` finds its picture: inside the page while there is room, else beside it."""

    def __init__(self, folder: Path):
        self.folder, self.room = folder, EMBED_MEGABYTES * 1e6

    def source(self, path: Path) -> str | None:
        """Return what an ``<img>`` names; None where there is no such picture."""
        media_type = IMAGE_TYPES.get(path.suffix.lower())
        path = path if path.is_absolute() or path.exists() else self.folder / path
        if media_type is None or not path.is_file():
            return None
        self.room -= path.stat().st_size
        if self.room >= 0:
            return f"data:{media_type};base64,{base64.b64encode(path.read_bytes()).decode()}"
        return _relative(path, self.folder)


def _caption(stem: str) -> str:
    """Return what a picture shows; of ``contrast_lgg`` what ``contrast`` shows, and of which
    data."""
    prefix = next((name for name in CAPTIONS if stem.startswith(f"{name}_")), "")
    return CAPTIONS.get(stem) or (
        f"{CAPTIONS[prefix]}: {stem.removeprefix(prefix)[1:]}" if prefix else stem
    )


def _relative(path: Path, folder: Path) -> str:
    return "./" + quote(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/"))


def _policy(style: str, script: str) -> str:
    """Allow embedded pictures, pictures beside the page, our own style and script, and nothing
    else."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    )
    return (
        f"default-src 'none'; img-src 'self' data:; style-src 'sha256-{style_hash}'; "
        f"script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'"
    )


def _ours(text: str) -> Any:
    """Mark a file of this package, and nothing else, as needing no escaping."""
    return Markup(text)


def _about(*parts: str | None) -> str:
    """Return what stands behind the name of a picture."""
    words = "; ".join(filter(None, parts))
    return f": {words}" if words else ""


def _metric_rows(metrics: Summary) -> list[tuple[str, str]]:
    methods = [method for method in metrics.methods if not method.startswith(CONTROL)]
    paired = [method for method in methods if any(key[0] == method for key in metrics.differences)]
    controls = metrics.methods[len(methods) :]
    return [
        *(("method", method) for method in methods),
        *(("difference", method) for method in paired),
        *(("control", method) for method in controls),
    ]
