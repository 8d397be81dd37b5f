"""Tables that other programs open: no cell runs anything."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pseudohealthy.io.atomic import atomic


def harmless_cell(text: str) -> str:
    """A leading = + - @ (or tab, return) would run as a formula in a spreadsheet: prefix it with
    '."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as CSV, columns in order of appearance; an undefined entry is empty."""
    columns = list(dict.fromkeys(key for row in table for key in row))
    with atomic(path) as tmp, open(tmp, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in table:
            writer.writerow(
                {
                    k: "" if v is None else harmless_cell(v) if isinstance(v, str) else v
                    for k, v in row.items()
                }
            )
    return path
