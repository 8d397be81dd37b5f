"""The fault table as a page of the documentation."""

from __future__ import annotations

from pathlib import Path

from faults.scoring import Result
from pseudohealthy.io.atomic import write_text

PEERS = Path(__file__).with_name("peers.tsv")
BY_HAND = "<!-- From here on written by hand: make faults PAGE=... keeps it. -->"
GROUPS = {
    "N": "NIfTI",
    "D": "DICOM",
    "P": "Pictures and arrays",
    "C": "Data set lists",
    "K": "Weights and settings",
    "R": "Run time",
    "S": "Saving and stopping",
    "W": "Report and web app",
    "V": "Privacy",
    "U": "Usage",
}
TOP = """# Reliability: what happens when something is wrong

`make faults` stages every row of this table for real (damaged files, hostile archives, killed
trainings), runs the program on it and scores what happens: **2** the expected outcome exactly (code
word, exit code, files), **1** safe but unclear or not as promised, **0** silently wrong, a hang or
an exit of 0 where something failed, **-2** data lost, code run or identifiers leaked. No score is
written by hand: it follows from exit code, messages, files, memory and time. A row of several
trials is as good as its worst.

Exit codes: 0 all written, 1 internal error, 2 usage, 3 no usable input, 4 some cases failed, 5
model rejected, 6 output not writable, 7 resource limit, 8 refused for safety, 130 interrupted. This
page is written by `make faults PAGE=docs/reliability.md`.

"""
MARKS = """The column of other tools says what was measured on them ([M]), read in their code ([C]),
in their documentation ([P], [I]) or is known of them ([K]); nib: tools that read with nibabel,
sitk: with SimpleITK, tb: a traceback.
"""


def peers() -> dict[str, str]:
    """What other tools do, by row."""
    lines = PEERS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def write(path: Path, results: list[Result]) -> None:
    """docs/reliability.md from the results of all rows; what stands below `BY_HAND` stays."""
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    kept = before[before.index(BY_HAND) :] if BY_HAND in before else ""
    others, total = peers(), sum(result.score for result in results)
    text = TOP + f"Last run: **total {total}/{2 * len(results)}**\n\n{MARKS}"
    for letter, name in GROUPS.items():
        group = [result for result in results if result.row.id[0] == letter]
        if not group:
            continue
        text += f"\n## {name}: {sum(r.score for r in group)}/{2 * len(group)}\n\n"
        text += (
            "| row | what is wrong | expected | what happens | score | other tools"
            " |\n|---|---|---|---|---|---|\n"
        )
        for result in group:
            row = result.row
            cells = (
                row.id,
                row.what,
                row.expected,
                result.got,
                str(result.score),
                others.get(row.id, ""),
            )
            text += "| " + " | ".join(map(cell, cells)) + " |\n"
    if adapted := [r.row for r in results if r.row.adapted]:
        text += "\n## Expectations that were adapted\n\n" + "".join(
            f"- {row.id}: {row.adapted}\n" for row in adapted
        )
    if short := [r for r in results if r.score < 2]:
        text += "\n## What is missing\n\n" + "".join(
            f"- {r.row.id} ({r.score}): {r.got}\n" for r in short
        )
    write_text(path, text + (f"\n{kept}" if kept else ""))
