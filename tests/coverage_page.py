"""docs/coverage.md, written from docs/rows/coverage.csv: ``PYTHONPATH=src python
tests/coverage_page.py > docs/coverage.md``.

A row is one requirement, number, option, output, figure or claim of the five documents that this
program was built from. ``said`` is the page and, behind #, the words with which its user is told of
a difference.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "docs" / "rows" / "coverage.csv"
TOP = """# The five documents, row by row

This program was built from five documents: a poster on haemorrhage (poster), Wolleb et al. 2022
(Wolleb), the page of cDDPM (cDDPM), the README of a CT repository (CT README) and review notes of
THOR (THOR). Every requirement, number, option, output, figure and claim of theirs is a row: done
exactly, or differently with the page that says why; what could be measured with the data at hand
and was not is said as well. Commands are those of the pages; `SOURCE`, `DATA` and `RUN` stand for
yours. This page is written from `docs/rows/coverage.csv` by `tests/coverage_page.py`; a test looks
every page up and reads every command.
"""


def rows() -> list[dict[str, str]]:
    with ROWS.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def page() -> str:
    """The whole page."""
    found = rows()
    counts = Counter(row["verdict"] for row in found)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines = [
        TOP,
        f"{len(found)} rows: {said}.",
        "",
        "| | what | document | here | | command |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        where = row["said"].partition("#")[0].removeprefix("docs/")
        verdict = f"{row['verdict']}: [why]({where})" if where else row["verdict"]
        command = f"`{row['command']}`" if row["command"] else ""
        cells = (row["row"], row["requirement"], row["document"], row["how"], verdict, command)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
