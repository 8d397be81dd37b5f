"""Rows of a report: how they are ordered, told and shown."""

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
    status = str(row.get("status") or "ok").lower()
    return status if status in ("ok", "warn") else "failed"


def urgency(row: Mapping[str, Any]) -> tuple[int, float]:
    score = row.get("score")
    usable = isinstance(score, (int, float)) and math.isfinite(score)
    least = -float(score) if usable else math.inf  # type: ignore[arg-type]
    return ("failed", "warn", "ok").index(kind(row)), least


def is_foreign(row: Mapping[str, Any]) -> bool:
    # The latter of older runs.
    return any(code in str(row.get("warnings", "")) for code in ("OUT_OF_DOMAIN", "OOD_"))


def foreign(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first line of a report with scans that its run is not meant for; empty where there is
    none."""
    found = [row for row in rows if is_foreign(row)]
    names = [str(row.get("case_id")) for row in found]
    if not names:
        return ""
    said = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    which = f"{len(names)} of {many(len(rows), 'scan')} {'are' if len(names) > 1 else 'is'}"
    advice = f"; do not trust {'their maps and scores' if len(names) > 1 else 'its map and score'}"
    if all(kind(row) == "failed" for row in found):  # --strict-domain: there are none
        advice = f" and {'were' if len(names) > 1 else 'was'} refused"
    return f"OUT_OF_DOMAIN: {which} unlike what the run was trained on{advice} ({said})"


def columns(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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


def cell(value: Any) -> str:
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
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested provenance as dotted lines."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
