"""`train`: a recipe on a manifest into a run folder, and an interrupted run taken up again."""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from pseudohealthy.counts import many
from pseudohealthy.data.checks import require_clean
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.io.atomic import write_text
from pseudohealthy.io.output_folder import claim
from pseudohealthy.processes import World, join
from pseudohealthy.progress import Progress, say
from pseudohealthy.runs import pseudonyms
from pseudohealthy.runs.changes import same_training
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.training import finish, memory, plane_cache, plane_store
from pseudohealthy.training.loop import fit
from pseudohealthy.training.refusing import refusable
from pseudohealthy.workflows.request import verb


@dataclass(frozen=True)
class Train:
    """Train a recipe on a manifest (or folder layout) into a new run folder; the command ``train``.

    Args:
        recipe: a recipe, its name or its file.
        data: a manifest, or a folder of the usual layout.
        out: the run's folder.
        steps: optimiser steps.
        epochs: passes over the training planes, instead of steps.
        minutes: for everything, from reading the cases to the threshold; instead of steps or
            epochs.
        batch: planes a step, instead of the recipe's.
        seed: of all random numbers, instead of the recipe's.
        settings: ``section.key=value`` texts.
        device: "auto", "cpu" or "cuda".
        sink: where curves go besides: "none", "tensorboard" or "mlflow".
        overwrite: train into a folder that holds a run.
        dedupe: copies of a case are left out.
        cache: folder for the planes instead of the usual one (see `plane_cache`).
        pseudonymise: split.csv tells no ids (see `runs.pseudonyms`).

    Faults as in the contract.
    """

    recipe: str | Path | Recipe
    data: Path | str
    out: Path | str
    _: KW_ONLY
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int | None = None
    seed: int | None = None
    settings: Iterable[str] = ()
    device: str = "auto"
    sink: str = "none"
    overwrite: bool = False
    dedupe: bool = False
    cache: Path | None = None
    pseudonymise: bool = False

    def __call__(self) -> Run:
        begun = time.monotonic()
        recipe = self.settled()
        world, folder = join(self.device), Path(self.out)
        memory.require_weights(recipe.parameters(), world.device)
        with refusable(folder, overwrite=self.overwrite, first=world.first):
            manifest = load(Path(self.data), dedupe=self.dedupe)
            require_clean(manifest)
            if world.first:
                self.create(recipe, folder, manifest)
            world.wait()
            run = Run.open(folder)
            store = open_planes(run, manifest, world, self.cache)
            if world.first:
                if self.pseudonymise:
                    pseudonyms.begin(run)
                finish.write_split(run, manifest, store)
            return fit(run, store, world, sink=self.sink, begun=begun)

    def settled(self) -> Recipe:
        """The recipe with what was asked for; refuses wrong settings before anything is read or
        written."""
        given = self.recipe
        recipe = copy.deepcopy(given) if isinstance(given, Recipe) else Recipe.load(given)
        recipe.set(self.settings)
        mine = {"batch": self.batch, "seed": self.seed}
        recipe.training |= {key: value for key, value in mine.items() if value is not None}
        recipe.training |= length(self.steps, self.epochs, self.minutes)
        recipe.checked()
        recipe.require_files()
        return recipe

    def create(self, recipe: Recipe, folder: Path, manifest: Manifest) -> None:
        """The run's folder, which says where its data lie without naming the machine's folders."""
        here = os.path.relpath(self.data, folder)
        said: dict[str, Any] = {"data": here, "manifest_sha256": manifest.sha256, "names": "series"}
        said |= {"dedupe": True} if self.dedupe else {}
        Run.create(folder, recipe, overwrite=self.overwrite, **said)


train = verb(Train)


def length(steps: int | None, epochs: float | None, minutes: float | None) -> dict[str, Any]:
    """The settings of a budget that is given in one of three ways; Fault USAGE for two of them."""
    ways = {"steps": steps, "epochs": epochs, "minutes": minutes}
    if len(named := [name for name, value in ways.items() if value is not None]) > 1:
        raise Fault("USAGE", f"{' and '.join(named)} together", "give one of them", exit=USAGE)
    if minutes is not None:
        if not 0 < minutes < math.inf:
            raise Fault("USAGE", f"minutes {minutes:g}", "give a positive number", exit=USAGE)
        return {"steps": 0, "minutes": float(minutes)}
    given = {k: v for k, v in {"steps": steps, "epochs": epochs}.items() if v is not None}
    return {"minutes": 0.0, "steps": 0} | given if given else {}


def resume(
    run: Path | str,
    *,
    data: Path | str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    settings: Iterable[str] = (),
    device: str = "auto",
    sink: str = "none",
    cache: Path | None = None,
) -> Run:
    """Go on with an interrupted run, or extend a finished one to `steps` (or `epochs`) in all, or
    by `minutes`.

    settings: ``map.key=value`` and ``restorer.key=value`` texts that leave the network as it is:
    how a trained run restores and reads its maps. The threshold is set anew on healthy validation
    data.
    """
    begun = time.monotonic()
    opened = Run.open(run).own()
    settings = list(settings)
    for text in settings:
        if not text.startswith(("map.", "restorer.")):
            raise Fault(
                "USAGE",
                f"'{text}' would make another run of this one",
                "only map.* and restorer.* can be changed",
                exit=USAGE,
            )
    same_training(opened.recipe, settings)
    opened.recipe.set(settings)
    pseudonyms.namer(opened)  # a salt that is gone is said now, not when everything is done
    world = join(device)
    chosen = length(steps, epochs, minutes)
    # An extension that was interrupted keeps its own goal.
    if not chosen and opened.record.get("steps"):
        chosen = {"steps": opened.record["steps"], "minutes": 0.0}
    opened.recipe.training |= chosen
    opened.recipe = opened.recipe.checked()
    where = Path(data) if data else opened.folder / str(opened.record.get("data"))
    if not data and not where.exists():
        message = f"the data of '{opened.name}' are not where they were in training"
        raise Fault("NOT_FOUND", message, "name them with --data", exit=NO_INPUT)
    manifest = load(
        where, dedupe=bool(opened.record.get("dedupe")), names=opened.record.get("names", "path")
    )
    if manifest.sha256 != opened.record.get("manifest_sha256"):
        raise Fault(
            "DATA_CHANGED",
            "the manifest is not the one this run began with",
            "name the original one with --data",
            exit=USAGE,
        )
    if settings:
        # A setting that changes the network is refused before the recipe is written over.
        opened.restorer()
    if world.first:
        claim(opened.folder)
        write_text(opened.folder / "recipe.toml", opened.recipe.toml())
        opened.note(recipe_sha256=opened.recipe_sha256)
    return fit(opened, open_planes(opened, manifest, world, cache), world, sink=sink, begun=begun)


def open_planes(
    run: Run, manifest: Manifest, world: World, cache: Path | None = None
) -> plane_store.PlaneStore:
    """The planes to train on, cut by the first process, and by others where its folders are not
    theirs.

    Fault NO_HEALTHY (exit 3) without a healthy training plane.
    """
    canvas = run.recipe.make_canvas()
    if world.first:
        with Progress("reading cases", len(manifest)) as bar:
            store = plane_cache.opened(manifest, canvas, cache, lambda done, total: bar.to(done))
        for line in store.faults:
            say(line, error=True)
        run.note(cases=len(manifest), cases_failed=len(store.faults))
    world.wait()
    store = plane_cache.opened(manifest, canvas, cache)
    if len(store.select("train", HEALTHY)) == 0:
        raise Fault(
            "NO_HEALTHY",
            "the training split holds no healthy plane",
            "label some cases 0, or give masks",
            exit=NO_INPUT,
        )
    rows = store.select("train", HEALTHY)
    masks = store.masks(rows)
    if masks is not None and len(marked := rows[masks.flatten(1).any(1).numpy()]):
        named = list(dict.fromkeys(store.index["case_id"].iloc[marked].astype(str)))
        raise Fault(
            "UNHEALTHY_IN_TRAIN",
            f"{many(len(named), 'training case')} of label 0 {'has' if len(named) == 1 else 'have'}"
            f" marked voxels: {', '.join(named[:10])}",
            "label them 1, or empty their masks",
            exit=USAGE,
        )
    return store
