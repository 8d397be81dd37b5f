"""Is the twin the healthy image? Only for cases whose true healthy image is known: splotched digits, drawn lesions.

Manifests name that image in the column ``twin``. The mean absolute error to it, in shares of the canvas's range, is taken
inside the reference mask (was the anomaly undone?) and in the rest of the foreground (was anything else touched?), on the
model's grid. The identity control is the error before any restoration.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch

from pseudohealthy import io
from pseudohealthy.canvas import Canvas, Fitted
from pseudohealthy.cases import Case
from pseudohealthy.evaluation import bootstrap
from pseudohealthy.evaluation.records import Record


@dataclass
class TwinErrors:
    """Collects sums of absolute errors per method and patient, and makes records of their means."""

    sums: dict[str, dict[str, np.ndarray]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(lambda: np.zeros(4)))
    )
    cases: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, method: str, case: Case, canvas: Canvas, fitted: Fitted, healthy: torch.Tensor) -> None:
        """One case: twins (D, C, S, S) in [-1, 1]. Does nothing where the manifest names no true twin."""
        cell = case.extra.get("twin", "")
        if not cell or fitted.mask is None:
            return
        truth = canvas.fit(io.read_image(cell, case.root)).planes
        error = (healthy - truth).abs().mean(1) / 2
        inside, outside = fitted.mask, fitted.foreground & ~fitted.mask
        parts = [error[inside].sum(), inside.sum(), error[outside].sum(), outside.sum()]
        self.sums[method][case.patient_id] += np.array([float(v) for v in parts])
        self.cases[method].add(case.case_id)

    def records(self, postprocessing: str) -> list[Record]:
        """twin_mae_inside and twin_mae_outside of every method, pooled over pixels, with patient intervals. Lower is better."""
        found = []
        for method, patients in self.sums.items():
            table = np.stack(list(patients.values()))
            weights = bootstrap.weights(len(table))
            for column, name in ((0, "twin_mae_inside"), (2, "twin_mae_outside")):
                error, count = table[:, column], table[:, column + 1]
                drawn = bootstrap.ratio_of_sums(weights, error, count)
                found.append(
                    Record(
                        metric=name,
                        value=float(error.sum() / count.sum()),
                        ci95=bootstrap.percentile(drawn) if len(table) > 1 else None,
                        unit="voxel",
                        protocol="strict",
                        threshold_source=None,
                        mask="reference" if column == 0 else "foreground outside the reference",
                        grid="model",
                        postprocessing=postprocessing,
                        n_patients=len(table),
                        n_cases=len(self.cases[method]),
                        prevalence=None,
                        method=method,
                    )
                )
        return found


def sentences(records: list[Record]) -> list[str]:
    """The records in words, for the notes under a table."""
    inside = {r.method: r for r in records if r.metric == "twin_mae_inside"}
    outside = {r.method: r for r in records if r.metric == "twin_mae_outside"}
    before = inside.get("control: identity")
    lines = []
    for method, record in inside.items():
        if method.startswith("control:"):
            continue
        was = f", {before.value:.3f} before restoration" if before else ""
        lines.append(
            f"{method}: mean absolute error to the true healthy image {record.value:.3f} inside the reference{was}, "
            f"{outside[method].value:.3f} in the rest of the foreground (shares of the canvas's range)"
        )
    return lines
