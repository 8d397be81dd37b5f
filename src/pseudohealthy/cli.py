"""The commands: each is a dataclass whose fields are its arguments and whose `run` does the work.

Nothing heavy is imported here: `pseudohealthy --help` must answer at once.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from pseudohealthy import __version__, progress
from pseudohealthy.errors import USAGE, Fault

Device = Annotated[str, tyro.conf.arg(help="auto, cpu or cuda", metavar="auto|cpu|cuda")]


@dataclass(kw_only=True)
class Command:
    """What every command takes."""

    device: Device = "auto"
    quiet: bool = False
    """say nothing but results and errors"""
    debug: bool = False
    """show the traceback of an error"""
    json: bool = False
    """print the result as JSON on standard output"""

    def start(self) -> int:
        """Run, print, and give the exit code."""
        progress.quiet, progress.debug = self.quiet, self.debug
        return self.run()

    def run(self) -> int:
        raise NotImplementedError  # abstract

    def show(self, result: Any, text: str | None = None) -> None:
        """The result as JSON, or as text for people."""
        if self.json:
            from pseudohealthy.io.atomic import _plain

            print(json.dumps(_plain(result), indent=2))
        elif text is not None and not self.quiet:
            print(text)


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

    def run(self) -> int:
        from pseudohealthy.inspection import inspect

        found = inspect(self.path, self.out)
        self.show(found.as_dict(), found.text())
        return found.exit


@dataclass(kw_only=True)
class Prepare(Command):
    """One public data set on disk to manifest.csv: DATASET is its layout, SOURCE its folder."""

    dataset: Annotated[str, tyro.conf.Positional]
    source: Annotated[Path, tyro.conf.Positional]
    out: Path
    """folder for manifest.csv"""
    seed: int = 0
    """of the split by patient"""
    check: bool = False
    """also check every file and say what leaks between splits"""

    def run(self) -> int:
        from pseudohealthy import cases, datasets

        manifest = datasets.prepare(self.dataset, self.source, self.out, seed=self.seed)
        counts = Counter(
            f"{c.split or 'no split'}, {('healthy', 'anomalous', 'unknown')[2 if c.label is None else c.label]}"
            for c in manifest
        )
        problems = cases.check(manifest) if self.check else []
        lines = [f"{self.out / 'manifest.csv'}: {len(manifest)} cases", *(f"  {k}: {v}" for k, v in counts.items())]
        self.show({"cases": len(manifest), "counts": counts, "problems": problems}, "\n".join([*lines, *problems]))
        return 0


@dataclass(kw_only=True)
class Recipes(Command):
    """List the recipes, or print one with the parameter count of each of its networks."""

    name: Annotated[str | None, tyro.conf.Positional] = None

    def run(self) -> int:
        from pseudohealthy import recipe as recipes

        if self.name is None:
            listed = {name: recipes.Recipe.load(name).summary for name in recipes.names()}
            width = max(map(len, listed))
            self.show(listed, "\n".join(f"{name:{width}}  {summary}" for name, summary in listed.items()))
            return 0
        import torch

        found = recipes.Recipe.load(self.name).resolved()
        with torch.device("meta"):
            restorer = found.make_restorer()
        counts = {part: sum(p.numel() for p in restorer.get_submodule(part).parameters()) for part in restorer.parts()}
        text = found.toml() + "".join(f"# parameters of {part}: {n:,}\n" for part, n in counts.items())
        self.show({"recipe": vars(found), "parameters": counts}, text)
        return 0


@dataclass(kw_only=True)
class Train(Command):
    """Train RECIPE on --data into --out; or go on with --resume RUN."""

    recipe: Annotated[str | None, tyro.conf.Positional] = None
    data: Path | None = None
    """what `prepare` wrote, a manifest CSV, or a folder with train/good, test/good, test/bad, masks/"""
    out: Path | None = None
    """the new run"""
    resume: Path | None = None
    """a run to go on with, or to extend with --steps or --epochs"""
    steps: int | None = None
    epochs: float | None = None
    batch: int | None = None
    """images per step, over all processes together"""
    seed: int | None = None
    set: tuple[str, ...] = ()
    """SECTION.KEY=VALUE ...: any setting of the recipe; with --resume how a trained run reads its maps (map.*, restorer.*)"""
    track: Literal["none", "tensorboard", "mlflow"] = "none"
    """also write the history there"""
    overwrite: bool = False

    def run(self) -> int:
        from pseudohealthy.training import loop

        if self.resume is not None:
            if self.recipe or self.out or self.batch or self.seed is not None:
                raise Fault(
                    "USAGE",
                    "--resume goes on with a run as it is",
                    "only --data, --steps, --epochs and --set go with it",
                    exit=USAGE,
                )
            done = loop.resume(
                self.resume, data=self.data, steps=self.steps, epochs=self.epochs, settings=self.set,
                device=self.device, sink=self.track,
            )  # fmt: skip
        else:
            if self.recipe is None or self.data is None or self.out is None:
                raise Fault(
                    "USAGE", "train needs RECIPE, --data and --out", "see pseudohealthy train --help", exit=USAGE
                )
            done = loop.train(
                self.recipe, self.data, self.out, steps=self.steps, epochs=self.epochs, batch=self.batch, seed=self.seed,
                settings=self.set, device=self.device, sink=self.track, overwrite=self.overwrite,
            )  # fmt: skip
        self.show(done.record, f"run: {done.folder}")
        return 0


@dataclass(kw_only=True)
class Detect(Command):
    """Restore every INPUT with RUN and write healthy twins, anomaly maps, scores and a report to --out."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="INPUT...")]
    out: Path
    kinds: tuple[Literal["volumes", "panel", "json"], ...] = ("volumes", "panel", "json")
    """what to write per case"""
    threshold: str = "stored"
    """a number, stored (the run's healthy quantile) or otsu"""
    levels: int | None = None
    """network calls of the walk back instead of the recipe's"""
    batch: int = 32
    """planes restored at once; changes speed and memory only"""
    overwrite: bool = False

    def run(self) -> int:
        from pseudohealthy.archive import detect

        if not self.inputs:
            raise Fault("USAGE", "detect needs an INPUT", "name files or folders after the run", exit=USAGE)
        result = detect(self.run_folder, self.inputs, self.out, kinds=self.kinds, threshold=self.threshold, levels=self.levels,
                        device=self.device, batch=self.batch, overwrite=self.overwrite)  # fmt: skip
        done = [row for row in result.rows if row["status"] in ("ok", "warn")]
        self.show(
            {"findings": result.rows, "exit": result.exit},
            f"{len(done)} of {len(result.rows)} inputs: {result.folder / 'findings.csv'}",
        )
        return result.exit


@dataclass(kw_only=True)
class Evaluate(Command):
    """Measure RUN on the test split of --data, beside the trivial controls, with intervals over patients."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(name="run", metavar="RUN")]
    data: Path
    out: Path
    protocol: Literal["strict"] = "strict"
    batch: int = 32
    limit: int = 0
    """at most so many test cases, evenly spread"""
    allow_leak: bool = False
    """also evaluate patients the run was trained on; every figure is then optimistic"""
    overwrite: bool = False

    def run(self) -> int:
        from pseudohealthy.evaluation.runner import evaluate

        result = evaluate(self.run_folder, self.data, self.out, protocol=self.protocol, device=self.device, batch=self.batch,
                          limit=self.limit, allow_leak=self.allow_leak, overwrite=self.overwrite)  # fmt: skip
        if self.json:
            self.show([record.as_dict() for record in result.records])
        elif not self.quiet:
            from rich.console import Console

            Console(width=None if sys.stdout.isatty() else 200).print(result.table())
        return 0


@dataclass(kw_only=True)
class ImportWeights(Command):
    """A run from the published checkpoint FILE of SYSTEM, after a check of what its weights were trained for."""

    system: Annotated[Literal["wolleb", "wolleb-classifier", "anoddpm", "thor", "pddpm", "cddpm"], tyro.conf.Positional]
    file: Annotated[Path, tyro.conf.Positional]
    """.pt or .ckpt that holds tensors only, or .safetensors"""
    out: Path
    """the new run; Wolleb's classifier goes into the run of its diffusion model"""
    set: tuple[str, ...] = ()
    """SECTION.KEY=VALUE ...: what the file does not say, such as canvas.normalise"""
    overwrite: bool = False

    def run(self) -> int:
        from pseudohealthy.interop.weights import import_weights

        done = import_weights(self.system, self.file, self.out, settings=self.set, overwrite=self.overwrite)
        self.show(done.record, f"run: {done.folder}")
        return 0


COMMANDS: dict[str, type[Command]] = {
    "demo": Demo,
    "inspect": Inspect,
    "prepare": Prepare,
    "recipes": Recipes,
    "train": Train,
    "detect": Detect,
    "evaluate": Evaluate,
    "import-weights": ImportWeights,
}


def parse(arguments: list[str]) -> Command:
    """The command that the arguments name, filled in. Fault USAGE (exit 2) for wrong usage."""
    if arguments[:1] == ["--version"]:
        print(f"pseudohealthy {__version__}")
        raise SystemExit(0)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                dict(COMMANDS),
                prog="pseudohealthy",
                description="Find disease in medical images by restoring each scan to its healthy twin. Research use only.",
                args=arguments or ["--help"],
                sort_subcommands=False,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        # The parser draws a frame over several lines; a wrong flag gets one line like everything else.
        text = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", said.getvalue()).split())
        raise Fault(
            "USAGE", text[:300].rstrip(" ."), "pseudohealthy COMMAND --help says what it takes", exit=USAGE
        ) from None
