"""Differences of a method to the best control, paired over the same resamples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pseudohealthy.evaluation.evaluation import Evaluation, Figure
from pseudohealthy.evaluation.records import CONTROL, Record, merit
from pseudohealthy.metrics import bootstrap, table


def differences(method: str, evaluation: Evaluation) -> list[Record]:
    """Return the differences of a method to the best control in each metric.

    The best control is picked on these very cases, which favours the control, never the method.
    """
    records = []
    for metric, figure in evaluation.figures[method].items():
        controls = [
            figures for name, figures in evaluation.figures.items() if name.startswith(CONTROL)
        ]
        rivals = [figures[metric] for figures in controls if metric in figures]
        if not table.shown_in(metric, "table") or not rivals:
            continue
        best = max(rivals, key=lambda rival: merit(rival.record))
        if best.cases != figure.cases:
            rival = best.record.method
            evaluation.notes.append(
                f"{method}: {metric} is not compared with {rival}: measured on other cases"
            )
            continue
        records.append(difference(figure, best))
    return records


def difference(figure: Figure, rival: Figure) -> Record:
    """Return ``<metric>_difference``: a figure minus a rival's on the same cases and resamples."""
    ci95, p_value = None, float("nan")
    if figure.record.n_patients > 1 and figure.drawn is not None and rival.drawn is not None:
        ci95, _ = bootstrap.paired_difference(figure.drawn, rival.drawn)
        p_value = bootstrap.two_sided(figure.drawn, rival.drawn)
    return replace(
        figure.record,
        metric=f"{figure.record.metric}_difference",
        value=figure.record.value - rival.record.value,
        ci95=ci95,
        threshold=None,
        against=rival.record.method,
        p_value=p_value if np.isfinite(p_value) else None,
    )


def corrected(differences: Sequence[Record]) -> list[Record]:
    """Correct the p-values for all of them being looked at (Holm 1979)."""
    adjusted = bootstrap.holm(
        [np.nan if record.p_value is None else record.p_value for record in differences]
    )
    return [
        replace(record, p_holm=None if record.p_value is None else p)
        for record, p in zip(differences, adjusted, strict=True)
    ]
