"""Rows of a report: their order, their words and their cells."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pseudohealthy.counts import many

RANK = "healthy_percentile"


# Of columns.
HINTS = {
    RANK: (
        "healthy validation cases that score lower; p = (1 + those that score as high or higher) /"
        " (their number + 1)"
    )
}


def kind(row: Mapping[str, Any]) -> str:
    """Return the status of a row: ok, warn or failed."""
    status = str(row.get("status") or "ok").lower()
    return status if status in ("ok", "warn") else "failed"


def urgency(row: Mapping[str, Any]) -> tuple[int, float]:
    """Return what rows are sorted by: failed ones, warnings, then by falling score."""
    score = row.get("score")
    usable = isinstance(score, (int, float)) and math.isfinite(score)
    rank = -float(score) if usable else math.inf  # type: ignore[arg-type]
    return ("failed", "warn", "ok").index(kind(row)), rank


def is_foreign(row: Mapping[str, Any]) -> bool:
    # The latter of older runs.
    """Return whether the row's scan is unlike those that its run is meant for."""
    return any(code in str(row.get("warnings", "")) for code in ("OUT_OF_DOMAIN", "OOD_"))


def foreign(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the first line of a report with scans that its run is not meant for; empty without
    them."""
    outside = [row for row in rows if is_foreign(row)]
    names = [str(row.get("case_id")) for row in outside]
    if not names:
        return ""
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    subject = f"{len(names)} of {many(len(rows), 'scan')} {'are' if len(names) > 1 else 'is'}"
    advice = f"; do not trust {'their maps and scores' if len(names) > 1 else 'its map and score'}"
    if all(kind(row) == "failed" for row in outside):  # --strict-domain: there are none
        advice = f" and {'were' if len(names) > 1 else 'was'} refused"
    return f"OUT_OF_DOMAIN: {subject} unlike what the run was trained on{advice} ({listed})"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describe every column that has a value somewhere, in the order of the rows' keys.

    The number of healthy cases stands in the words of the percentile.
    """
    names = dict.fromkeys(
        name for row in rows for name in row if name != "healthy_cases" or RANK not in row
    )
    described = []
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None and row.get(name) != ""]
        if values:
            numeric = name != RANK and all(
                isinstance(value, (int, float, np.number)) for value in values
            )
            described.append(
                {
                    "name": name,
                    "numeric": numeric,
                    "rank": name == RANK,
                    "hint": HINTS.get(name, ""),
                }
            )
    return described


def cell(value: Any) -> str:
    """Write a value as a cell shows it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def raw(value: Any) -> str:
    """Write a value as the page sorts it."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested provenance as dotted lines."""
    lines: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines |= flat(value, f"{prefix}{name}.")
        else:
            lines[f"{prefix}{name}"] = value
    return lines
