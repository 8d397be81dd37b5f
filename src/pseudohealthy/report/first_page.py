"""The demo's first page: what had been drawn into which input, and what of it was found.

Every sentence is computed from the references that the demo knows; none is written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudohealthy.counts import many
from pseudohealthy.detection.ranks import p_value
from pseudohealthy.detection.rows import Detections
from pseudohealthy.detection.truth import STILL, Known, percent, removed_text, twin_text
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import number
from pseudohealthy.report.page import Cases, Report, write_report

UNUSUAL = 0.05  # a score stands out where fewer healthy ones are as high
Row = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """What one detection found.

    Args:
        found: the detection.
        rows: those of findings.csv, each with the ``truth`` of its case.json.
        what: an input is called, such as "slice".
        drawn: what was drawn into some of them, such as "lesion".
    """

    found: Detections
    rows: list[Row]
    what: str
    drawn: str

    @property
    def ill(self) -> list[Row]:
        """Rows of inputs into which something was drawn."""
        return [row for row in self.rows if row["truth"]["lesions"]]

    @property
    def found_in(self) -> list[Row]:
        """Rows of those where something of it is marked."""
        return [row for row in self.ill if row["truth"]["found"]]

    @property
    def false_alarms(self) -> list[Row]:
        """Rows of inputs without anything drawn, in which something is marked."""
        return [
            row for row in self.rows if not row["truth"]["lesions"] and row["truth"]["elsewhere"]
        ]

    @property
    def still_ill(self) -> list[Row]:
        """Rows of those whose healthy twin still shows it."""
        return [row for row in self.ill if row["truth"]["twin_still_shows_it"]]

    def headline(self) -> str:
        """Say "the lesion in 3 of 4 slices"."""
        return (
            f"the {self.drawn} in {_many(len(self.found_in), len(self.ill))} {self._whats} that"
            " have one"
        )

    def sentences(self) -> list[str]:
        """Say what was drawn, found, missed and marked in health, and which twins still show it."""
        ill, marked, well = self.ill, self.found_in, len(self.rows) - len(self.ill)
        missed = [row for row in ill if row not in marked]
        lines = [
            (
                f"A {self.drawn} was drawn into {_many(len(ill), len(self.rows))} {self._whats}:"
                f" {_names(ill)}."
            ),
            f"It is marked, in part or whole, in {_many(len(marked), len(ill))}"
            + (f"; missed in {_names(missed)}." if missed else "; none was missed."),
            *self._unremarkable(),
        ]
        if well:
            detail = f": {_names(self.false_alarms, _regions)}" if self.false_alarms else ""
            lines.append(
                f"Something is marked in {_many(len(self.false_alarms), well)} without a"
                f" {self.drawn}{detail}."
            )
        unchanged = self.still_ill
        shares = (
            f"; share of its contrast removed: {_names(unchanged, _removed)}" if unchanged else ""
        )
        return [
            *lines,
            (
                f"The healthy twin still shows the {self.drawn} in"
                f" {_many(len(unchanged), len(ill))}{shares}."
            ),
        ]

    def _unremarkable(self) -> list[str]:
        """Say which scores do not stand out."""
        inconspicuous = [row for row in self.ill if (_p(row) or 0) > UNUSUAL]
        if not inconspicuous:
            return []
        lowest = 1 / (inconspicuous[0]["healthy_cases"] + 1)
        caution = (
            f"; with {inconspicuous[0]['healthy_cases']} healthy ones p is never below {lowest:.2g}"
            if lowest > UNUSUAL
            else ""
        )
        return [
            "By score alone these do not stand out:"
            f" {_names(inconspicuous, lambda row: f'p = {_p(row):.2g}')}{caution}."
        ]

    @property
    def _whats(self) -> str:
        return self.what + "s" * (len(self.rows) != 1)

    def lines(self) -> list[Row]:
        """Return the rows of the page: what was found first, then what was missed, then what is
        healthy."""
        ordered = sorted(
            self.rows, key=lambda row: (not row["truth"]["lesions"], not row["truth"]["found"])
        )
        return [
            {
                "case_id": row["case_id"],
                "input": self.what,
                "drawn": f"a {self.drawn}" if row["truth"]["lesions"] else "nothing",
                "outcome": _known(row).text(),
                "healthy twin": twin_text(row["truth"]["removed"], self.drawn),
                "regions": row["n_regions"],
                "healthy_percentile": row["healthy_percentile"],
                "healthy_cases": row["healthy_cases"],
                "status": row["status"],
                "warnings": row["warnings"],
            }
            for row in ordered
        ]


def known(detections: Detections, input_name: str, anomaly: str) -> Group:
    """Return the finished cases of a detection that have references.

    Each has what its case.json says beside its reference.
    """
    rows = []
    for row in detections.rows:
        if row["status"] in ("ok", "warn"):
            record = json.loads(
                (detections.folder / row["case_id"] / "case.json").read_text(encoding="utf-8")
            )
            rows.append({**row, "truth": record["truth"], "run": record["made"].get("run")})
    return Group(detections, rows, input_name, anomaly)


NOTES = (
    (
        "Found: at least one marked pixel lies in what was drawn. Regions are listed from"
        " the most conspicuous on: by what the map exceeds the threshold by, summed over"
        " the region."
    ),
    (
        "A healthy twin still shows what was drawn where it removed less than"
        f" {percent(STILL[0])} of the step across its outline. Anatomy has steps too: this"
        " is said, wrongly, of one in 16 slices of heads as they were before, and of one"
        " in 6 digits."
    ),
    (
        "p = (1 + healthy cases that score as high or higher) / (healthy cases + 1): with"
        " few of them it cannot be small."
    ),
)


def first_page(out: Path, groups: Sequence[Group], evaluated: Evaluation) -> list[Path]:
    """Write out/report.html over all groups; return every report in `out`, this one first."""
    lines = [line for group in groups for line in group.lines()]
    page = out / "report.html"
    others = sorted(path for path in out.rglob("report.html") if path != page)
    records = [
        r
        for r in evaluated.records
        if r.metric == "image_auroc" and not r.is_control and not r.against
    ]
    cases = Cases(
        lines,
        "Inputs",
        panels={case: path for group in groups for case, path in group.found.panels.items()},
        pages={case: path for group in groups for case, path in group.found.pages.items()},
        captions={
            line["case_id"]: "; ".join(filter(None, (line["outcome"], line["healthy twin"])))
            for line in lines
        },
    )
    sections = {
        f"{group.what.capitalize()}s, by {group.rows[0]['run']}": group.sentences()
        for group in groups
        if group.rows
    }
    sections["Digits, evaluated"] = [
        f"On {r.n_cases} that were not trained on, the image AUROC is {number(r)}." for r in records
    ]
    report = Report(
        title="Demo: what was drawn, found and missed",
        lead=[f"Marked: {'; '.join(group.headline() for group in groups)}. {_faults(groups)}"],
        links={_title(path, out): path for path in others},
        sections=sections,
        notes=NOTES,
        cases=cases,
    )
    write_report(out, report)
    return [page, *others]


def _faults(groups: Sequence[Group]) -> str:
    """Say what is marked where nothing was drawn, and which twins are none."""
    alarms = [
        f"{_many(len(group.false_alarms), well)} healthy {group.what}s"
        for group in groups
        if (well := len(group.rows) - len(group.ill))
    ]
    unchanged, ill = (
        sum(len(part) for part in parts)
        for parts in ([g.still_ill for g in groups], [g.ill for g in groups])
    )
    twins = f"The healthy twin still shows what was drawn in {_many(unchanged, ill)}."
    return f"Something is marked in {' and '.join(alarms)} too. {twins}" if alarms else twins


def _title(path: Path, out: Path) -> str:
    return f"{path.parent.relative_to(out).as_posix()}/{path.name}"


def _known(row: Row) -> Known:
    return Known(**{k: v for k, v in row["truth"].items() if k in Known.__dataclass_fields__})


def _p(row: Row) -> float | None:
    percentile, count = row["healthy_percentile"], row["healthy_cases"]
    return (
        None
        if percentile is None or not count
        else p_value(round(percentile * (count + 1) / 100), count)
    )


def _many(count: int, total: int) -> str:
    """Write "none of 4", "3 of 4", "all 4"."""
    if count == total > 1:
        return f"all {total}"
    return f"{count or 'none'} of {total}"


def _names(rows: Sequence[Row], about: Callable[[Row], str] | None = None) -> str:
    return (
        ", ".join(row["case_id"] + (f" ({about(row)})" if about else "") for row in rows) or "none"
    )


def _regions(row: Row) -> str:
    count = row["truth"]["elsewhere"]
    return many(count, "region")


def _removed(row: Row) -> str:
    return removed_text(row["truth"]["removed"])
