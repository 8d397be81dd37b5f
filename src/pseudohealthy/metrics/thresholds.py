"""Thresholds with a source.

Dice at an oracle threshold is an upper bound; Dice at a quantile of healthy validation voxels is
what a user will get.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.errors import BAD_MODEL, USAGE, Fault
from pseudohealthy.metrics.curves import curve

SOURCES = ("healthy-quantile", "validation", "otsu", "oracle", "given")


@dataclass(frozen=True)
class Threshold:
    """Called anomalous where ``score > value``.

    Args:
        value: the threshold.
        source: one of `SOURCES`.
        detail: what it was computed from (quantile, n_patients, n_values, ...), JSON-able.
    """

    value: float
    source: str
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise Fault(
                "THRESHOLD_SOURCE",
                f"threshold source {self.source!r}",
                f"use one of {', '.join(SOURCES)}",
                exit=USAGE,
            )
        if not np.isfinite(self.value):
            raise Fault(
                "NONFINITE_THRESHOLD",
                f"the threshold is {self.value}",
                "give a finite number",
                exit=USAGE,
            )

    def __str__(self) -> str:
        quantile, patients = self.detail.get("quantile"), self.detail.get("n_patients")
        facts = [self.source if quantile is None else f"{self.source} {quantile:g}"]
        if patients is not None:
            facts.append(many(patients, "patient"))
        return f"{self.value:.4g} ({', '.join(facts)})"

    def as_dict(self) -> dict[str, Any]:
        """Return what ``threshold.json`` holds."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Threshold:
        """Read an entry of ``threshold.json``.

        Raises:
            Fault: THRESHOLD_FILE (exit 5) where it lacks its value or source.
        """
        try:
            return cls(float(entry["value"]), str(entry["source"]), dict(entry.get("detail", {})))
        except (KeyError, TypeError, ValueError) as error:
            raise Fault(
                "THRESHOLD_FILE",
                "a stored threshold lacks its value or source",
                "train again",
                exit=BAD_MODEL,
            ) from error


def observed_quantile(values: np.ndarray, q: float) -> float:
    """Return the observed value that at most 1 - q of the values (N,), N > 0, exceed.

    It is never an interpolated one.
    """
    return float(np.quantile(values, q, method="higher"))


def healthy_quantile(values: np.ndarray, q: float, *, n_patients: int | None = None) -> Threshold:
    """Return the ``q`` quantile of scores of healthy validation voxels, planes or cases.

    No anomaly is needed. The next observed value above is taken, never an interpolated one, so at
    most 1 - q of the healthy values lie above it.

    Args:
        values: (N,).
        q: 0..1.
        n_patients: how many patients the values come from.

    Raises:
        Fault: for no values, or values that are not finite.
    """
    if not 0 <= q <= 1:
        raise Fault(
            "QUANTILE",
            f"quantile {q:g} is outside 0..1",
            "give a fraction such as 0.99",
            exit=USAGE,
        )
    values = _finite(values)
    detail: dict[str, Any] = {"quantile": float(q), "n_values": int(values.size)}
    if n_patients is not None:
        detail["n_patients"] = int(n_patients)
    return Threshold(observed_quantile(values, q), "healthy-quantile", detail)


def validation(
    scores: np.ndarray, labels: np.ndarray, *, n_patients: int | None = None
) -> Threshold:
    """Return the threshold of highest pooled Dice on labelled *validation* patients.

    It is searched exactly over all scores.
    """
    dice, value = curve(scores, labels).best_dice()
    detail: dict[str, Any] = {"dice": dice, "n_values": int(np.size(scores))}
    if n_patients is not None:
        detail["n_patients"] = int(n_patients)
    return Threshold(value, "validation", detail)


def otsu(values: np.ndarray) -> Threshold:
    """Return Otsu's threshold of one map (Otsu 1979; used per image by Wolleb et al. 2022).

    It always splits, so it finds "something" in a healthy image too. A constant map gives its
    constant: nothing above.
    """
    values, bins = _finite(values), 256
    low, high = float(values.min()), float(values.max())
    detail = {"bins": bins, "n_values": int(values.size)}
    if low == high:
        return Threshold(low, "otsu", detail)
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = values.size - below
    sums = np.cumsum(counts * centres)
    between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return Threshold(float(centres[int(np.argmax(between))]), "otsu", detail)


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values).ravel()
    if not values.size:
        raise Fault("NO_VALUES", "no values to take a threshold from", "give validation cases")
    if not np.isfinite(values).all():
        raise Fault(
            "NONFINITE_SCORE",
            "scores are not all finite",
            "check the restored images",
            exit=BAD_MODEL,
        )
    return values
