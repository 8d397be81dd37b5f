"""Analyses beside the figures: health, intensities, contrast, sites and lesion sizes.

`healthy_in`: a healthy image must come back unchanged (Wolleb et al. 2022, Fig. 7). `divergence`:
intensities of images and of their twins in healthy tissue. `contrast`: the answer to x -> x^c in
marked tissue, c from 0.3 to 2. `strata`: figures by site and by lesion size. `side_by_side`:
cDDPM's figures 3 to 5 (Behrendt et al. 2025), of one run or of several: `intensity`,
`conditioning`, `examples`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.detection.detector import Detector
from pseudohealthy.evaluation.intensity import CONTRASTS, entropy, kl, twins_of, with_contrast
from pseudohealthy.evaluation.protocols import strict
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.metrics.table import shown_in

CASES, PLANES = 64, 16  # restored again; of these, under every contrast
NOTES = (
    (
        "histograms are of healthy tissue only, the foreground less the reference; a twin equal to"
        " its image has divergence 0"
    ),
    (
        "intensities are those of each run's own canvas; the contrast of a plane is changed after"
        " it was brought there"
    ),
)


@dataclass(frozen=True)
class Divergence:
    """How far one histogram of intensities is from another.

    Args:
        kl: Kullback-Leibler divergence of the first from the second, nats, >= 0, 0 only for equal
            ones.
        entropy_difference: entropy of the first less that of the second, nats; cDDPM prints it as
            "KLD" (there from densities, larger by one over the bin width). It is 0 for any two
            histograms with the same heights in another order.
    """

    kl: float
    entropy_difference: float


def divergence(first: np.ndarray, second: np.ndarray, *, bins: int = 500) -> Divergence:
    """Compare the histograms of two samples (N,) and (M,) over their common range.

    A constant sample is one bin.

    Args:
        first: a sample.
        second: the sample it is compared with.
        bins: of each histogram; cDDPM takes 500.
    """
    low = min(first.min(), second.min())
    high = max(first.max(), second.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = [np.histogram(sample, edges)[0].astype(np.float64) for sample in (first, second)]
    return Divergence(float(kl(*counts)), float(entropy(counts[0]) - entropy(counts[1])))


def healthy_in(results: Sequence[CaseResult]) -> dict[str, np.ndarray]:
    """Return the mean map value of each case (N,) in "healthy" cases and, of diseased ones,
    "outside" and "inside" their reference.

    A method that leaves health alone has small values in the first two. Cases without a map or
    reference are left out.
    """
    parts: dict[str, list[float]] = {"healthy": [], "outside": [], "inside": []}
    for case in results:
        if case.map is None or case.truth is None or not len(case.map):
            continue
        truth = np.asarray(case.truth, dtype=bool)
        for name, voxels in (
            ("inside", truth),
            ("healthy" if case.label == HEALTHY else "outside", ~truth),
        ):
            if voxels.any():
                parts[name].append(float(np.asarray(case.map)[voxels].mean()))
    return {name: np.asarray(values) for name, values in parts.items()}


def contrast(
    detector: Detector,
    planes: Tensor,
    foreground: Tensor,
    marked: Tensor,
    places: Sequence[int],
    factors: Sequence[float] = CONTRASTS,
) -> list[dict[str, float]]:
    """Measure map and intensities under each contrast of the marked tissue.

    Args:
        detector: what restores and maps.
        planes: (N, C, S, S) in [-1, 1].
        foreground: (N, S, S) bool.
        marked: (N, S, S) bool, the tissue whose contrast is changed.
        places: of each plane in its volume, which keys its noise, the same for every factor.
        factors: exponents of the intensity.

    Returns:
        One row per factor: mean map inside the marked tissue and in the rest of the foreground, and
        the divergence of image and twin intensities inside.
    """
    rows = []
    for factor in factors:
        changed = with_contrast(planes, factor, marked)
        twins, maps = twins_of(detector, changed, foreground, places)
        outside = foreground & ~marked
        difference = divergence(changed.mean(1)[marked].numpy(), twins.mean(1)[marked].numpy())
        rows.append(
            {
                "contrast": factor,
                "inside": maps[marked].mean().item(),
                "outside": maps[outside].mean().item() if outside.any() else float("nan"),
                **asdict(difference),
            }
        )
    return rows


def strata(results: Sequence[CaseResult], sites: Mapping[str, str]) -> list[dict[str, Any]]:
    """Measure the strict protocol on each site and on each third of lesion sizes.

    Args:
        results: of one method.
        sites: by case id; several, or there are no rows of sites.

    Returns:
        One row per stratum, figures with the ends of their intervals. A size has its diseased cases
        and all healthy ones.
    """
    groups: dict[str, list[CaseResult]] = {}
    if len({site for site in sites.values() if site}) > 1:
        for case in results:
            groups.setdefault(f"site {sites.get(case.case_id) or 'unknown'}", []).append(case)
    lesions = [
        (float(np.sum(c.truth)) * (c.voxel_ml or 1.0), c)
        for c in results
        if c.truth is not None and np.any(c.truth)
    ]
    if len({size for size, _ in lesions}) >= 3:
        cuts = np.quantile([size for size, _ in lesions], [1 / 3, 2 / 3])
        healthy = [case for case in results if case.label == HEALTHY]
        for index, name in enumerate(("small", "medium", "large")):
            of_size = [case for size, case in lesions if np.searchsorted(cuts, size) == index]
            groups[f"{name} lesions"] = [*of_size, *healthy] if of_size else []
    rows = []
    for name, group in groups.items():
        if not group:
            continue
        row: dict[str, Any] = {
            "stratum": name,
            "cases": len(group),
            "anomalous": sum(c.label == ANOMALOUS for c in group),
        }
        for record in strict(group).records:
            if not record.against and shown_in(record.metric, "strata"):
                low, high = record.ci95 or (None, None)
                row |= {
                    record.metric: record.value,
                    f"{record.metric}_low": low,
                    f"{record.metric}_high": high,
                }
        rows.append(row)
    return rows


def add_up(sums: dict[str, Tensor], pictures: Tensor, lesion: Tensor) -> None:
    """Add planes of input, twin and map to the sums of planes with and without lesion.

    Args:
        sums: by kind of plane, (4, S, S); the last row is the number of planes.
        pictures: (N, 3, S, S).
        lesion: (N,) bool, which kind each plane is of.
    """
    for name, of_kind in (("planes without lesion", ~lesion), ("planes with lesion", lesion)):
        if of_kind.any():
            total = torch.cat(
                [pictures[of_kind].sum(0), torch.full_like(pictures[0, :1], int(of_kind.sum()))]
            )
            sums[name] = sums.get(name, torch.zeros_like(total)) + total


def mean_pictures(sums: dict[str, Tensor]) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Return (kind and number, mean input, mean twin, mean map) of each kind of plane.

    They show where a method errs whoever the patient.
    """
    columns = []
    for name, (*pictures, number) in sums.items():
        image, twin, amap = (np.asarray(picture / number) for picture in pictures)
        columns.append((f"{name} (n = {int(number[0, 0])})", image, twin, amap))
    return columns
