"""report.html: one page that works offline, loads nothing, and shows hostile names as the text they
are.

All values are escaped by jinja2; the only script and style are ours, allowed by their hash in the
content security policy, so nothing that slips into the page could run or call out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

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

EMBED_MEGABYTES = 20.0  # pictures beyond this total are linked, so that a large cohort still opens
VALIDATION = "healthy validation"
GROUPS = (
    (VALIDATION, VALIDATION, design.tokens("light")["quiet"]),
    (0, "healthy", design.tokens("light")["healthy"]),
    (1, "anomalous", design.tokens("light")["anomalous"]),
    (None, "cases", design.tokens("light")["healthy"]),
)
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
RANK = "healthy_percentile"
# Of columns.
HINTS = {
    RANK: (
        "healthy validation cases that score lower; p = (1 + those that score as high or higher) /"
        " (their number + 1)"
    )
}
Records = Sequence[Record | Mapping[str, Any]]
IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


def write_report(
    folder: Path | str,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]] = (),
    summary: Mapping[str, Any] | None = None,
    panels: Mapping[str, Path] | None = None,
    provenance: Mapping[str, Any] | None = None,
    records: Records | Mapping[str, Records] | None = None,
    figures: Sequence[Path] = (),
    notes: Sequence[str] = (),
    rows_title: str = "Cases",
    name: str = "report.html",
    pages: Mapping[str, Path] | None = None,
    validation_scores: Sequence[float] = (),
    most: int | None = None,
    lead: Sequence[str] = (),
    links: Mapping[str, Path] | None = None,
    captions: Mapping[str, str] | None = None,
    sections: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Write ``folder/name``.

    rows: one dict per case, as in findings.csv or cases.csv; cases whose ``status`` is neither ok
    nor warn come first, then warnings, then by falling ``score``; rows_title: what the rows are.
    summary: facts at the top. panels: case id -> picture. records: metrics, as `Record` or as
    stored in metrics.json, or several tables of them by title. figures: plots.
    provenance: how it was made. pages: case id -> its own page, linked from the table.
    validation_scores: of healthy cases, drawn behind the scores of the rows. lead: sentences that
    say what was found, above everything. links: text -> further page, beneath them. sections:
    heading -> sentences, behind the first picture. captions: case id -> what its picture shows. A
    percentile is told in words, with the number of healthy cases (`ranks`). most: rows shown, and
    their pictures, first in that order. Pictures are embedded up to 20 MB together and linked
    relative to the page beyond; one that is missing is left out.
    """
    from jinja2 import Environment, StrictUndefined

    folder = Path(folder)
    files = resources.files("pseudohealthy.report") / "templates"
    style, script = ((files / f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    style = design.css() + style
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "raw": _raw, "kind": _kind, "rank": rank_of}
    by_title = records if isinstance(records, Mapping) else {"": records or ()}
    tables = {
        name: summarise([r if isinstance(r, Record) else Record.from_dict(dict(r)) for r in group])
        for name, group in by_title.items()
    }
    ordered = sorted(rows, key=_urgency)
    if most is not None and len(ordered) > most:
        told = "failed ones, warnings, then by score; the table beside this page has all"
        notes = [*notes, f"the first {most:,} of {many(len(ordered), 'row')} are shown: {told}"]
        ordered = ordered[:most]
        here = {str(row["case_id"]) for row in ordered}
        panels = {case: path for case, path in (panels or {}).items() if case in here}
    pictures = _Pictures(folder)
    outside = {str(row.get("case_id")) for row in rows if _is_foreign(row)}
    shown = [str(row["case_id"]) for row in ordered if str(row.get("case_id")) in (panels or {})]
    shown.sort(key=outside.__contains__)  # the first picture is of a scan that the run is meant for
    shown = list(dict.fromkeys([*shown, *(panels or {})]))
    plots = [
        {"name": _caption(path.stem), "source": pictures.source(path)}
        for path in map(Path, figures)
    ]
    sources = [(case, pictures.source(Path((panels or {})[case]))) for case in shown]
    anchors = {case: f"picture-{index}" for index, (case, source) in enumerate(sources) if source}
    page = environment.from_string((files / "report.html.j2").read_text("utf-8")).render(
        title=title,
        foreign=foreign(ordered),
        csp=_policy(style, script),
        style=_ours(style),
        script=_ours(script),
        summary=dict(summary or {}),
        tables=[
            {
                "name": name,
                "metrics": table,
                "rows": _metric_rows(table),
                "context": context(list(table.cells.values())),
            }
            for name, table in tables.items()
            if table.methods
        ],
        number=number,
        notes=list(notes),
        lead=list(lead),
        sections=dict(sections or {}),
        links={text: _relative(Path(path), folder) for text, path in (links or {}).items()},
        bars=_histogram(rows, validation_scores),
        figures=[plot for plot in plots if plot["source"]],
        rows=ordered,
        rows_title=rows_title,
        columns=_columns(ordered),
        anchors=anchors,
        pages={case: _relative(Path(page), folder) for case, page in (pages or {}).items()},
        pictures=[
            {
                "name": c,
                "source": s,
                "anchor": anchors[c],
                "about": _about(OUTSIDE * (c in outside), (captions or {}).get(c)),
            }
            for c, s in sources
            if s
        ],
        provenance=_flat(provenance or {}),
        version=_version(),
    )
    return write_text(folder / name, page)


def evaluation_report(
    folder: Path | str,
    evaluation: Evaluation,
    provenance: Mapping[str, Any],
    *,
    title: str = "Evaluation",
    most: int = 5000,
) -> Path:
    """The page of `evaluate`, in the folder the evaluation was saved to; at most ``most`` rows
    (cases.csv has all)."""
    folder = Path(folder)
    methods = summarise(evaluation.records).methods
    rows = [row for row in evaluation.rows if not str(row["method"]).startswith(CONTROL)]
    notes = [line for line in (evaluation.unmarked(), *evaluation.notes) if line]
    if len(rows) > most:
        notes.append(
            f"the first {most:,} of {many(len(rows), 'row')} are shown here; cases.csv has all"
        )
    facts: dict[str, Any] = {
        "cases": len({row["case_id"] for row in evaluation.rows}),
        "patients": len({row["patient_id"] for row in evaluation.rows}),
        "methods": sum(not method.startswith(CONTROL) for method in methods),
        "controls": sum(method.startswith(CONTROL) for method in methods),
    }
    if fewer := covered(evaluation.records):
        facts["figures"] = fewer
    figures = [folder / f"{plot}.png" for plot in ("roc", "precision_recall", "scores")]
    by_class = "by class (classes.csv has the boxes, images and patients of each)"
    tables: dict[str, list[Record]] = {"": [], by_class: []}
    for record in evaluation.records:
        tables[by_class if class_of(record.metric)[1] else ""].append(record)
    return write_report(
        folder,
        title=title,
        rows=rows[:most],
        summary=facts,
        provenance=provenance,
        records=tables,
        figures=figures,
        notes=notes,
    )


class _Pictures:
    """Where an ``<img>`` finds its picture: inside the page while there is room, else beside it."""

    def __init__(self, folder: Path):
        self.folder, self.room = folder, EMBED_MEGABYTES * 1e6

    def source(self, path: Path) -> str | None:
        kind = IMAGE_TYPES.get(path.suffix.lower())
        path = path if path.is_absolute() or path.exists() else self.folder / path
        if kind is None or not path.is_file():
            return None
        self.room -= path.stat().st_size
        if self.room >= 0:
            return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        return _relative(path, self.folder)


def _caption(stem: str) -> str:
    """What a picture shows; of ``contrast_lgg`` what ``contrast`` shows, and of which data."""
    known = next((name for name in CAPTIONS if stem.startswith(f"{name}_")), "")
    return CAPTIONS.get(stem) or (
        f"{CAPTIONS[known]}: {stem.removeprefix(known)[1:]}" if known else stem
    )


def _relative(path: Path, folder: Path) -> str:
    return "./" + quote(os.path.relpath(path.resolve(), folder.resolve()).replace(os.sep, "/"))


def _policy(style: str, script: str) -> str:
    """Nothing may load but embedded pictures and pictures beside the page; only our own style and
    script apply."""
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
    from markupsafe import Markup

    return Markup(text)


def _kind(row: Mapping[str, Any]) -> str:
    status = str(row.get("status") or "ok").lower()
    return status if status in ("ok", "warn") else "failed"


def _urgency(row: Mapping[str, Any]) -> tuple[int, float]:
    score = row.get("score")
    usable = isinstance(score, (int, float)) and math.isfinite(score)
    least = -float(score) if usable else math.inf  # type: ignore[arg-type]
    return ("failed", "warn", "ok").index(_kind(row)), least


def _is_foreign(row: Mapping[str, Any]) -> bool:
    # The latter of older runs.
    return any(code in str(row.get("warnings", "")) for code in ("OUT_OF_DOMAIN", "OOD_"))


def foreign(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first line of a report with scans that its run is not meant for; empty where there is
    none."""
    found = [row for row in rows if _is_foreign(row)]
    names = [str(row.get("case_id")) for row in found]
    if not names:
        return ""
    said = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    which = f"{len(names)} of {many(len(rows), 'scan')} {'are' if len(names) > 1 else 'is'}"
    advice = f"; do not trust {'their maps and scores' if len(names) > 1 else 'its map and score'}"
    if all(_kind(row) == "failed" for row in found):  # --strict-domain: there are none
        advice = f" and {'were' if len(names) > 1 else 'was'} refused"
    return f"OUT_OF_DOMAIN: {which} unlike what the run was trained on{advice} ({said})"


def _about(*said: str | None) -> str:
    """What stands behind the name of a picture."""
    words = "; ".join(filter(None, said))
    return f": {words}" if words else ""


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every column that has a value somewhere, in the order of the rows' keys; the number of
    healthy cases stands in the words of the percentile."""
    names = dict.fromkeys(
        name for row in rows for name in row if name != "healthy_cases" or RANK not in row
    )
    found = []
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None and row.get(name) != ""]
        if values:
            numeric = name != RANK and all(
                isinstance(value, (int, float, np.number)) for value in values
            )
            found.append(
                {
                    "name": name,
                    "numeric": numeric,
                    "rank": name == RANK,
                    "hint": HINTS.get(name, ""),
                }
            )
    return found


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _raw(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested provenance as dotted lines."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _metric_rows(metrics: Summary) -> list[tuple[str, str]]:
    methods = [method for method in metrics.methods if not method.startswith(CONTROL)]
    paired = [method for method in methods if any(key[0] == method for key in metrics.differences)]
    controls = metrics.methods[len(methods) :]
    return [
        *(("method", method) for method in methods),
        *(("difference", method) for method in paired),
        *(("control", method) for method in controls),
    ]


def _histogram(
    rows: Sequence[Mapping[str, Any]], validation: Sequence[float] = ()
) -> dict[str, Any] | None:
    """Geometry of a small SVG histogram of the scores of one method, with those of healthy
    validation cases where given; None for fewer than two scores, no case, or several methods."""
    scored = [
        r for r in rows if isinstance(r.get("score"), (int, float)) and math.isfinite(r["score"])
    ]
    if (
        not scored
        or len(scored) + len(validation) < 2
        or len({row.get("method") for row in scored}) > 1
    ):
        return None
    scored += [
        {"score": float(score), "label": VALIDATION} for score in validation if math.isfinite(score)
    ]
    bins = int(np.clip(2 * math.sqrt(len(scored)), 8, 30))
    values = np.asarray([row["score"] for row in scored], dtype=np.float64)
    edges = (
        np.linspace(values.min(), values.max() or 1.0, bins + 1)
        if np.ptp(values)
        else values[0] + np.linspace(-1, 1, bins + 1)
    )
    counts = {
        label: np.histogram([r["score"] for r in scored if r.get("label") == label], edges)[0]
        for label, _, _ in GROUPS
    }
    most = max(int(count.max()) for count in counts.values())
    left, right, top, base = 40.0, 600.0, 10.0, 190.0
    step = (right - left) / bins
    rectangles, legend = [], []
    for label, name, colour in GROUPS:
        if not counts[label].any():
            continue
        legend.append({"name": name, "colour": colour, "count": int(counts[label].sum())})
        for index in np.flatnonzero(counts[label]):
            height = (base - top) * counts[label][index] / most
            span = f"{edges[index]:.4g} to {edges[index + 1]:.4g}"
            rectangles.append(
                {
                    "x": round(left + step * index, 1),
                    "y": round(base - height, 1),
                    "width": round(step, 1),
                    "height": round(height, 1),
                    "colour": colour,
                    "title": f"{counts[label][index]} {name}, {span}",
                }
            )
    ticks = [
        {
            "x": left + (right - left) * i / 4,
            "text": f"{edges[0] + (edges[-1] - edges[0]) * i / 4:.3g}",
        }
        for i in range(5)
    ]
    return {
        "width": 840,
        "height": 230,
        "left": left,
        "right": right,
        "top": top,
        "base": base,
        "most": most,
        "rectangles": rectangles,
        "legend": legend,
        "ticks": ticks,
    }


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pseudohealthy")
    except PackageNotFoundError:
        return ""
