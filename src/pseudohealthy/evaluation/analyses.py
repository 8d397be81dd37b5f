"""What one number does not tell: is health left alone, are intensities kept, does contrast matter, where does it fail.

`healthy_in`: a healthy image must come back unchanged (Wolleb et al. 2022, Fig. 7). `divergence`: intensities of images
and of their twins in healthy tissue (Behrendt et al., cDDPM, Fig. 4). `contrast`: the answer to x -> x^c in marked tissue
(the same, Figs 3 and 4, c from 0.3 to 2). `strata`: figures by site and by lesion size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy import cases
from pseudohealthy.cases import ANOMALOUS, HEALTHY, Manifest
from pseudohealthy.detector import Detector
from pseudohealthy.errors import NO_INPUT, Fault
from pseudohealthy.evaluation import plots
from pseudohealthy.evaluation.protocols import strict
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.evaluation.restoration import TwinErrors
from pseudohealthy.evaluation.runner import batches, evenly, measure, readable
from pseudohealthy.evaluation.sweep import Watched
from pseudohealthy.io.atomic import write_json
from pseudohealthy.progress import Progress, say
from pseudohealthy.restorers.apply import Stack
from pseudohealthy.run import Run, provenance

CONTRASTS = (0.3, 0.7, 1.0, 1.5, 2.0)  # cDDPM, section 4.5
CASES, PLANES = 64, 16  # restored again; of these, under every contrast
SMOOTHING = 0.5  # added to every bin, so that an empty one is rare instead of impossible (Jeffreys)
STRATA = ("image_auroc", "voxel_average_precision_pooled", "dice_oracle_pooled")


@dataclass(frozen=True)
class Divergence:
    """kl: Kullback-Leibler divergence of the first from the second histogram, nats, >= 0, 0 only for equal ones.
    entropy_difference: entropy of the first less that of the second, nats; cDDPM prints it as "KLD" (there from densities,
    larger by one over the bin width). It is 0 for any two histograms with the same heights in another order."""

    kl: float
    entropy_difference: float


def divergence(first: np.ndarray, second: np.ndarray, *, bins: int = 500) -> Divergence:
    """Of two samples (N,), (M,), in ``bins`` (cDDPM: 500) over their common range; a constant sample is one bin."""
    low = min(first.min(), second.min())
    high = max(first.max(), second.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = [np.histogram(sample, edges)[0].astype(np.float64) for sample in (first, second)]
    p, q = ((count + SMOOTHING) / (count.sum() + SMOOTHING * bins) for count in counts)
    entropy = [-float(np.sum(m[m > 0] * np.log(m[m > 0]))) for m in (count / count.sum() for count in counts)]
    return Divergence(float(np.sum(p * np.log(p / q))), entropy[0] - entropy[1])


def healthy_in(found: Sequence[CaseResult]) -> dict[str, np.ndarray]:
    """Mean of the map of each case (N,): "healthy" ones, diseased ones "outside" and "inside" their reference.

    A method that leaves health alone has small values in the first two; cases without a map or reference are left out.
    """
    parts: dict[str, list[float]] = {"healthy": [], "outside": [], "inside": []}
    for case in found:
        if case.map is None or case.truth is None or not len(case.map):
            continue
        truth = np.asarray(case.truth, dtype=bool)
        for name, chosen in (("inside", truth), ("healthy" if case.label == HEALTHY else "outside", ~truth)):
            if chosen.any():
                parts[name].append(float(np.asarray(case.map)[chosen].mean()))
    return {name: np.asarray(values) for name, values in parts.items()}


def with_contrast(planes: Tensor, where: Tensor, factor: float) -> Tensor:
    """Planes (N, C, S, S) in [-1, 1] with x -> x^factor, x in [0, 1], in ``where`` (N, S, S) bool; elsewhere as they are."""
    return torch.where(where[:, None], 2 * ((planes.clamp(-1, 1) + 1) / 2) ** factor - 1, planes)


def contrast(
    detector: Detector,
    planes: Tensor,
    foreground: Tensor,
    where: Tensor,
    places: Sequence[int],
    factors: Sequence[float] = CONTRASTS,
) -> list[dict[str, float]]:
    """Per factor: mean map inside ``where`` and in the rest of the foreground, and the divergence of image and twin
    intensities inside. places: of each plane in its volume, which keys its noise, the same for every factor."""
    rows = []
    for factor in factors:
        changed = with_contrast(planes, where, factor)
        alone = [Stack.whole(changed[i : i + 1], foreground[i : i + 1], [place]) for i, place in enumerate(places)]
        found = detector.apply(alone)
        twins, maps = torch.cat([one.healthy for one in found]), torch.cat([one.maps for one in found])
        rest = foreground & ~where
        apart = divergence(changed.mean(1)[where].numpy(), twins.mean(1)[where].numpy())
        rows.append({
            "contrast": factor, "inside": maps[where].mean().item(),
            "outside": maps[rest].mean().item() if rest.any() else float("nan"), **asdict(apart),
        })  # fmt: skip
    return rows


def strata(found: Sequence[CaseResult], sites: Mapping[str, str]) -> list[dict[str, Any]]:
    """One dict per site (``sites`` by case id; where there are several) and per third of lesion sizes, each with figures
    and intervals of the strict protocol. A size has its diseased cases and all healthy ones."""
    groups: dict[str, list[CaseResult]] = {}
    if len({site for site in sites.values() if site}) > 1:
        for case in found:
            groups.setdefault(f"site {sites.get(case.case_id) or 'unknown'}", []).append(case)
    lesions = [
        (float(np.sum(c.truth)) * (c.voxel_ml or 1.0), c) for c in found if c.truth is not None and np.any(c.truth)
    ]
    if len({size for size, _ in lesions}) >= 3:
        cuts = np.quantile([size for size, _ in lesions], [1 / 3, 2 / 3])
        healthy = [case for case in found if case.label == HEALTHY]
        for index, name in enumerate(("small", "medium", "large")):
            chosen = [case for size, case in lesions if np.searchsorted(cuts, size) == index]
            groups[f"{name} lesions"] = [*chosen, *healthy] if chosen else []
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
            if record.metric in STRATA:
                low, high = record.ci95 or (None, None)
                row |= {record.metric: record.value, f"{record.metric}_low": low, f"{record.metric}_high": high}
        rows.append(row)
    return rows


def analyse(
    run: Run | Path | str,
    data: Path | str | Manifest,
    out: Path | str,
    *,
    device: str = "auto",
    batch: int = 32,
    limit: int = 0,
) -> dict[str, Any]:
    """All of these for a run on test cases (at most `CASES`, or `limit`): analyses.json, strata.csv, healthy_in.png,
    mean.png, histograms.png, contrast.png and analyses.html in ``out``; what the data do not allow is left out."""
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = data if isinstance(data, Manifest) else cases.load(Path(data))
    chosen = evenly(list(manifest.split("test")), min(limit or CASES, CASES))
    detector = Watched(run, device=device, batch=batch, threshold=0.0)
    found: list[CaseResult] = []
    notes: list[str] = []
    tissue: tuple[list[Tensor], list[Tensor]] = ([], [])
    marked: list[tuple[Tensor, Tensor, Tensor, int]] = []
    sums: dict[str, Tensor] = {}
    with Progress("analysing", len(chosen)) as bar:
        for group in batches(readable(chosen, detector, notes, bar), batch):
            found += measure(detector.restorer.name, detector, group, TwinErrors())
            (twins, maps), start = detector.last, 0
            for item in group:
                fitted = item.fitted
                none = torch.zeros_like(fitted.foreground)
                lesion = none if fitted.mask is None else fitted.mask
                inside = fitted.foreground & ~lesion
                tissue[0].append(fitted.planes.mean(1)[inside])
                here = slice(start, start + len(inside))
                tissue[1].append(twins[here].mean(1)[inside])
                pictures = torch.stack([fitted.planes.mean(1), twins[here].mean(1), maps[here] * inside], dim=1)
                add_up(sums, pictures.double().cpu(), lesion.flatten(1).any(1).cpu())
                start += len(inside)
                for row in lesion.flatten(1).any(1).nonzero()[:, 0].tolist()[: PLANES - len(marked)]:
                    marked.append((fitted.planes[row], fitted.foreground[row], lesion[row], row))
            bar.advance(len(group))
    if not found:
        raise Fault(
            "NO_INPUT", f"none of {len(chosen)} test cases could be read", notes[0] if notes else "", exit=NO_INPUT
        )
    images, restored = (torch.cat(parts).numpy() for parts in tissue)
    means = healthy_in(found)
    result: dict[str, Any] = {
        "cases": len(found),
        "healthy_in": {k: float(v.mean()) for k, v in means.items() if len(v)},
    }
    result["histograms"] = asdict(divergence(images, restored))
    if marked:
        planes, foreground, where = (torch.stack(parts) for parts in list(zip(*marked, strict=True))[:3])
        result["contrast"] = contrast(detector, planes, foreground, where, [row for *_, row in marked])
    result["strata"] = strata(found, {case.case_id: case.site for case in chosen})
    plots.strip(Path(out) / "mean.png", mean_pictures(sums), "mean over planes, lesions left out of the map")
    _write(Path(out), result, means, images, restored, notes, detector)
    return result


def add_up(sums: dict[str, Tensor], pictures: Tensor, lesion: Tensor) -> None:
    """Add planes (N, 3, S, S) of input, twin and map to the sums of their kind; ``lesion`` (N,) says which; in the last
    row of a sum is the number of its planes."""
    for name, chosen in (("planes without lesion", ~lesion), ("planes with lesion", lesion)):
        if chosen.any():
            total = torch.cat([pictures[chosen].sum(0), torch.full_like(pictures[0, :1], int(chosen.sum()))])
            sums[name] = sums.get(name, torch.zeros_like(total)) + total


def mean_pictures(sums: dict[str, Tensor]) -> list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """(kind and number, mean input, mean twin, mean map) of each kind of plane: where a method errs whoever the patient."""
    columns = []
    for name, (*pictures, number) in sums.items():
        image, twin, amap = (np.asarray(picture / number) for picture in pictures)
        columns.append((f"{name} (n = {int(number[0, 0])})", image, twin, amap))
    return columns


def _write(
    folder: Path, result: dict[str, Any], means: dict[str, np.ndarray], images: np.ndarray, restored: np.ndarray,
    notes: list[str], detector: Detector,
) -> None:  # fmt: skip
    from pseudohealthy.report.comparison import write_table
    from pseudohealthy.report.page import write_report

    made = {**detector.made(), **provenance()}
    write_json(folder / "analyses.json", {"made": made, **result})
    if result["strata"]:
        write_table(folder / "strata.csv", result["strata"])
    kinds = {"healthy": "healthy cases", "outside": "diseased, outside reference", "inside": "diseased, inside"}
    groups = {f"{kinds[k]} (n = {len(v)})": v for k, v in means.items() if len(v)}
    if groups:
        plots.overlaid(folder / "healthy_in.png", groups, "mean of the anomaly map", "cases")
    apart = result["histograms"]
    title = f"KL divergence {apart['kl']:.4f}; entropy difference {apart['entropy_difference']:+.4f} nats"
    pair = {"images": images, "healthy twins": restored}
    plots.overlaid(folder / "histograms.png", pair, "intensity, -1 to 1", "healthy-tissue pixels", title)
    if rows := result.get("contrast"):
        lines = {name: [row[name] for row in rows] for name in ("inside", "outside")}
        plots.series(folder / "contrast.png", [row["contrast"] for row in rows], lines, "exponent of the marked tissue's "
                     "intensity (1: as it is)", "mean anomaly")  # fmt: skip
    figures = [folder / f"{name}.png" for name in ("healthy_in", "mean", "histograms", "contrast")]
    facts = {"cases": result["cases"], **{f"mean map, {kinds[k]}": v for k, v in result["healthy_in"].items()}}
    page = write_report(folder, title=f"Analyses of {made['run']}", rows=result["strata"], rows_title="Sites and sizes",
                        summary=facts, figures=figures, notes=notes, provenance=made, name="analyses.html")  # fmt: skip
    say(f"analyses: {page}")
