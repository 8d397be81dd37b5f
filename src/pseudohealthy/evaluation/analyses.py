"""What one number does not tell: is health left alone, are intensities kept, does contrast matter, where does it fail.

`healthy_in`: a healthy image must come back unchanged (Wolleb et al. 2022, Fig. 7). `divergence`: intensities of images
and of their twins in healthy tissue. `contrast`: the answer to x -> x^c in marked tissue, c from 0.3 to 2. `strata`: figures
by site and by lesion size. `side_by_side`: cDDPM's figures 3 to 5 (Behrendt et al. 2025), of one run or of several:
`intensity`, `conditioning`, `examples`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import NO_INPUT, Fault
from pseudohealthy.evaluation.compare import distinct
from pseudohealthy.evaluation.conditioning import conditioning
from pseudohealthy.evaluation.examples import examples, to_show
from pseudohealthy.evaluation.intensity import (
    CONTRASTS,
    Histograms,
    entries,
    entropy,
    gathered,
    intensities,
    kl,
    markdown,
    twins_of,
    with_contrast,
)
from pseudohealthy.evaluation.measure import batches, evenly, measure, readable
from pseudohealthy.evaluation.protocols import strict
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.evaluation.restoration import TwinErrors
from pseudohealthy.evaluation.sweep import Watched
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.progress import Progress, say
from pseudohealthy.report import analysis_plots, plots
from pseudohealthy.runs.run import Run, provenance

CASES, PLANES = 64, 16  # restored again; of these, under every contrast
NOTES = (
    "histograms are of healthy tissue only, the foreground less the reference; a twin equal to its image has divergence 0",
    "intensities are those of each run's own canvas; the contrast of a plane is changed after it was brought there",
)
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
    return Divergence(float(kl(*counts)), float(entropy(counts[0]) - entropy(counts[1])))


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
        changed = with_contrast(planes, factor, where)
        twins, maps = twins_of(detector, changed, foreground, places)
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
    mean.png, histograms.png, contrast.png, the files of `side_by_side` and analyses.html in ``out``; what the data do not
    allow is left out."""
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = data if isinstance(data, Manifest) else load(Path(data))
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
    beside, drawn = side_by_side({run.name: detector}, {manifest.root.resolve().name: manifest}, Path(out), limit)
    result |= beside
    _write(Path(out), result, means, images, restored, notes, detector, drawn)
    return result


def analyse_runs(
    runs: Sequence[Run | Path | str],
    data: Sequence[Path | str | Manifest],
    out: Path | str,
    *,
    device: str = "auto",
    batch: int = 32,
    limit: int = 0,
) -> dict[str, Any]:
    """`side_by_side` of several runs on the test cases of several data sets, with analyses.json and analyses.html;
    ``compare --analyses``. limit: at most so many cases of a data set (0: `CASES`)."""
    from pseudohealthy.report.page import write_report

    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    manifests = [one if isinstance(one, Manifest) else load(Path(one)) for one in data]
    sets = dict(zip(distinct([m.root.resolve().name for m in manifests]), manifests, strict=True))
    detectors = [Detector(run, device=device, batch=batch, threshold=0.0) for run in opened]
    named = dict(zip(distinct([run.name for run in opened]), detectors, strict=True))
    result, pictures = side_by_side(named, sets, Path(out), limit)
    made = {**provenance(), "runs": {name: detector.made() for name, detector in named.items()}}
    write_json(Path(out) / "analyses.json", {"made": made, **result})
    rows = [{k: v for k, v in row.items() if not k.endswith(("_low", "_high"))} for row in result["intensities"]]
    page = write_report(Path(out), title="Analyses side by side", rows=rows, rows_title="Intensities of healthy tissue",
                        figures=pictures, notes=NOTES, provenance=made, name="analyses.html")  # fmt: skip
    say(f"analyses: {page}")
    return result


def side_by_side(
    runs: Mapping[str, Detector], sets: Mapping[str, Manifest], folder: Path, limit: int
) -> tuple[dict[str, Any], list[Path]]:
    """cDDPM's figures 3 to 5 for runs by name on data by name: their figures, and the pictures drawn.

    Writes intensities.csv, .json, .md and .png; conditioning.png where a run is conditioned; examples_oracle.png where cases have a
    reference (the last two with the data's name, of several).
    """
    from pseudohealthy.io.table import write_table

    result: dict[str, Any] = {"intensities": [], "conditioning": [], "examples_oracle": []}
    kept: dict[str, Histograms] = {}
    tables: list[str] = []
    drawn: list[Path] = []
    for data, manifest in sets.items():
        chosen = evenly(list(manifest.split("test")), min(limit or CASES, CASES))
        found = gathered(chosen, list(runs.values()), to_show(chosen), [])
        ending = f"_{data}.png" if len(sets) > 1 else ".png"
        rows, histograms = intensities(runs, found)
        if rows:
            kept[data] = histograms
            tables.append(markdown(rows, data))
        result["intensities"] += [{"data": data, **row} for row in rows]
        if swapped := conditioning(runs, found):
            drawn.append(analysis_plots.conditioning(folder / f"conditioning{ending}", swapped))
            result["conditioning"] += [{"data": data, **one.row, "conditions": one.rows} for one in swapped]
        if shown := examples(runs, found.examples):
            drawn.append(analysis_plots.examples(folder / f"examples_oracle{ending}", shown))
            result["examples_oracle"] += [{"data": data, **one.row} for case in shown for one in case]
    if kept:
        drawn.insert(0, analysis_plots.intensities(folder / "intensities.png", kept))
        write_table(folder / "intensities.csv", result["intensities"])
        write_json(folder / "intensities.json", entries(result["intensities"]))
        write_text(folder / "intensities.md", "\n".join(tables))
    return result, drawn


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
    notes: list[str], detector: Detector, pictures: list[Path],
) -> None:  # fmt: skip
    from pseudohealthy.io.table import write_table
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
    figures = [*(folder / f"{name}.png" for name in ("healthy_in", "mean", "histograms", "contrast")), *pictures]
    facts = {"cases": result["cases"], **{f"mean map, {kinds[k]}": v for k, v in result["healthy_in"].items()}}
    page = write_report(folder, title=f"Analyses of {made['run']}", rows=result["strata"], rows_title="Sites and sizes",
                        summary=facts, figures=figures, notes=[*notes, *NOTES], provenance=made, name="analyses.html")  # fmt: skip
    say(f"analyses: {page}")
