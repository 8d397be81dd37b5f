"""What became of every input of a `detect`: the rows of findings.csv, the report, and the exit code
that they mean."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudohealthy.counts import many
from pseudohealthy.detection.finding import COLUMNS
from pseudohealthy.detection.outputs import OUTPUTS
from pseudohealthy.errors import SOME_FAILED, Fault
from pseudohealthy.progress import say


@dataclass
class Detections:
    """Rows of findings.csv in input order, and the exit code they mean. panels, pages: case id ->
    file, where written."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    first: bool = True  # False in the other processes of torchrun: they have nothing to say
    panels: dict[str, Path] = field(default_factory=dict)
    pages: dict[str, Path] = field(default_factory=dict)
    # Kind -> cases that cannot have it.
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def add(self, part: Detections) -> None:
        """Take over what another process did."""
        self.rows += part.rows
        self.faults += part.faults
        self.panels |= part.panels
        self.pages |= part.pages
        for kind, cases in part.left_out.items():
            self.left_out.setdefault(kind, []).extend(cases)

    def keep(
        self, row: dict[str, Any], panel: Path | None, page: Path | None, left_out: Iterable[str]
    ) -> None:
        """Note what became of a case."""
        self.rows.append(row)
        case_id = row["case_id"]
        if panel is not None:
            self.panels[case_id] = panel
        if page is not None:
            self.pages[case_id] = page
        for kind in left_out:
            self.left_out.setdefault(kind, []).append(case_id)

    def take_over(self, said: dict[str, Any], case: Path) -> None:
        """The row of a finished case, from its case.json in folder `case`."""
        panel, page = (said["outputs"].get(name) for name in ("panel", "html"))
        row = {key: said.get(key) for key in COLUMNS}
        self.keep(row, panel and case / panel, page and case / page, said.get("left_out") or ())

    @property
    def exit(self) -> int:
        """0 all written, 4 some failed, else why none was written."""
        if not self.faults:
            return 0
        written = any(row["status"] in ("ok", "warn") for row in self.rows)
        return SOME_FAILED if written else self.faults[0].exit


def say_left_out(result: Detections) -> None:
    """One line for each kind that some inputs cannot have."""
    for kind, cases in result.left_out.items():
        names = ", ".join(cases[:3]) + (", ..." if len(cases) > 3 else "")
        without = f"{many(len(cases), 'case')} without {OUTPUTS[kind].needs}"
        say(f"left out: {kind} of {without} ({names})")


def blank(case_id: str) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"case_id": case_id}
