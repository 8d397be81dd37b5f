"""An evaluation made: records, rows and curves, printed as a table and saved as a folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pseudohealthy.evaluation.records import Record, covered
from pseudohealthy.metrics.curves import Curve
from pseudohealthy.metrics.thresholds import Threshold


@dataclass
class Figure:
    """One figure of one method.

    Args:
        record: the number.
        drawn: its value in every resample, (resamples,); None of a count.
        cases: which cases it is about; equal cases mean equal patients and paired resamples.
    """

    record: Record
    drawn: np.ndarray | None
    cases: tuple[str, ...]


@dataclass
class Evaluation:
    """Everything that one evaluation measured.

    Args:
        records: every figure.
        rows: one dict per case and method.
        notes: what could not be computed and why.
        scores: (score, is anomalous) of the labelled cases by method.
        image_curves: of case scores by method, for plots.
        voxel_curves: of voxels by method, for plots.
        score_thresholds: of case scores by method.
        figures: by method and metric, for differences.
    """

    records: list[Record] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    image_curves: dict[str, Curve] = field(default_factory=dict)
    voxel_curves: dict[str, Curve] = field(default_factory=dict)
    score_thresholds: dict[str, Threshold] = field(default_factory=dict)
    figures: dict[str, dict[str, Figure]] = field(default_factory=dict, repr=False)

    def unmarked(self) -> str:
        """Name the cases without a reference, and so without voxel figures, where others have
        one."""
        rows = {str(row["case_id"]): row.get("reference_voxels") for row in self.rows}
        without = [case for case, voxels in rows.items() if voxels is None]
        if not covered(self.records) or not without:
            return ""
        names = ", ".join(without[:5]) + (
            f" and {len(without) - 5} more" if len(without) > 5 else ""
        )
        return f"no reference mask, so no voxel figures: {names}"
