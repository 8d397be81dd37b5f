"""Data and runs: prepare, recipes, train, import-weights."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Arg
from pseudohealthy.counts import many
from pseudohealthy.errors import SOME_FAILED, USAGE, Fault


@dataclass(kw_only=True)
class Prepare(Command):
    """One public data set on disk to manifest.csv: DATASET is its layout, SOURCE its folder."""

    ways: ClassVar = ("DATASET SOURCE --out DIR", "DATASET SOURCE --check")

    dataset: Annotated[str, Arg(positional=True, metavar="DATASET", kind="dataset")]
    """how the data lie on disk"""
    source: Annotated[Path, Arg(positional=True, metavar="SOURCE", kind="source")]
    """the folder that holds them"""
    out: Annotated[Path | None, Arg(metavar="DIR", kind="out")] = None
    """folder for manifest.csv; with --check it may be left out, then nothing is kept"""
    seed: Annotated[int, Arg(least=0)] = 0
    """seed of the split by patient"""
    check: bool = False
    """also check every file and say what leaks between splits"""
    set: Annotated[tuple[str, ...], Arg(metavar="KEY=VALUE")] = ()
    """options of the data set, such as healthy=slice, num_samples=2000,
    fractions=[0.7,0.15,0.15]"""

    @classmethod
    def lacks(cls, given: Collection[str]) -> list[str]:
        return super().lacks(given) + ([] if "out" in given or "check" in given else ["out"])

    def run(self) -> int:
        if self.out is not None:
            return self.into(self.out)
        with tempfile.TemporaryDirectory() as folder:
            return self.into(Path(folder))

    def into(self, out: Path) -> int:
        from pseudohealthy import datasets
        from pseudohealthy.data.checks import check

        options = datasets.options(self.dataset, self.set)
        manifest = datasets.prepare(self.dataset, self.source, out, seed=self.seed, **options)
        counts = Counter(
            f"{c.split or 'no split'},"
            f" {('healthy', 'anomalous', 'unknown')[2 if c.label is None else c.label]}"
            for c in manifest
        )
        problems = check(manifest) if self.check else []
        published = out / "published_leaks.txt"  # already said by the adapter
        listed = (
            published.read_text(encoding="utf-8").splitlines()
            if self.check and published.is_file()
            else []
        )
        shown = out / "manifest.csv" if self.out else self.dataset
        lines = [
            f"{shown}: {many(len(manifest), 'case')}",
            *(f"  {k}: {v}" for k, v in counts.items()),
        ]
        self.show(
            {"cases": len(manifest), "counts": counts, "problems": [*listed, *problems]},
            "\n".join([*lines, *problems]),
        )
        return 0


@dataclass(kw_only=True)
class Recipes(Command):
    """List the recipes, or print one with the parameter count of each of its networks."""

    name: Annotated[str | None, Arg(positional=True, metavar="NAME", kind="recipe")] = None
    """the recipe to print"""

    def run(self) -> int:
        from pseudohealthy.report import terminal
        from pseudohealthy.runs import recipe as recipes

        if self.name is None:
            listed = {name: recipes.Recipe.load(name).summary for name in recipes.names()}
            self.show(listed, terminal.text(terminal.columns(listed.items())), asked=True)
            return 0
        import torch

        found = recipes.Recipe.load(self.name).resolved()
        with torch.device("meta"):
            restorer = found.make_restorer()
        counts = {
            part: sum(p.numel() for p in restorer.get_submodule(part).parameters())
            for part in restorer.parts()
        }
        text = found.toml(notes=True) + "".join(
            f"# parameters of {part}: {n:,}\n" for part, n in counts.items()
        )
        self.show(
            {"recipe": vars(found), "parameters": counts, "takes": found.takes()}, text, asked=True
        )
        return 0


@dataclass(kw_only=True)
class Train(Command):
    """Train RECIPE on --data into --out; or go on with --resume RUN."""

    ways: ClassVar = ("RECIPE --data DIR --out RUN", "--resume RUN")
    shares: ClassVar = True

    recipe: Annotated[str | None, Arg(positional=True, metavar="RECIPE", kind="recipe")] = None
    """what is trained, by name or as a path to a TOML file"""
    data: Annotated[Path | None, Arg(metavar="DIR", kind="data")] = None
    """what `prepare` wrote, a manifest CSV, or a folder with train/good, test/good, test/bad,
    masks/"""
    out: Annotated[Path | None, Arg(metavar="RUN", kind="out")] = None
    """the new run"""
    resume: Annotated[Path | None, Arg(metavar="RUN", kind="run")] = None
    """goes on with it, or extends it with --steps, --epochs or --minutes"""
    steps: Annotated[int | None, Arg(least=1)] = None
    """optimiser steps in all, instead of the recipe's"""
    epochs: Annotated[float | None, Arg(above=0)] = None
    """passes over the training planes in all, instead of the recipe's"""
    minutes: Annotated[float | None, Arg(above=0)] = None
    """time for everything, threshold included, instead of the recipe's steps"""
    batch: Annotated[int | None, Arg(least=1)] = None
    """images per step, over all processes together"""
    seed: Annotated[int | None, Arg(least=0)] = None
    """of weights, order, levels and noise, instead of the recipe's"""
    set: Annotated[tuple[str, ...], Arg(metavar="SECTION.KEY=VALUE")] = ()
    """any setting of the recipe, such as map.smooth=2; with --resume how a trained run restores and
    reads its maps (restorer.*, map.*)"""
    track: Literal["none", "tensorboard", "mlflow"] = "none"
    """also write the history there"""
    dedupe: bool = False
    """leave out copies of a case (the same image in the same split with the same label) instead of
    refusing the data"""
    cache: Annotated[Path | None, Arg(metavar="DIR")] = None
    """keep the images as the network sees them there; default beside what `prepare` wrote, else in
    the user's cache"""
    pseudonymise: bool = False
    """write ids of cases and patients as pseudonyms into the run; RUN.salt beside it tells them"""
    overwrite: bool = False
    """start anew in --out although something lies there"""

    @classmethod
    def lacks(cls, given: Collection[str]) -> list[str]:
        needed = () if "resume" in given else ("recipe", "data", "out")
        return [field for field in needed if field not in given]

    def run(self) -> int:
        from pseudohealthy.workflows import train

        if self.resume is not None:
            if self.recipe or self.out or self.batch or self.seed is not None or self.pseudonymise:
                raise Fault(
                    "USAGE",
                    "--resume goes on with a run as it is",
                    "only --data, --steps, --epochs, --minutes, --cache and --set go with it",
                    exit=USAGE,
                )
            done = train.resume(
                self.resume,
                data=self.data,
                steps=self.steps,
                epochs=self.epochs,
                minutes=self.minutes,
                settings=self.set,
                device=self.device,
                sink=self.track,
                cache=self.cache,
            )
        else:
            assert self.recipe and self.data and self.out  # `lacks`
            done = train.train(
                self.recipe,
                self.data,
                self.out,
                steps=self.steps,
                epochs=self.epochs,
                minutes=self.minutes,
                batch=self.batch,
                seed=self.seed,
                settings=self.set,
                device=self.device,
                sink=self.track,
                overwrite=self.overwrite,
                dedupe=self.dedupe,
                cache=self.cache,
                pseudonymise=self.pseudonymise,
            )
        failed, cases = done.record.get("cases_failed", 0), done.record.get("cases", 0)
        what = (
            f"; {failed} of {many(cases, 'case')} could not be read and were left out, see"
            " split.csv"
            if failed
            else ""
        )
        self.show(done.record, f"run: {done.folder}{what}")
        return SOME_FAILED if failed else 0


@dataclass(kw_only=True)
class ImportWeights(Command):
    """A run from the published checkpoint FILE of SYSTEM, after a check of what its weights were
    trained for."""

    system: Annotated[
        Literal["wolleb", "wolleb-classifier", "anoddpm", "thor", "pddpm", "cddpm", "diffusers"],
        Arg(positional=True, metavar="SYSTEM", kind="system"),
    ]
    """whose weights they are"""
    file: Annotated[Path, Arg(positional=True, metavar="FILE", kind="file")]
    """.pt or .ckpt that holds tensors only, or .safetensors; for diffusers a folder or an id of the
    Hugging Face hub"""
    out: Annotated[Path, Arg(metavar="RUN", kind="out")]
    """the new run; Wolleb's classifier goes into the run of its diffusion model"""
    set: Annotated[tuple[str, ...], Arg(metavar="SECTION.KEY=VALUE")] = ()
    """settings that the file does not say, such as canvas.normalise=range"""
    overwrite: bool = False
    """write into --out although something lies there"""

    def run(self) -> int:
        from pseudohealthy.interop.weights import import_weights

        done = import_weights(
            self.system, self.file, self.out, settings=self.set, overwrite=self.overwrite
        )
        self.show(done.record, f"run: {done.folder}")
        return 0
