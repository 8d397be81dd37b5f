"""`evaluate --analyses` and `compare --analyses`: health, contrast, conditioning and sites,
drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.counts import many
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.detection.detector import Detector
from pseudohealthy.errors import NO_INPUT, Fault
from pseudohealthy.evaluation.analyses import (
    CASES,
    NOTES,
    PLANES,
    add_up,
    contrast,
    divergence,
    healthy_in,
    mean_pictures,
    strata,
)
from pseudohealthy.evaluation.compare import distinct
from pseudohealthy.evaluation.conditioning import conditioning
from pseudohealthy.evaluation.examples import examples, to_show
from pseudohealthy.evaluation.intensity import Histograms, entries, gathered, intensities, markdown
from pseudohealthy.evaluation.measure import batches, case_results, evenly, readable, stacks_of
from pseudohealthy.evaluation.records import CaseResult
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.progress import Progress, say
from pseudohealthy.report import analysis_plots, plots, sweep_plots
from pseudohealthy.runs.run import Run, provenance


def analyse(
    run: Run | Path | str,
    data: Path | str | Manifest,
    out: Path | str,
    *,
    device: str = "auto",
    batch: int = 32,
    limit: int = 0,
) -> dict[str, Any]:
    """Analyse one run on the test cases of a data set.

    Writes analyses.json, strata.csv, healthy_in.png, mean.png, histograms.png, contrast.png, the
    files of `side_by_side` and analyses.html; what the data do not allow is left out.

    Args:
        run: a run, or where it lies.
        data: a manifest, or where it lies.
        out: folder for the files.
        device: as in `detect`.
        batch: planes restored at once; changes speed and memory only.
        limit: at most so many cases, and never more than `CASES`, evenly spread (0: `CASES`).

    Returns:
        What analyses.json holds.

    Raises:
        Fault: NO_INPUT (exit 3) where no case can be read.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = data if isinstance(data, Manifest) else load(Path(data))
    cases = evenly(list(manifest.split("test")), min(limit or CASES, CASES))
    detector = Detector(run, device=device, batch=batch, threshold=0.0)
    results: list[CaseResult] = []
    notes: list[str] = []
    tissue: tuple[list[Tensor], list[Tensor]] = ([], [])
    marked: list[tuple[Tensor, Tensor, Tensor, int]] = []
    sums: dict[str, Tensor] = {}
    with Progress("analysing", len(cases)) as bar:
        for group in batches(readable(cases, detector, notes, bar), batch):
            applied = detector.apply(stacks_of(detector, group))
            results += case_results(detector.restorer.name, detector, group, applied)
            for item, restoration in zip(group, applied, strict=True):
                fitted = item.fitted
                empty = torch.zeros_like(fitted.foreground)
                lesion = empty if fitted.mask is None else fitted.mask
                inside = fitted.foreground & ~lesion
                tissue[0].append(fitted.planes.mean(1)[inside])
                tissue[1].append(restoration.healthy.mean(1)[inside])
                pictures = torch.stack(
                    [fitted.planes.mean(1), restoration.healthy.mean(1), restoration.maps * inside],
                    dim=1,
                )
                add_up(sums, pictures.double().cpu(), lesion.flatten(1).any(1).cpu())
                for row in (
                    lesion.flatten(1).any(1).nonzero()[:, 0].tolist()[: PLANES - len(marked)]
                ):
                    marked.append((fitted.planes[row], fitted.foreground[row], lesion[row], row))
            bar.advance(len(group))
    if not results:
        raise Fault(
            "NO_INPUT",
            f"none of {many(len(cases), 'test case')} could be read",
            notes[0] if notes else "",
            exit=NO_INPUT,
        )
    images, twins = (torch.cat(parts).numpy() for parts in tissue)
    means = healthy_in(results)
    result: dict[str, Any] = {
        "cases": len(results),
        "healthy_in": {k: float(v.mean()) for k, v in means.items() if len(v)},
    }
    result["histograms"] = asdict(divergence(images, twins))
    if marked:
        planes, foreground, lesions = (
            torch.stack(parts) for parts in list(zip(*marked, strict=True))[:3]
        )
        result["contrast"] = contrast(
            detector, planes, foreground, lesions, [row for *_, row in marked]
        )
    result["strata"] = strata(results, {case.case_id: case.site for case in cases})
    sweep_plots.strip(
        Path(out) / "mean.png", mean_pictures(sums), "mean over planes, lesions left out of the map"
    )
    beside, paths = side_by_side(
        {run.name: detector}, {manifest.root.resolve().name: manifest}, Path(out), limit
    )
    result |= beside
    _write(Path(out), result, means, images, twins, notes, detector, paths)
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
    """Analyse several runs `side_by_side` on the test cases of several data sets.

    Writes analyses.json and analyses.html too; ``compare --analyses``.

    Args:
        runs: runs, or where they lie.
        data: manifests, or where they lie.
        out: folder for the files.
        device: as in `detect`.
        batch: planes restored at once; changes speed and memory only.
        limit: at most so many cases of a data set (0: `CASES`).
    """
    from pseudohealthy.report.page import Cases, Report, write_report

    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    manifests = [item if isinstance(item, Manifest) else load(Path(item)) for item in data]
    sets = dict(zip(distinct([m.root.resolve().name for m in manifests]), manifests, strict=True))
    detectors = [Detector(run, device=device, batch=batch, threshold=0.0) for run in opened]
    by_name = dict(zip(distinct([run.name for run in opened]), detectors, strict=True))
    result, pictures = side_by_side(by_name, sets, Path(out), limit)
    record = {**provenance(), "runs": {name: detector.made() for name, detector in by_name.items()}}
    write_json(Path(out) / "analyses.json", {"made": record, **result})
    rows = [
        {k: v for k, v in row.items() if not k.endswith(("_low", "_high"))}
        for row in result["intensities"]
    ]
    report = Report(
        title="Analyses side by side",
        cases=Cases(rows, "Intensities of healthy tissue"),
        figures=pictures,
        notes=NOTES,
        provenance=record,
    )
    page = write_report(Path(out), report, "analyses.html")
    say(f"analyses: {page}")
    return result


def side_by_side(
    runs: Mapping[str, Detector], sets: Mapping[str, Manifest], folder: Path, limit: int
) -> tuple[dict[str, Any], list[Path]]:
    """Draw cDDPM's figures 3 to 5 for runs by name on data by name.

    Writes intensities.csv, .json, .md and .png; conditioning.png where a run is conditioned;
    examples_oracle.png where cases have a reference (the last two with the data's name, of
    several).

    Returns:
        The figures' numbers, and the pictures.
    """
    from pseudohealthy.io.table import write_table

    result: dict[str, Any] = {"intensities": [], "conditioning": [], "examples_oracle": []}
    by_data: dict[str, Histograms] = {}
    tables: list[str] = []
    paths: list[Path] = []
    for data, manifest in sets.items():
        cases = evenly(list(manifest.split("test")), min(limit or CASES, CASES))
        collected = gathered(cases, list(runs.values()), to_show(cases), [])
        ending = f"_{data}.png" if len(sets) > 1 else ".png"
        rows, histograms = intensities(runs, collected)
        if rows:
            by_data[data] = histograms
            tables.append(markdown(rows, data))
        result["intensities"] += [{"data": data, **row} for row in rows]
        if swapped := conditioning(runs, collected):
            paths.append(analysis_plots.conditioning(folder / f"conditioning{ending}", swapped))
            result["conditioning"] += [
                {"data": data, **entry.row, "conditions": entry.rows} for entry in swapped
            ]
        if by_case := examples(runs, collected.examples):
            paths.append(analysis_plots.examples(folder / f"examples_oracle{ending}", by_case))
            result["examples_oracle"] += [
                {"data": data, **entry.row} for case in by_case for entry in case
            ]
    if by_data:
        paths.insert(0, analysis_plots.intensities(folder / "intensities.png", by_data))
        write_table(folder / "intensities.csv", result["intensities"])
        write_json(folder / "intensities.json", entries(result["intensities"]))
        write_text(folder / "intensities.md", "\n".join(tables))
    return result, paths


def _write(
    folder: Path,
    result: dict[str, Any],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    twins: np.ndarray,
    notes: list[str],
    detector: Detector,
    pictures: list[Path],
) -> None:
    from pseudohealthy.io.table import write_table
    from pseudohealthy.report.page import Cases, Report, write_report

    record = {**detector.made(), **provenance()}
    write_json(folder / "analyses.json", {"made": record, **result})
    if result["strata"]:
        write_table(folder / "strata.csv", result["strata"])
    kinds = {
        "healthy": "healthy cases",
        "outside": "diseased, outside reference",
        "inside": "diseased, inside",
    }
    groups = {f"{kinds[k]} (n = {len(v)})": v for k, v in means.items() if len(v)}
    if groups:
        plots.overlaid(folder / "healthy_in.png", groups, "mean of the anomaly map", "cases")
    difference = result["histograms"]
    title = (
        f"KL divergence {difference['kl']:.4f};"
        f" entropy difference {difference['entropy_difference']:+.4f} nats"
    )
    samples = {"images": images, "healthy twins": twins}
    plots.overlaid(
        folder / "histograms.png", samples, "intensity, -1 to 1", "healthy-tissue pixels", title
    )
    if rows := result.get("contrast"):
        lines = {name: [row[name] for row in rows] for name in ("inside", "outside")}
        plots.series(
            folder / "contrast.png",
            [row["contrast"] for row in rows],
            lines,
            "exponent of the marked tissue's intensity (1: as it is)",
            "mean anomaly",
        )
    figures = [
        *(folder / f"{name}.png" for name in ("healthy_in", "mean", "histograms", "contrast")),
        *pictures,
    ]
    facts = {
        "cases": result["cases"],
        **{f"mean map, {kinds[k]}": v for k, v in result["healthy_in"].items()},
    }
    report = Report(
        title=f"Analyses of {record['run']}",
        cases=Cases(result["strata"], "Sites and sizes"),
        summary=facts,
        figures=figures,
        notes=[*notes, *NOTES],
        provenance=record,
    )
    page = write_report(folder, report, "analyses.html")
    say(f"analyses: {page}")
