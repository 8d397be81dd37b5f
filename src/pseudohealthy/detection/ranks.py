"""Where a score stands among those of healthy cases, told with their number: few of them cannot say
much."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pseudohealthy.counts import many


def p_value(below: int, count: int) -> float:
    """(1 + healthy cases that score as high or higher) / (count + 1), the case itself counted among
    them (conformal prediction, Vovk et al. 2005). It is never below 1 / (count + 1), however high
    the score.

    Args:
        below: healthy cases that score lower, 0 to count.
        count: healthy cases, at least 1.
    """
    return (1 + count - below) / (count + 1)


def rank(percentile: float | None, count: int | None, what: str = "healthy scan") -> str:
    """A percentile in words: "above all 4 healthy heads (p <= 0.2)"; empty where there is none.

    Args:
        percentile: share of the healthy cases, the case among them, that score lower: 100 * below /
            (count + 1), %.
        count: healthy cases; None where it was not stored.
        what: one healthy case is called.
    """
    if percentile is None or percentile != percentile:  # NaN: as where there is no score
        return ""
    if not count:
        return f"above {percentile:.0f} % of an unknown number of {what}s"
    below = min(round(percentile * (count + 1) / 100), count)
    p, among = p_value(below, count), many(count, what)
    if below == count:
        return f"above {f'all {among}' if count > 1 else f'the one {what}'} (p <= {p:.2g})"
    return f"above {f'{below:,}' if below else 'none'} of {among} (p = {p:.2g})"


def rank_of(row: Mapping[str, Any], what: str = "healthy scan") -> str:
    """The `rank` of a row of findings.csv."""
    return rank(row.get("healthy_percentile"), row.get("healthy_cases"), what)
