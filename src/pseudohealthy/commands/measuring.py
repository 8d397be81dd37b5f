"""How good is a run: evaluate, compare, sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Arg
from pseudohealthy.errors import SOME_FAILED

RunFolder = Annotated[Path, Arg(positional=True, metavar="RUN", kind="run")]
Data = Annotated[Path, Arg(metavar="DIR", kind="data")]
Out = Annotated[Path, Arg(metavar="DIR", kind="out")]
Batch = Annotated[int, Arg(least=1)]
Limit = Annotated[int, Arg(least=1)]
Protocol = Annotated[str, Arg(metavar="NAME")]


@dataclass(kw_only=True)
class Evaluate(Command):
    """Measure RUN on the test split of --data, beside the trivial controls, with intervals over
    patients."""

    run_folder: RunFolder
    """what is measured"""
    data: Data
    """what `prepare` wrote, a manifest CSV, or a folder with test/good, test/bad, masks/"""
    out: Out
    """folder for figures and report"""
    protocol: Protocol = "strict"
    """strict, ct, boxes, or as published by others: wolleb, behrendt, thor, thor-wrist, each also
    NAME:published with the defects of its code"""
    batch: Batch = 32
    """planes restored at once; changes speed and memory only"""
    limit: Limit = 0
    """at most so many test cases, evenly spread"""
    allow_leak: bool = False
    """also evaluate patients the run was trained on; every figure is then optimistic"""
    weights: Annotated[str, Arg(metavar="WHICH")] = ""
    """which of the run's weights: best_model, best_model_loss, last, or a file of the same recipe;
    default: best_model, of a run that has none last"""
    analyses: bool = False
    """also: are healthy images left alone, intensities and contrast, conditioning, cases, sites and
    sizes (analyses.html)"""
    resample_mask: bool = False
    """read masks on another grid at the nearest voxel in mm instead of refusing their cases; each
    one is named"""
    overwrite: bool = False
    """write into --out although something lies there"""

    def run(self) -> int:
        from pseudohealthy.report import evaluation_tables, terminal
        from pseudohealthy.runs.run import Run
        from pseudohealthy.workflows.evaluate import evaluate

        run = replace(Run.open(self.run_folder), which=self.weights)
        result = evaluate(
            run,
            self.data,
            self.out,
            protocol=self.protocol,
            device=self.device,
            batch=self.batch,
            limit=self.limit,
            allow_leak=self.allow_leak,
            overwrite=self.overwrite,
            resample_mask=self.resample_mask,
        )
        if self.analyses:
            from pseudohealthy.workflows.analyse import analyse

            analyse(
                run, self.data, self.out, device=self.device, batch=self.batch, limit=self.limit
            )
        records = [record.as_dict() for record in result.records]
        self.show(records, terminal.text(evaluation_tables.table(result)))
        return SOME_FAILED if any(note.startswith("error[") for note in result.notes) else 0


@dataclass(kw_only=True)
class Compare(Command):
    """Measure RUN... on the same cases and voxels of each --data, beside the trivial controls, with
    paired intervals."""

    runs: Annotated[tuple[Path, ...], Arg(positional=True, metavar="RUN", kind="run")]
    """what is compared"""
    data: Annotated[tuple[Path, ...], Arg(metavar="DIR", kind="data")]
    """data to compare on; may be repeated"""
    out: Out
    """folder for figures and report"""
    protocol: Protocol = "strict"
    """strict, ct, boxes, or as published by others: wolleb, behrendt, thor, thor-wrist, each also
    NAME:published with the defects of its code"""
    batch: Batch = 32
    """planes restored at once; changes speed and memory only"""
    limit: Limit = 0
    """at most so many test cases of each data set, evenly spread"""
    case: Annotated[str, Arg(metavar="NAME")] = ""
    """the test case that panel.png shows by all runs; default: the one with the largest
    reference"""
    allow_leak: bool = False
    """also patients a run was trained on; every figure is then optimistic"""
    analyses: bool = False
    """also, of all runs side by side: intensities and contrast, conditioning, cases
    (analyses.html)"""
    overwrite: bool = False
    """write into --out although something lies there"""

    def run(self) -> int:
        from pseudohealthy.report import terminal
        from pseudohealthy.report.comparison_tables import printed
        from pseudohealthy.workflows.compare import compare

        result = compare(
            self.runs,
            self.data,
            self.out,
            protocol=self.protocol,
            device=self.device,
            batch=self.batch,
            limit=self.limit,
            case=self.case,
            allow_leak=self.allow_leak,
            overwrite=self.overwrite,
        )
        if self.analyses:
            from pseudohealthy.workflows.analyse import analyse_runs

            analyse_runs(
                self.runs,
                self.data,
                self.out,
                device=self.device,
                batch=self.batch,
                limit=self.limit,
            )
        records = [
            {"data": k, **r.as_dict()} for k, e in result.evaluations.items() for r in e.records
        ]
        self.show(records, terminal.text(printed(result)))
        return 0


@dataclass(kw_only=True)
class Sweep(Command):
    """Measure RUN under a grid of its own settings on the validation cases of --data, and say which
    is best."""

    run_folder: RunFolder
    """what is measured"""
    data: Data
    """what `prepare` wrote, a manifest CSV, or a folder with test/good, test/bad, masks/"""
    over: Annotated[tuple[str, ...], Arg(metavar="KEY=V1,V2")]
    """values of a setting of restorer.* or map.*; several settings make a grid"""
    out: Out
    """folder for figures and report"""
    split: Literal["val", "test"] = "val"
    """test shows what choosing on test would flatter; it is no result"""
    protocol: Protocol = "strict"
    """what measures each setting, as in `evaluate`; wolleb: Dice at its own Otsu threshold and
    AUROC of every diseased slice"""
    metric: str = ""
    """choose by this one, such as dice_oracle_pooled; default: voxel average precision, else AUROC,
    else the protocol's first"""
    plot: Literal["auto", "lines", "heat"] = "auto"
    """several settings as lines over the first, one for each value of the others, or as heat maps;
    auto: lines for wolleb"""
    batch: Batch = 32
    """planes restored at once; changes speed and memory only"""
    limit: Limit = 0
    """at most so many cases, evenly spread"""
    allow_leak: bool = False
    """also patients the run was trained on"""
    overwrite: bool = False
    """write into --out although something lies there"""

    def run(self) -> int:
        from pseudohealthy.report import sweep_tables
        from pseudohealthy.workflows.sweep import sweep

        result = sweep(
            self.run_folder,
            self.data,
            self.over,
            self.out,
            split=self.split,
            protocol=self.protocol,
            metric=self.metric,
            plot=self.plot,
            device=self.device,
            batch=self.batch,
            limit=self.limit,
            allow_leak=self.allow_leak,
            overwrite=self.overwrite,
        )
        said = {
            "best": result.settings(result.best),
            "metric": result.metric,
            "settings": sweep_tables.rows(result),
        }
        self.show(said, sweep_tables.text(result), asked=True)
        return 0
