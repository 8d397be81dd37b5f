"""`sweep`: a trained run under a grid of its own settings, chosen on validation data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from pseudohealthy.data.given import manifest_of
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.diffusion.encoding_cache import Encodings
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.evaluation import protocols
from pseudohealthy.evaluation.leaks import refuse_leaks, refuse_trained
from pseudohealthy.evaluation.measure import Readings, evenly
from pseudohealthy.evaluation.sweep import MOST, Plot, chosen_by, exemplar, measured, parsed, under
from pseudohealthy.evaluation.sweep import Sweep as Swept
from pseudohealthy.io.output_folder import output_folder
from pseudohealthy.metrics import bootstrap
from pseudohealthy.progress import Progress, say
from pseudohealthy.report import sweep_tables
from pseudohealthy.runs.changes import same_network
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.request import verb


@dataclass(frozen=True)
class Sweep:
    """Measure a run under every combination of settings; the command ``sweep``.

    Args:
        run: a run, or where it lies.
        data: a manifest, where it lies, or images (see `data.given.manifest`).
        over: "KEY=V1,V2,..." each, KEY in restorer.* or map.*, values as in TOML.
        out: folder for table, plots and report; None writes nothing.
        split: "val", or "test" to see how much a choice on the test data would flatter (an oracle:
            never a result).
        protocol: as in `evaluate`; one that tunes a threshold on validation cases tunes it on the
            cases it measures.
        metric: what the best setting is chosen by (default: voxel average precision, else plane or
            image AUROC, or the protocol's first figure, else false positives in health).
        plot: of two axes, "lines" over the first with one line for each value of the second, or a
            "heat" map; "auto" takes lines for the protocol wolleb, whose figure 4 that is.
        device: as in `detect`.
        batch: planes restored at once; changes speed and memory only.
        allow_leak: also patients the run was trained on, else Fault LEAK (exit 2).
        limit: at most so many cases, evenly spread (0: all).
        resamples: of the patient bootstrap.
        overwrite: write into `out` although something lies there.

    The threshold of each setting is the run's quantile of its healthy cases here; none on test.
    Raises `Fault` USAGE (exit 2) for a setting that changes the network or is none.
    """

    run: Run | Path | str
    data: Any
    over: Sequence[str]
    out: Path | str | None = None
    _: KW_ONLY
    split: str = "val"
    protocol: str = "strict"
    metric: str = ""
    plot: Plot = "auto"
    device: str = "auto"
    batch: int = 32
    allow_leak: bool = False
    limit: int = 0
    resamples: int = bootstrap.RESAMPLES
    overwrite: bool = False

    def __call__(self) -> Swept:
        if self.split not in ("val", "test"):
            message = f"there is no split '{self.split}' to choose on"
            raise Fault("USAGE", message, "use val or test", exit=USAGE)
        protocols.find(self.protocol)
        run = self.run if isinstance(self.run, Run) else Run.open(self.run)
        result = Swept(
            run.name,
            self.split,
            parsed(self.over),
            resamples=self.resamples,
            protocol=self.protocol,
            plot=self.plot,
            going_on=run.going_on,
        )
        places = list(itertools.product(*(range(len(values)) for _, values in result.axes)))
        if len(places) > MOST:
            raise Fault(
                "USAGE", f"{len(places)} settings", f"sweep at most {MOST} at a time", exit=USAGE
            )
        for place in places:
            same_network(run.recipe, result.settings(place))
        manifest = manifest_of(self.data)
        case_list = self.chosen(run, manifest, result)
        with output_folder(self.out, overwrite=self.overwrite) as folder:
            groups: dict[tuple[str, ...], list[tuple[int, ...]]] = {}
            (trained, _) = run.restorer()
            encodings = Encodings()
            cases = Readings(case_list, self.batch)
            for place in places:
                restoring = (
                    text for text in result.settings(place) if text.startswith("restorer.")
                )
                groups.setdefault(tuple(restoring), []).append(place)
            exemplar_id = exemplar(case_list)
            with Progress("sweeping", len(groups) * len(case_list)) as bar:
                for group in groups.values():
                    restorer = under(run, trained, result.settings(group[0]), encodings)
                    measured(result, run, restorer, group, cases, exemplar_id, self.device, bar)
                    # Refused after the first settings, not the last.
                    result.metric = chosen_by(result, self.metric)
            result.records = {place: result.records[place] for place in places}
            result.notes = list(dict.fromkeys(result.notes))
            if folder is not None:
                sweep_tables.save(
                    result, folder, {"data": manifest.root.name, "manifest_sha256": manifest.sha256}
                )
                say(f"report: {folder / 'report.html'}")
            return result

    def chosen(self, run: Run, manifest: Manifest, result: Swept) -> list[Case]:
        """Return the cases that are measured.

        What is known of them already, and that a choice on test flatters, is noted.
        """
        cases = list(manifest.split(self.split))
        if not cases:
            message = f"the manifest has no {self.split} case"
            cure = f"give some cases split = {self.split}"
            raise Fault("NO_CASES", message, cure, exit=NO_INPUT)
        refuse = refuse_trained if self.split == "val" else refuse_leaks
        result.notes += refuse(run, cases, self.allow_leak)
        if self.split == "test":
            result.notes.append("chosen on test: an oracle choice, which flatters; no result")
        return evenly(cases, self.limit)


sweep = verb(Sweep)
