"""A small SVG histogram of one method's scores, behind it those of healthy validation cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pseudohealthy import design

VALIDATION = "healthy validation"


GROUPS = (
    (VALIDATION, VALIDATION, design.tokens("light")["quiet"]),
    (0, "healthy", design.tokens("light")["healthy"]),
    (1, "anomalous", design.tokens("light")["anomalous"]),
    (None, "cases", design.tokens("light")["healthy"]),
)


def histogram(
    rows: Sequence[Mapping[str, Any]], validation: Sequence[float] = ()
) -> dict[str, Any] | None:
    """Return the geometry of a small SVG histogram of the scores of one method.

    None for fewer than two scores, no case, or several methods.

    Args:
        rows: of cases.
        validation: scores of healthy validation cases, drawn behind.
    """
    scored_rows = [
        r for r in rows if isinstance(r.get("score"), (int, float)) and math.isfinite(r["score"])
    ]
    if (
        not scored_rows
        or len(scored_rows) + len(validation) < 2
        or len({row.get("method") for row in scored_rows}) > 1
    ):
        return None
    scored_rows += [
        {"score": float(score), "label": VALIDATION} for score in validation if math.isfinite(score)
    ]
    bins = int(np.clip(2 * math.sqrt(len(scored_rows)), 8, 30))
    values = np.asarray([row["score"] for row in scored_rows], dtype=np.float64)
    edges = (
        np.linspace(values.min(), values.max() or 1.0, bins + 1)
        if np.ptp(values)
        else values[0] + np.linspace(-1, 1, bins + 1)
    )
    counts = {
        label: np.histogram([r["score"] for r in scored_rows if r.get("label") == label], edges)[0]
        for label, _, _ in GROUPS
    }
    highest = max(int(count.max()) for count in counts.values())
    left, right, top, base = 40.0, 600.0, 10.0, 190.0
    step = (right - left) / bins
    rectangles, legend = [], []
    for label, name, colour in GROUPS:
        if not counts[label].any():
            continue
        legend.append({"name": name, "colour": colour, "count": int(counts[label].sum())})
        for index in np.flatnonzero(counts[label]):
            height = (base - top) * counts[label][index] / highest
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
        "most": highest,
        "rectangles": rectangles,
        "legend": legend,
        "ticks": ticks,
    }
