"""`sweep`: a trained run under a grid of its own settings, chosen on validation data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.leaks import refuse_leaks, refuse_trained
from pseudohealthy.evaluation.measure import Readings, evenly
from pseudohealthy.evaluation.sweep import MOST, Plot, Sweep, chosen_by, exemplar, measured, parsed, under
from pseudohealthy.io.output_folder import output_folder
from pseudohealthy.metrics import bootstrap
from pseudohealthy.progress import Progress, say
from pseudohealthy.report import sweep_tables
from pseudohealthy.runs.changes import same_network
from pseudohealthy.runs.run import Run


def sweep(
    run: Run | Path | str,
    data: Path | str | Manifest,
    over: Sequence[str],
    out: Path | str | None = None,
    *,
    split: str = "val",
    protocol: str = "strict",
    metric: str = "",
    plot: Plot = "auto",
    device: str = "auto",
    batch: int = 32,
    allow_leak: bool = False,
    limit: int = 0,
    resamples: int = bootstrap.RESAMPLES,
    overwrite: bool = False,
) -> Sweep:
    """Measure a run under every combination of settings; the command ``sweep``.

    over: "KEY=V1,V2,..." each, KEY in restorer.* or map.*, values as in TOML. split: "val", or "test" to see how much a
    choice on the test data would flatter (an oracle: never a result). protocol: as in `evaluate`; one that tunes a
    threshold on validation cases tunes it on the cases it measures. metric: what the best setting is chosen by (default:
    voxel average precision, else plane or image AUROC, or the protocol's first figure, else false positives in health).
    plot: of two axes, "lines" over the first with one line for each value of the second, or a "heat" map; "auto" takes
    lines for the protocol wolleb, whose figure 4 that is. limit: at most so many cases, evenly spread. The threshold of each setting is the run's quantile of its healthy cases here; none on test.
    Raises `Fault` USAGE (exit 2) for a setting that changes the network or is none, LEAK for patients trained on.
    """
    if split not in ("val", "test"):
        raise Fault("USAGE", f"there is no split '{split}' to choose on", "use val or test", exit=USAGE)
    protocols.find(protocol)
    run = run if isinstance(run, Run) else Run.open(run)
    axes = parsed(over)
    result = Sweep(run.name, split, axes, resamples=resamples, protocol=protocol, plot=plot, going_on=run.going_on)
    places = list(itertools.product(*(range(len(values)) for _, values in axes)))
    if len(places) > MOST:
        raise Fault("USAGE", f"{len(places)} settings", f"sweep at most {MOST} at a time", exit=USAGE)
    for place in places:
        same_network(run.recipe, result.settings(place))
    manifest = data if isinstance(data, Manifest) else load(Path(data))
    chosen = list(manifest.split(split))
    if not chosen:
        raise Fault("NO_CASES", f"the manifest has no {split} case", f"give some cases split = {split}", exit=NO_INPUT)
    result.notes += refuse_trained(run, chosen, allow_leak) if split == "val" else refuse_leaks(run, chosen, allow_leak)
    if split == "test":
        result.notes.append("chosen on test: an oracle choice, which flatters; no result")
    chosen = evenly(chosen, limit)
    with output_folder(out, overwrite=overwrite) as folder:
        groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
        (trained, _), encodings, cases = run.restorer(), Encodings(), Readings(chosen, batch)
        for place in places:
            groups.setdefault(tuple(t for t in result.settings(place) if t.startswith("restorer.")), []).append(place)
        shown = exemplar(chosen)
        with Progress("sweeping", len(groups) * len(chosen)) as bar:
            for group in groups.values():
                restorer = under(run, trained, result.settings(group[0]), encodings)
                measured(result, run, restorer, group, cases, shown, device, bar)
                result.metric = chosen_by(result, metric)  # refused after the first settings, not after the last
        result.records = {place: result.records[place] for place in places}
        result.notes = list(dict.fromkeys(result.notes))
        if folder is not None:
            sweep_tables.save(result, folder, {"data": manifest.root.name, "manifest_sha256": manifest.sha256})
            say(f"report: {folder / 'report.html'}")
        return result
