"""Looking at scans: demo, inspect, detect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pseudohealthy.commands.base import Command
from pseudohealthy.errors import USAGE, Fault


@dataclass(kw_only=True)
class Demo(Command):
    """From nothing to a report: train on real handwritten digits, find the splotches, then read a synthetic head scan."""

    out: Path = Path("demo-out")
    """folder for everything it makes"""
    minutes: float = 2.5
    """time to train"""

    def run(self) -> int:
        from pseudohealthy.demo import demo

        self.show(demo(self.out, minutes=self.minutes, device=self.device))
        return 0


@dataclass(kw_only=True)
class Inspect(Command):
    """What would be read from PATH: layout, counts, geometry, warnings; with --out also a contact sheet."""

    path: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None
    """folder for contact_sheet.png and inspect.json"""
    names: Literal["series", "path"] = "series"
    """what DICOM cases are called by: their series, or their folders and files, which archives name after patients"""
    key: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """where it is written which series is which file; with --out by default OUT.key.csv beside it"""

    def run(self) -> int:
        from pseudohealthy.inspection import inspect

        found = inspect(self.path, self.out, names=self.names, key=self.key)
        self.show(found.as_dict(), found.text())
        return found.exit


@dataclass(kw_only=True)
class Detect(Command):
    """Restore every INPUT with RUN and write healthy twins, anomaly maps, scores and a report to --out."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    out: Path
    kinds: tuple[Literal["volumes", "panel", "html", "json", "nifti", "dicom-seg", "dicom-map", "dicom-sc"], ...] = (
        "volumes",
        "panel",
        "html",
        "json",
    )
    """what to write per case; the dicom kinds need DICOM inputs and stay in their study, with its patient"""
    layout: Literal["cases", "bids"] = "cases"
    """a folder per case, or BIDS derivative names for inputs named like sub-01_T1w.nii.gz"""
    threshold: str = "stored"
    """a number, stored (the run's healthy quantile) or otsu"""
    levels: int | None = None
    """network calls of the walk back instead of the recipe's"""
    batch: int = 32
    """planes restored at once; changes speed and memory only"""
    overwrite: bool = False
    """remove what an earlier detect wrote into the case folders of --out"""
    resume: bool = False
    """keep the cases that the same request finished in --out, checked by their hashes, and do the others"""

    assume_spacing: float | None = None
    """mm between the pixels of a DICOM series that does not say; volumes are then a guess, and a warning says so"""

    engine: Literal["plain", "ray"] = "plain"
    """where it is done: here, or on the processes of a Ray cluster (extra `ray`), which may be lost and are replaced"""
    workers: int | None = None
    """processes of --engine ray; by default one per GPU, or one per four cores"""
    names: Literal["series", "path"] = "series"
    """what DICOM cases are called by: their series, or their folders and files, which archives name after patients"""
    key: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """where it is written which series is which file; default OUT.key.csv beside --out, never inside it"""

    def run(self) -> int:
        from pseudohealthy.archive import detect

        if not self.inputs:
            raise Fault("USAGE", "detect needs an INPUT", "name files or folders after the run", exit=USAGE)
        result = detect(self.run_folder, self.inputs, self.out, kinds=self.kinds, threshold=self.threshold, levels=self.levels,
                        device=self.device, batch=self.batch, overwrite=self.overwrite, resume_finished=self.resume,
                        layout=self.layout, assume_spacing=self.assume_spacing, engine=self.engine, workers=self.workers,
                        names=self.names, key=self.key)  # fmt: skip
        if not result.first:
            return 0  # the first process says and returns it for all
        done = [row for row in result.rows if row["status"] in ("ok", "warn")]
        self.show(
            {"findings": result.rows, "exit": result.exit},
            f"{len(done)} of {len(result.rows)} inputs: {result.folder / 'findings.csv'}",
        )
        return result.exit
