"""`evaluate --analyses` and `compare --analyses`: what a run does to health, contrast, conditioning
and sites, drawn."""

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
    """All of these for a run on test cases (at most `CASES`, or `limit`): analyses.json,
    strata.csv, healthy_in.png, mean.png, histograms.png, contrast.png, the files of `side_by_side`
    and analyses.html in ``out``; what the data do not allow is left out."""
    run = run if isinstance(run, Run) else Run.open(run)
    manifest = data if isinstance(data, Manifest) else load(Path(data))
    chosen = evenly(list(manifest.split("test")), min(limit or CASES, CASES))
    detector = Detector(run, device=device, batch=batch, threshold=0.0)
    found: list[CaseResult] = []
    notes: list[str] = []
    tissue: tuple[list[Tensor], list[Tensor]] = ([], [])
    marked: list[tuple[Tensor, Tensor, Tensor, int]] = []
    sums: dict[str, Tensor] = {}
    with Progress("analysing", len(chosen)) as bar:
        for group in batches(readable(chosen, detector, notes, bar), batch):
            said = detector.apply(stacks_of(detector, group))
            found += case_results(detector.restorer.name, detector, group, said)
            for item, one in zip(group, said, strict=True):
                fitted = item.fitted
                none = torch.zeros_like(fitted.foreground)
                lesion = none if fitted.mask is None else fitted.mask
                inside = fitted.foreground & ~lesion
                tissue[0].append(fitted.planes.mean(1)[inside])
                tissue[1].append(one.healthy.mean(1)[inside])
                pictures = torch.stack(
                    [fitted.planes.mean(1), one.healthy.mean(1), one.maps * inside], dim=1
                )
                add_up(sums, pictures.double().cpu(), lesion.flatten(1).any(1).cpu())
                for row in (
                    lesion.flatten(1).any(1).nonzero()[:, 0].tolist()[: PLANES - len(marked)]
                ):
                    marked.append((fitted.planes[row], fitted.foreground[row], lesion[row], row))
            bar.advance(len(group))
    if not found:
        raise Fault(
            "NO_INPUT",
            f"none of {many(len(chosen), 'test case')} could be read",
            notes[0] if notes else "",
            exit=NO_INPUT,
        )
    images, restored = (torch.cat(parts).numpy() for parts in tissue)
    means = healthy_in(found)
    result: dict[str, Any] = {
        "cases": len(found),
        "healthy_in": {k: float(v.mean()) for k, v in means.items() if len(v)},
    }
    result["histograms"] = asdict(divergence(images, restored))
    if marked:
        planes, foreground, where = (
            torch.stack(parts) for parts in list(zip(*marked, strict=True))[:3]
        )
        result["contrast"] = contrast(
            detector, planes, foreground, where, [row for *_, row in marked]
        )
    result["strata"] = strata(found, {case.case_id: case.site for case in chosen})
    sweep_plots.strip(
        Path(out) / "mean.png", mean_pictures(sums), "mean over planes, lesions left out of the map"
    )
    beside, drawn = side_by_side(
        {run.name: detector}, {manifest.root.resolve().name: manifest}, Path(out), limit
    )
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
    """`side_by_side` of several runs on the test cases of several data sets, with analyses.json and
    analyses.html; ``compare --analyses``. limit: at most so many cases of a data set (0:
    `CASES`)."""
    from pseudohealthy.report.page import Cases, Report, write_report

    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    manifests = [one if isinstance(one, Manifest) else load(Path(one)) for one in data]
    sets = dict(zip(distinct([m.root.resolve().name for m in manifests]), manifests, strict=True))
    detectors = [Detector(run, device=device, batch=batch, threshold=0.0) for run in opened]
    named = dict(zip(distinct([run.name for run in opened]), detectors, strict=True))
    result, pictures = side_by_side(named, sets, Path(out), limit)
    made = {**provenance(), "runs": {name: detector.made() for name, detector in named.items()}}
    write_json(Path(out) / "analyses.json", {"made": made, **result})
    rows = [
        {k: v for k, v in row.items() if not k.endswith(("_low", "_high"))}
        for row in result["intensities"]
    ]
    report = Report(
        title="Analyses side by side",
        cases=Cases(rows, "Intensities of healthy tissue"),
        figures=pictures,
        notes=NOTES,
        provenance=made,
    )
    page = write_report(Path(out), report, "analyses.html")
    say(f"analyses: {page}")
    return result


def side_by_side(
    runs: Mapping[str, Detector], sets: Mapping[str, Manifest], folder: Path, limit: int
) -> tuple[dict[str, Any], list[Path]]:
    """cDDPM's figures 3 to 5 for runs by name on data by name: their figures, and the pictures
    drawn.

    Writes intensities.csv, .json, .md and .png; conditioning.png where a run is conditioned;
    examples_oracle.png where cases have a reference (the last two with the data's name, of
    several).
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
            result["conditioning"] += [
                {"data": data, **one.row, "conditions": one.rows} for one in swapped
            ]
        if shown := examples(runs, found.examples):
            drawn.append(analysis_plots.examples(folder / f"examples_oracle{ending}", shown))
            result["examples_oracle"] += [
                {"data": data, **one.row} for case in shown for one in case
            ]
    if kept:
        drawn.insert(0, analysis_plots.intensities(folder / "intensities.png", kept))
        write_table(folder / "intensities.csv", result["intensities"])
        write_json(folder / "intensities.json", entries(result["intensities"]))
        write_text(folder / "intensities.md", "\n".join(tables))
    return result, drawn


def _write(
    folder: Path,
    result: dict[str, Any],
    means: dict[str, np.ndarray],
    images: np.ndarray,
    restored: np.ndarray,
    notes: list[str],
    detector: Detector,
    pictures: list[Path],
) -> None:
    from pseudohealthy.io.table import write_table
    from pseudohealthy.report.page import Cases, Report, write_report

    made = {**detector.made(), **provenance()}
    write_json(folder / "analyses.json", {"made": made, **result})
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
    apart = result["histograms"]
    title = (
        f"KL divergence {apart['kl']:.4f}; entropy difference {apart['entropy_difference']:+.4f}"
        " nats"
    )
    pair = {"images": images, "healthy twins": restored}
    plots.overlaid(
        folder / "histograms.png", pair, "intensity, -1 to 1", "healthy-tissue pixels", title
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
        title=f"Analyses of {made['run']}",
        cases=Cases(result["strata"], "Sites and sizes"),
        summary=facts,
        figures=figures,
        notes=[*notes, *NOTES],
        provenance=made,
    )
    page = write_report(folder, report, "analyses.html")
    say(f"analyses: {page}")
