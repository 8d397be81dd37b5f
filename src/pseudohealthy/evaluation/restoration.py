"""Is the twin the healthy image, and does it differ from the image where the lesion is?

The first can be told only where the true healthy image is known: splotched digits, drawn lesions.
Manifests name that image in the column ``twin``; errors to it are in shares of the canvas's range,
on the model's grid, inside the reference (was the anomaly undone?) and in the rest of the
foreground (was anything else touched?), with SSIM, PSNR and perceptual distance over the
foreground. The identity control is what they are before any restoration.

The second needs a reference mask: the l1 ratio, residual inside the lesion over residual in the
rest of the foreground (cDDPM, Behrendt et al. 2025, Table 2). Above 1 the lesion stands out; 1 is
what a blur of everything gives.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch

from pseudohealthy import io
from pseudohealthy.data.manifest import Case
from pseudohealthy.evaluation.records import Record
from pseudohealthy.metrics import bootstrap
from pseudohealthy.metrics.table import METRICS
from pseudohealthy.networks.perceptual import Perceptual
from pseudohealthy.networks.ssim import ssim_map
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.placement import Fitted

HIGHEST_PSNR = 100.0  # dB, of an exact restoration, whose own would be infinite
# metric: (sum, count) among the columns of a patient, which voxels
TWIN = {
    "twin_mae_inside": (0, 1, "reference"),
    "twin_mae_outside": (2, 3, "foreground outside the reference"),
    "twin_ssim": (4, 5, "foreground"),
    "twin_psnr": (6, 7, "foreground"),
    "twin_perceptual": (8, 5, "foreground"),
}


def _table(columns: int):
    return defaultdict(lambda: defaultdict(lambda: np.zeros(columns)))


@dataclass
class TwinErrors:
    """Collects sums per method and patient, and makes records of their ratios."""

    sums: dict[str, dict[str, np.ndarray]] = field(default_factory=lambda: _table(9))
    residuals: dict[str, dict[str, np.ndarray]] = field(default_factory=lambda: _table(4))
    cases: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    diseased: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    perceptual: Perceptual | None = None

    def add(
        self, method: str, case: Case, canvas: Canvas, fitted: Fitted, healthy: torch.Tensor
    ) -> None:
        """Add the twins (D, C, S, S) in [-1, 1] of one case; nothing for a case without a reference
        mask."""
        if fitted.mask is None:
            return
        inside, outside = fitted.mask, fitted.foreground & ~fitted.mask
        if inside.any():
            self.residuals[method][case.patient_id] += _inside_outside(
                healthy - fitted.planes, inside, outside
            )
            self.diseased[method].add(case.case_id)
        cell = case.extra.get("twin", "")
        if not cell:
            return
        truth = canvas.fit(io.read_image(cell, case.root, plane=canvas.plane)).planes
        self.perceptual = self.perceptual or Perceptual()
        whole = fitted.foreground | fitted.mask
        busy = whole.flatten(1).any(1)
        square = ((healthy - truth) / 2).square().mean(1)
        mse = (square * whole).flatten(1).sum(1)[busy] / whole.flatten(1).sum(1)[busy]
        with torch.no_grad():
            similar = ssim_map(healthy, truth).mean(1)[whole].sum()
            far = self.perceptual(healthy, truth)[:, 0][whole].sum()
        of_whole = [float(v) for v in (similar, whole.sum(), psnr(mse).sum(), len(mse), far)]
        self.sums[method][case.patient_id] += [
            *_inside_outside(healthy - truth, inside, outside),
            *of_whole,
        ]
        self.cases[method].add(case.case_id)

    def records(self, postprocessing: str) -> list[Record]:
        """Return `TWIN` of every method, pooled, and l1_ratio."""
        records = []
        for method, patients in self.sums.items():
            table = np.stack(list(patients.values()))
            for name, (top, bottom, mask) in TWIN.items():
                if not table[:, bottom].sum():
                    continue
                resampled = bootstrap.ratio_of_sums(
                    bootstrap.weights(len(table)), table[:, top], table[:, bottom]
                )
                value = float(table[:, top].sum() / table[:, bottom].sum())
                words = postprocessing
                if name == "twin_perceptual" and self.perceptual is not None:
                    words = f"{postprocessing}; {self.perceptual.description}"
                records.append(
                    _record(
                        name,
                        value,
                        resampled,
                        mask,
                        words,
                        method,
                        len(table),
                        len(self.cases[method]),
                    )
                )
        for method, patients in self.residuals.items():
            table = np.stack(list(patients.values()))
            inside, n_inside, outside, n_outside = table.sum(0)
            if not (n_inside and outside):
                continue  # a method that changes nothing has no ratio
            weight = bootstrap.weights(len(table))
            above, below = (
                bootstrap.ratio_of_sums(weight, table[:, i], table[:, i + 1]) for i in (0, 2)
            )
            resampled = np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0)
            value = float(inside / n_inside / (outside / n_outside))
            mask = "reference over foreground outside it"
            counts = (len(table), len(self.diseased[method]))
            records.append(_record("l1_ratio", value, resampled, mask, "none", method, *counts))
        return records


def psnr(mse: torch.Tensor, peak: float = 1.0) -> torch.Tensor:
    """Return the peak signal-to-noise ratio in dB, at most `HIGHEST_PSNR`.

    Args:
        mse: mean squared error.
        peak: the highest value, 1 for shares of the range (AnoDDPM takes the highest of the image
            at hand).
    """
    return (10 * torch.log10(peak**2 / mse)).clamp(max=HIGHEST_PSNR)


def _inside_outside(
    difference: torch.Tensor, inside: torch.Tensor, outside: torch.Tensor
) -> np.ndarray:
    """Return sum and count of |difference| (D, C, S, S), in shares of the range, in two masks (D,
    S, S)."""
    error = difference.abs().mean(1) / 2
    return np.array(
        [float(v) for v in (error[inside].sum(), inside.sum(), error[outside].sum(), outside.sum())]
    )


def _record(
    metric: str,
    value: float,
    resampled: np.ndarray,
    mask: str,
    words: str,
    method: str,
    patients: int,
    cases: int,
) -> Record:
    return Record(
        metric=metric,
        value=value,
        ci95=bootstrap.percentile(resampled) if patients > 1 else None,
        unit=METRICS[metric].unit,
        protocol="strict",
        threshold_source=None,
        mask=mask,
        grid="model",
        postprocessing=words,
        n_patients=patients,
        n_cases=cases,
        prevalence=None,
        method=method,
    )


def sentences(records: list[Record]) -> list[str]:
    """Say the records in words, for the notes under a table."""
    inside = {r.method: r for r in records if r.metric == "twin_mae_inside"}
    outside = {r.method: r for r in records if r.metric == "twin_mae_outside"}
    ratios = {r.method: r for r in records if r.metric == "l1_ratio"}
    unrestored = inside.get("control: identity")
    lines = []
    for method, record in inside.items():
        if method.startswith("control:"):
            continue
        was = f", {unrestored.value:.3f} before restoration" if unrestored else ""
        lines.append(
            f"{method}: mean absolute error to the true healthy image {record.value:.3f} inside the"
            f" reference{was}, {outside[method].value:.3f} in the rest of the foreground (shares of"
            " the canvas's range)"
        )
    for method, record in ratios.items():
        if not method.startswith("control:"):
            lines.append(
                f"{method}: residual {record.value:.2f} times as large in the lesion as in the rest"
                " of the foreground"
            )
    return lines
