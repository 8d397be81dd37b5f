"""Looking at scans: demo, inspect, detect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Arg
from pseudohealthy.counts import many
from pseudohealthy.detection.outputs import KINDS, OUTPUTS


@dataclass(kw_only=True)
class Demo(Command):
    """From nothing to a first page that says what was found and missed: slices of heads, splotched
    digits, synthetic heads."""

    out: Annotated[Path, Arg(metavar="DIR", kind="out")] = Path("demo-out")
    """folder for everything it makes"""
    minutes: Annotated[float, Arg(above=0)] = 2.5
    """time to train"""

    def run(self) -> int:
        from pseudohealthy.workflows.demo import demo

        done = demo(self.out, minutes=self.minutes, device=self.device)
        self.show(done, "\n".join(done["reports"]), asked=True)
        return 0


@dataclass(kw_only=True)
class Inspect(Command):
    """What would be read from PATH: layout, counts, geometry, warnings; with --out also a contact
    sheet."""

    path: Annotated[Path, Arg(positional=True, metavar="PATH", kind="input")]
    """a file, or a folder of scans or of a data set"""
    out: Annotated[Path | None, Arg(metavar="DIR", kind="out")] = None
    """folder for contact_sheet.png and inspect.json"""
    names: Literal["series", "path"] = "series"
    """what DICOM cases are called by: their series, or their folders and files, which archives name
    after patients"""
    key: Annotated[Path | None, Arg(metavar="FILE")] = None
    """where it is written which series is which file; with --out by default OUT.key.csv beside
    it"""

    def run(self) -> int:
        from pseudohealthy.workflows.inspect import inspect

        found = inspect(self.path, self.out, names=self.names, key=self.key)
        self.show(found.as_dict(), found.text(), asked=True)
        return found.exit


@dataclass(kw_only=True)
class Detect(Command):
    """Restore every INPUT with RUN and write healthy twins, anomaly maps, scores and a report to
    --out."""

    shares: ClassVar = True

    run_folder: Annotated[Path, Arg(positional=True, metavar="RUN", kind="run")]
    """what restores"""
    inputs: Annotated[tuple[Path, ...], Arg(positional=True, metavar="INPUT", kind="input")]
    """{formats} files, or folders of those; "t1.nii|t2.nii" are channels of one image"""
    out: Annotated[Path, Arg(metavar="DIR", kind="out")]
    """folder for findings and report"""
    kinds: Annotated[tuple[str, ...], Arg(choices=tuple(OUTPUTS))] = KINDS
    """what to write per case; the dicom kinds need DICOM inputs and stay in their study, with its
    patient"""
    layout: Literal["cases", "bids"] = "cases"
    """a folder per case, or BIDS derivative names for inputs named like sub-01_T1w.nii.gz"""
    threshold: Annotated[str, Arg(metavar="VALUE|SOURCE")] = "stored"
    """a number, stored (the run's healthy quantile) or otsu"""
    calls: Annotated[int | None, Arg(aliases=("levels",), least=1)] = None
    """network calls of a walk back, instead of the recipe's; only for methods that walk"""
    set: Annotated[tuple[str, ...], Arg(metavar="SECTION.KEY=VALUE")] = ()
    """settings of restoring (restorer.*) and of the map (map.*) instead of the run's, such as
    restorer.walk.draws=4; the stored threshold was set without them"""
    batch: Annotated[int, Arg(least=1)] = 32
    """planes restored at once; changes speed and memory only"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the processor computes in it, else fp32"""
    overwrite: bool = False
    """remove what an earlier detect wrote into the case folders of --out"""
    resume: bool = False
    """keep the cases that the same request finished in --out, checked by their hashes, and do the
    others"""

    assume_spacing: Annotated[float | None, Arg(metavar="MM", least=0.01, most=10)] = None
    """mm between the pixels of a DICOM series that does not say; volumes are then a guess, and a
    warning says so"""

    strict_domain: bool = False
    """fail inputs that are unlike what the run was trained on, instead of warning of them"""
    engine: Literal["plain", "ray"] = "plain"
    """where it is done: here, or on the processes of a Ray cluster (extra `ray`), which may be lost
    and are replaced"""
    workers: Annotated[int | None, Arg(least=1)] = None
    """processes of --engine ray; by default one per GPU, or one per four cores"""
    names: Literal["series", "path"] = "series"
    """what DICOM cases are called by: their series, or their folders and files, which archives name
    after patients"""
    key: Annotated[Path | None, Arg(metavar="FILE")] = None
    """where it is written which series is which file; default OUT.key.csv beside --out, never
    inside it"""

    def run(self) -> int:
        from pseudohealthy.workflows.detect import detect

        result = detect(
            self.run_folder,
            self.inputs,
            self.out,
            kinds=self.kinds,
            threshold=self.threshold,
            calls=self.calls,
            settings=self.set,
            device=self.device,
            batch=self.batch,
            overwrite=self.overwrite,
            resume_finished=self.resume,
            layout=self.layout,
            assume_spacing=self.assume_spacing,
            engine=self.engine,
            workers=self.workers,
            names=self.names,
            key=self.key,
            precision=self.precision,
            strict_domain=self.strict_domain,
        )
        if not result.first:
            return 0  # the first process says and returns it for all
        done = [row for row in result.rows if row["status"] in ("ok", "warn")]
        self.show(
            {"findings": result.rows, "exit": result.exit},
            f"{len(done)} of {many(len(result.rows), 'input')}: {result.folder / 'findings.csv'}",
        )
        return result.exit
