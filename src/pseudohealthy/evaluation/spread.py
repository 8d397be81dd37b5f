"""What repeating the same measurement changes: other noise draws, or other training seeds.

A patient interval says how figures would differ for other patients; it says nothing of another draw or another seed.
The two kinds of repetition are kept apart, too: draws vary one trained model, seeds vary the training itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import Record


@dataclass(frozen=True)
class Spread:
    """One figure over repetitions: mean, standard deviation (n - 1), lowest and highest value; ci95: the mean of the
    repetitions' patient intervals, for comparison; over: what was repeated."""

    metric: str
    method: str
    threshold_source: str | None
    over: Literal["noise draws", "seeds"]
    n: int
    mean: float
    sd: float
    low: float
    high: float
    ci95: tuple[float, float] | None

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.sd:.3f} over {self.n} {self.over} ({self.low:.3f} to {self.high:.3f})"


def spread(evaluations: Sequence[Evaluation], over: Literal["noise draws", "seeds"]) -> list[Spread]:
    """Every figure that all evaluations have, over them.

    Raises `Fault` SPREAD (exit 2) for fewer than two, or where they measured other cases or other settings.
    """
    if len(evaluations) < 2:
        raise Fault("SPREAD", f"{len(evaluations)} evaluation", f"repeat it with other {over}", exit=USAGE)
    tables = [{_key(record): record for record in one.records} for one in evaluations]
    found = []
    for key in [key for key in tables[0] if all(key in table for table in tables)]:
        same = [table[key] for table in tables]
        if len({(r.protocol, r.mask, r.grid, r.postprocessing, r.n_patients, r.n_cases) for r in same}) > 1:
            raise Fault("SPREAD", f"{same[0].metric} was measured on other cases or in another way",
                        "repeat one evaluation, changing nothing else", exit=USAGE)  # fmt: skip
        values = np.asarray([record.value for record in same])
        intervals = [record.ci95 for record in same if record.ci95]
        ci95 = None
        if len(intervals) == len(same):
            ci95 = float(np.mean([low for low, _ in intervals])), float(np.mean([high for _, high in intervals]))
        found.append(
            Spread(
                same[0].metric, same[0].method, same[0].threshold_source, over, len(same), float(values.mean()),
                float(values.std(ddof=1)), float(values.min()), float(values.max()),
                ci95,
            )
        )  # fmt: skip
    return found


def _key(record: Record) -> tuple[str, str, str | None]:
    return record.metric, record.method, record.threshold_source
