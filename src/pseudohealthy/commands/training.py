"""Data and runs: prepare, recipes, train, import-weights."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from pseudohealthy.commands.base import Command
from pseudohealthy.errors import USAGE, Fault


@dataclass(kw_only=True)
class Prepare(Command):
    """One public data set on disk to manifest.csv: DATASET is its layout, SOURCE its folder."""

    dataset: Annotated[str, tyro.conf.Positional]
    source: Annotated[Path, tyro.conf.Positional]
    out: Path | None = None
    """folder for manifest.csv; with --check it may be left out, then nothing is kept"""
    seed: int = 0
    """of the split by patient"""
    check: bool = False
    """also check every file and say what leaks between splits"""
    set: tuple[str, ...] = ()
    """KEY=VALUE ...: options of the data set, such as healthy=slice, num_samples=2000, fractions=[0.7,0.15,0.15]"""

    def run(self) -> int:
        if self.out is None and not self.check:
            raise Fault("USAGE", "prepare needs --out", "name a folder for manifest.csv, or add --check", exit=USAGE)
        if self.out is not None:
            return self.into(self.out)
        with tempfile.TemporaryDirectory() as folder:
            return self.into(Path(folder))

    def into(self, out: Path) -> int:
        from pseudohealthy import cases, datasets

        options = datasets.options(self.dataset, self.set)
        manifest = datasets.prepare(self.dataset, self.source, out, seed=self.seed, **options)
        counts = Counter(
            f"{c.split or 'no split'}, {('healthy', 'anomalous', 'unknown')[2 if c.label is None else c.label]}"
            for c in manifest
        )
        problems = cases.check(manifest) if self.check else []
        published = out / "published_leaks.txt"  # already said by the adapter
        listed = published.read_text(encoding="utf-8").splitlines() if self.check and published.is_file() else []
        shown = out / "manifest.csv" if self.out else self.dataset
        lines = [f"{shown}: {len(manifest)} cases", *(f"  {k}: {v}" for k, v in counts.items())]
        self.show(
            {"cases": len(manifest), "counts": counts, "problems": [*listed, *problems]}, "\n".join([*lines, *problems])
        )
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
        text = found.toml(notes=True) + "".join(f"# parameters of {part}: {n:,}\n" for part, n in counts.items())
        self.show({"recipe": vars(found), "parameters": counts, "takes": found.takes()}, text)
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
    dedupe: bool = False
    """leave out copies of a case (the same image in the same split with the same label) instead of refusing the data"""
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
                settings=self.set, device=self.device, sink=self.track, overwrite=self.overwrite, dedupe=self.dedupe,
            )  # fmt: skip
        self.show(done.record, f"run: {done.folder}")
        return 0


@dataclass(kw_only=True)
class ImportWeights(Command):
    """A run from the published checkpoint FILE of SYSTEM, after a check of what its weights were trained for."""

    system: Annotated[
        Literal["wolleb", "wolleb-classifier", "anoddpm", "thor", "pddpm", "cddpm", "diffusers"], tyro.conf.Positional
    ]
    file: Annotated[Path, tyro.conf.Positional]
    """.pt or .ckpt that holds tensors only, or .safetensors; for diffusers a folder or an id of the Hugging Face hub"""
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
