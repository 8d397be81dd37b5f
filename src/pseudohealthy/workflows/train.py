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
from pseudohealthy.data.given import MEMORY, manifest_of
from pseudohealthy.data.labels import HEALTHY
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
from pseudohealthy.training.hooks import Hooks, OnStep, OnValidation
from pseudohealthy.training.loop import fit
from pseudohealthy.training.refusing import refusable
from pseudohealthy.workflows.request import verb


@dataclass(frozen=True)
class Train:
    """Train a recipe on a manifest (or folder layout) into a new run folder; the command ``train``.

    Args:
        recipe: a recipe, its name or its file.
        data: a manifest, where one lies, a folder of the usual layout, or images
            (see `data.given.manifest`).
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
        on_step: called after each step with its number and the loss of each part; one that returns
            True ends the training there.
        on_validation: called after each validation with the entry of training_history.json, in the
            same way.

    Faults as in the contract.
    """

    recipe: str | Path | Recipe
    data: Any
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
    on_step: OnStep | None = None
    on_validation: OnValidation | None = None

    def __call__(self) -> Run:
        begun = time.monotonic()
        recipe = self.settled()
        world, folder = join(self.device), Path(self.out)
        memory.require_weights(recipe.parameters(), world.device)
        with refusable(folder, overwrite=self.overwrite, first=world.first):
            manifest = manifest_of(self.data, training=True, dedupe=self.dedupe)
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
            hooks = Hooks(self.on_step, self.on_validation)
            return fit(run, store, world, sink=self.sink, begun=begun, hooks=hooks)

    def settled(self) -> Recipe:
        """Return the recipe with what was asked for; wrong settings are refused before anything is
        read."""
        source = self.recipe
        recipe = (
            copy.deepcopy(source)
            if isinstance(source, Recipe)
            else Recipe.load(source, plugins=True)
        )
        recipe.set(self.settings)
        overrides = {"batch": self.batch, "seed": self.seed}
        recipe.training |= {key: value for key, value in overrides.items() if value is not None}
        recipe.training |= length(self.steps, self.epochs, self.minutes)
        recipe.checked()
        recipe.require_files()
        return recipe

    def create(self, recipe: Recipe, folder: Path, manifest: Manifest) -> None:
        """Create the run's folder, which says where its data lie without naming the machine's
        folders."""
        on_disk = isinstance(self.data, (str, os.PathLike))
        data_path = os.path.relpath(self.data, folder) if on_disk else MEMORY
        facts: dict[str, Any] = {
            "data": data_path,
            "manifest_sha256": manifest.sha256,
            "names": "series",
        }
        facts |= {"dedupe": True} if self.dedupe else {}
        Run.create(folder, recipe, overwrite=self.overwrite, **facts)


train = verb(Train)


def length(steps: int | None, epochs: float | None, minutes: float | None) -> dict[str, Any]:
    """Return the settings of a budget that is given in one of three ways.

    Raises:
        Fault: USAGE (exit 2) for two of them.
    """
    ways = {"steps": steps, "epochs": epochs, "minutes": minutes}
    if len(budgets := [name for name, value in ways.items() if value is not None]) > 1:
        raise Fault("USAGE", f"{' and '.join(budgets)} together", "give one of them", exit=USAGE)
    if minutes is not None:
        if not 0 < minutes < math.inf:
            raise Fault("USAGE", f"minutes {minutes:g}", "give a positive number", exit=USAGE)
        return {"steps": 0, "minutes": float(minutes)}
    budget = {k: v for k, v in {"steps": steps, "epochs": epochs}.items() if v is not None}
    return {"minutes": 0.0, "steps": 0} | budget if budget else {}


def resume(
    run: Path | str,
    *,
    data: Any = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    settings: Iterable[str] = (),
    device: str = "auto",
    sink: str = "none",
    cache: Path | None = None,
) -> Run:
    """Go on with an interrupted run, or extend a finished one to `steps` or `epochs` in all, or by
    `minutes`.

    The threshold is set anew on healthy validation data.

    Args:
        run: where it lies.
        data: where its data lie now, if elsewhere, or the images again.
        steps: optimiser steps in all.
        epochs: passes over the training planes in all, instead of steps.
        minutes: to go on for, instead of steps or epochs.
        settings: ``map.key=value`` and ``restorer.key=value`` texts that leave the network as it
            is: how a trained run restores and reads its maps.
        device: "auto", "cpu" or "cuda".
        sink: as in `train`.
        cache: as in `train`.
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
    budget = length(steps, epochs, minutes)
    # An extension that was interrupted keeps its own goal.
    if not budget and opened.record.get("steps"):
        budget = {"steps": opened.record["steps"], "minutes": 0.0}
    opened.recipe.training |= budget
    opened.recipe = opened.recipe.checked()
    if data is None:
        data = opened.folder / str(opened.record.get("data"))
        if not data.exists():
            message = f"the data of '{opened.name}' are not where they were in training"
            raise Fault("NOT_FOUND", message, "name them with --data", exit=NO_INPUT)
    manifest = manifest_of(
        data,
        training=True,
        dedupe=bool(opened.record.get("dedupe")),
        names=opened.record.get("names", "path"),
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
    """Return the planes to train on, cut by the first process, by others only where folders differ.

    Raises:
        Fault: NO_HEALTHY (exit 3) without a healthy training plane, UNHEALTHY_IN_TRAIN (exit 2) for
            training cases of label 0 with marked voxels.
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
        case_ids = list(dict.fromkeys(store.index["case_id"].iloc[marked].astype(str)))
        raise Fault(
            "UNHEALTHY_IN_TRAIN",
            f"{many(len(case_ids), 'training case')} of label 0"
            f" {'has' if len(case_ids) == 1 else 'have'} marked voxels: {', '.join(case_ids[:10])}",
            "label them 1, or empty their masks",
            exit=USAGE,
        )
    return store
