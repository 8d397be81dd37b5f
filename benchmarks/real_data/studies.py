"""A study of docs/results.md: its figures taken from what a script wrote, and its table."""

from __future__ import annotations

import textwrap
from typing import Any

from result_tables import edition, figure, line_of

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.restorers.apply import NOISE_KEY


def studied(frame: dict[str, Any], entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The frame of a study with the figures of `entries`. Fault ROWS (exit 2) for a row that is not
    among them."""
    frame["noise_key"] = NOISE_KEY
    known = {entry[frame["key"]]: entry for entry in entries}
    for row in frame["rows"]:
        if row["is"] not in known:
            raise Fault(
                "ROWS",
                f"no entry has {frame['key']} '{row['is']}'",
                'correct the row\'s "is"',
                exit=USAGE,
            )
        row["figures"] = []
        for path in frame["columns"].values():
            value: Any = known[row["is"]]
            for key in path.split("/"):
                value = value[key]
            numbers = value if isinstance(value, list) else [value]
            row["figures"].append([None if v is None else round(v, 6) for v in numbers])
    return frame


def study_table(frame: dict[str, Any]) -> str:
    """A study in Markdown: a label, then figures with their intervals; signed under headings that
    begin with "less"."""
    lines = [line_of(["", *frame["columns"]]), "|---" * (1 + len(frame["columns"])) + "|"]
    for row in frame["rows"]:
        cells = []
        for heading, (value, *ends) in zip(frame["columns"], row["figures"], strict=True):
            low, high = ends or (None, None)
            whole = isinstance(value, int)
            nothing = heading.startswith("less") and value == low == high == 0
            text = (
                str(value)
                if whole
                else figure(
                    {"value": value, "low": low, "high": high},
                    "+" if heading.startswith("less") else "",
                )
            )
            cells.append(
                "" if nothing else f"**{text}**" if row.get("bold") and not whole else text
            )
        lines.append(line_of([f"**{row['label']}**" if row.get("bold") else row["label"], *cells]))
    said = (
        f"Made by `{frame['command']}`; figures:"
        f" [rows/studies/{frame['study']}.json](rows/studies/{frame['study']}.json)."
    )
    said = f"{said} {edition(frame)}".strip()
    return (
        "\n".join(lines)
        + "\n\n"
        + "\n".join(textwrap.wrap(said, 150, break_long_words=False, break_on_hyphens=False))
    )
