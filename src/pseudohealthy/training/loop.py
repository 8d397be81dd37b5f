"""One training loop for every method: `for part in restorer.parts(): restorer.loss(batch, part)`.

Order of planes, augmentation, noise levels and noise are functions of (seed, step, position in the global batch), so a
run resumed after a kill equals the uninterrupted one bit for bit on CPU, and two processes equal one.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pseudohealthy import cases, planes
from pseudohealthy.cases import ANOMALOUS, HEALTHY
from pseudohealthy.devices import precision_of
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import INTERNAL, INTERRUPTED, NO_INPUT, USAGE, Fault
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.progress import Progress, say
from pseudohealthy.recipe import Recipe
from pseudohealthy.restorers.base import Batch, Restorer
from pseudohealthy.run import Run, claim, now
from pseudohealthy.runs import pseudonyms
from pseudohealthy.training import checkpoint, finish, plane_cache, sinks, watch
from pseudohealthy.training.augment import augment
from pseudohealthy.training.distributed import World, join
from pseudohealthy.training.plan import Plan
from pseudohealthy.training.signals import Signals

PREVIOUS = "resume-previous.safetensors"


def train(
    recipe: str | Path | Recipe,
    data: Path | str,
    out: Path | str,
    *,
    steps: int | None = None,
    epochs: float | None = None,
    batch: int | None = None,
    seed: int | None = None,
    settings: Iterable[str] = (),
    device: str = "auto",
    sink: str = "none",
    overwrite: bool = False,
    dedupe: bool = False,
    cache: Path | None = None,
    pseudonymise: bool = False,
) -> Run:
    """Train a recipe on a manifest (or folder layout) into a new run folder; the command ``train``.

    settings: ``section.key=value`` texts. sink: "none", "tensorboard" or "mlflow". dedupe: copies of a case are left out. cache: folder for
    the planes instead of the usual one (see `plane_cache`). pseudonymise: split.csv tells no ids (see `runs.pseudonyms`).
    Faults as in the contract.
    """
    recipe = copy.deepcopy(recipe) if isinstance(recipe, Recipe) else Recipe.load(recipe)
    recipe.set(settings)
    chosen = {"steps": steps, "epochs": epochs, "batch": batch, "seed": seed}
    recipe.training |= {k: v for k, v in chosen.items() if v is not None}
    if epochs is not None and steps is None:
        recipe.training["steps"] = 0
    recipe.resolved()  # refuses wrong settings before anything is read or written
    world = join(device)
    manifest = cases.load(Path(data), dedupe=dedupe)
    cases.require_clean(manifest)
    folder = Path(out)
    if world.first:
        here = os.path.relpath(data, folder)  # a run says where its data lie without naming the machine's folders
        said = {"data": here, "manifest_sha256": manifest.sha256, "names": "series"} | (
            {"dedupe": True} if dedupe else {}
        )
        run = Run.create(folder, recipe, overwrite=overwrite, **said)
        if pseudonymise:
            pseudonyms.begin(run)
        finish.write_split(run, manifest)
    world.wait()
    run = Run.open(folder)
    return fit(run, open_planes(run, manifest, world, cache), world, sink=sink)


def resume(run: Path | str, *, data: Path | str | None = None, steps: int | None = None, epochs: float | None = None,
           settings: Iterable[str] = (), device: str = "auto", sink: str = "none", cache: Path | None = None) -> Run:  # fmt: skip
    """Go on with an interrupted run, or extend a finished one to `steps` (or `epochs`) in all.

    settings: ``map.key=value`` and ``restorer.key=value`` texts that leave the network as it is: how a trained run restores
    and reads its maps. The threshold is set anew on healthy validation data.
    """
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
    opened.recipe.set(settings)
    pseudonyms.namer(opened)  # a salt that is gone is said now, not when everything is done
    world = join(device)
    for key, value in (("steps", steps), ("epochs", epochs)):
        if value is not None:
            opened.recipe.training[key] = value
            if key == "epochs" and steps is None:
                opened.recipe.training["steps"] = 0
    if steps is None and epochs is None and opened.record.get("steps"):
        opened.recipe.training["steps"] = opened.record["steps"]  # an extension that was interrupted keeps its own goal
    where = Path(data) if data else opened.folder / str(opened.record.get("data"))
    if not data and not where.exists():
        message = f"the data of '{opened.name}' are not where they were in training"
        raise Fault("NOT_FOUND", message, "name them with --data", exit=NO_INPUT)
    manifest = cases.load(where, dedupe=bool(opened.record.get("dedupe")), names=opened.record.get("names", "path"))
    if manifest.sha256 != opened.record.get("manifest_sha256"):
        raise Fault(
            "DATA_CHANGED",
            "the manifest is not the one this run began with",
            "name the original one with --data",
            exit=USAGE,
        )
    opened.recipe = opened.recipe.resolved()
    if settings:
        opened.restorer()  # a setting that changes the network is refused before the recipe is written over
    if world.first:
        claim(opened.folder)
        write_text(opened.folder / "recipe.toml", opened.recipe.toml())
        opened.note(recipe_sha256=opened.recipe_sha256)
    return fit(opened, open_planes(opened, manifest, world, cache), world, sink=sink)


def open_planes(run: Run, manifest: cases.Manifest, world: World, cache: Path | None = None) -> planes.PlaneStore:
    """The planes to train on, cut by the first process, and by others where its folders are not theirs.

    Fault NO_HEALTHY (exit 3) without a healthy training plane.
    """
    canvas = run.recipe.make_canvas()
    if world.first:
        with Progress("reading cases", len(manifest)) as bar:
            store = plane_cache.opened(manifest, canvas, cache, lambda done, total: bar.to(done))
        for line in store.faults:
            say(line, error=True)
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
        raise Fault("UNHEALTHY_IN_TRAIN", f"{len(named)} training case(s) of label 0 have marked voxels: {', '.join(named[:10])}",
                    "label them 1, or empty their masks", exit=USAGE)  # fmt: skip
    return store


class PartLoss(nn.Module):
    """The thin module whose forward is one part's loss: what DDP wraps, since it synchronises only through forward."""

    def __init__(self, restorer: Restorer, part: str):
        super().__init__()
        self.module = restorer.get_submodule(part)
        self.part = part
        self.hidden = (restorer,)  # in a tuple: not registered, so DDP sees this part's parameters only

    def forward(self, batch: Batch) -> Tensor:
        return self.hidden[0].loss(batch, self.part).mean()


class Trainer:
    """State of a training: restorer, averaged twin, optimisers, step, history. Everything `save` writes, `load` reads."""

    def __init__(self, run: Run, store: planes.PlaneStore, world: World):
        self.run, self.store, self.world = run, store, world
        self.plan: Plan = run.recipe.make_plan()
        torch.manual_seed(self.plan.seed)
        self.restorer: Restorer = run.recipe.make_restorer()
        if not (run.folder / "resume.safetensors").is_file():
            self.restorer.begin()
        label = None if self.restorer.uses_labels else HEALTHY
        self.rows = store.select("train", label)
        if self.restorer.uses_labels and len(store.select("train", ANOMALOUS)) == 0:
            raise Fault("ONE_CLASS", f"'{self.restorer.name}' learns from healthy and diseased planes, the training split has only healthy ones",
                        "add cases of label 1 to the training split", exit=NO_INPUT)  # fmt: skip
        self.total = self.plan.total(len(self.rows))
        self.precision = precision_of(self.plan.precision, world.device)
        if self.plan.batch % world.size:
            raise Fault(
                "BATCH",
                f"batch {self.plan.batch} does not divide over {world.size} processes",
                "choose a multiple",
                exit=USAGE,
            )
        mean, spread = finish.healthy_statistics(store)
        self.restorer.healthy_mean.copy_(mean)
        self.restorer.healthy_spread.copy_(spread)
        self.restorer.to(world.device)
        self.average: Restorer = copy.deepcopy(self.restorer).requires_grad_(False).eval()
        self.losses: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.AdamW] = {}
        for part in self.restorer.parts():
            module: nn.Module = PartLoss(self.restorer, part)
            if world.size > 1:
                module = nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)
            self.losses[part] = module
            self.optimisers[part] = torch.optim.AdamW(
                self.restorer.get_submodule(part).parameters(),
                lr=self.plan.rate,
                betas=self.plan.betas,
                weight_decay=self.plan.weight_decay,
            )
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, float] = {}

    # -- one step ------------------------------------------------------------------------------------------------
    def batch(self, step: int) -> Batch:
        """This process's share of the global batch of 0-based `step`."""
        size = self.plan.batch // self.world.size
        first = step * self.plan.batch + self.world.rank * size
        positions = range(first, first + size)
        rows = np.array(
            [
                self.rows[order(self.plan.seed, p // len(self.rows), len(self.rows))[p % len(self.rows)]]
                for p in positions
            ]
        )
        draw = Draw(self.plan.seed, [("train", p) for p in positions])
        images, foreground = self.store.images(rows), self.store.foreground(rows)
        images, foreground = augment(images, foreground, self.plan.augment, draw.fork("augment"))
        labels = self.labels(rows) if self.restorer.uses_labels else None
        device = self.world.device
        return Batch(images.to(device), foreground.to(device), None if labels is None else labels.to(device), draw)

    def labels(self, rows: np.ndarray) -> Tensor:
        """Plane labels (B,) long; -1 where unknown."""
        return torch.as_tensor(self.store.index["label"].to_numpy(dtype=np.int64, na_value=-1)[rows])

    def advance(self) -> dict[str, float]:
        """One optimiser step of every part; the losses by part."""
        self.restorer.train()
        torch.manual_seed((self.plan.seed * 1_000_003 + self.step * 4_099 + self.world.rank) % 2**63)  # dropout only
        batch, values = self.batch(self.step), {}
        for part, module in self.losses.items():
            optimiser = self.optimisers[part]
            optimiser.param_groups[0]["lr"] = self.plan.rate_at(self.step, self.total)
            with torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16):
                try:
                    loss = module(batch)
                except ValueError as error:  # for example a network that does not take images of this size
                    raise Fault("RECIPE", f"[restorer] {error}", "correct the recipe", exit=USAGE) from error
            values[part] = self.world.mean(loss.item())
            if not math.isfinite(values[part]):
                raise self.diverged(f"the loss of '{part}' is {values[part]}")
            loss.backward()
            parameters = [p for p in self.restorer.get_submodule(part).parameters() if p.grad is not None]
            norm = nn.utils.clip_grad_norm_(parameters, self.plan.clip or math.inf)
            if not torch.isfinite(norm):  # else the next state saved would hold NaN weights
                raise self.diverged(f"the gradient of '{part}' is not finite")
            optimiser.step()
            # Every part's gradients: a loss may reach through another part (critic through generator).
            self.restorer.zero_grad(set_to_none=True)
        self.follow()
        self.step += 1
        return values

    def diverged(self, what: str) -> Fault:
        return Fault("NONFINITE_LOSS", f"{what} at step {self.step}",
                     "the last saved state is kept: train again with a lower training.rate", exit=INTERNAL)  # fmt: skip

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights towards the current ones; buffers are copied."""
        weight = 1 - self.plan.ema_at(self.step) if self.plan.ema else 1.0
        torch._foreach_lerp_(list(self.average.parameters()), list(self.restorer.parameters()), weight)
        for mine, theirs in zip(self.average.buffers(), self.restorer.buffers(), strict=True):
            mine.copy_(theirs)

    # -- state ---------------------------------------------------------------------------------------------------
    def save(self) -> None:
        """The resume state, in one atomic file; and the weights that restore."""
        if not self.world.first:
            return
        tensors = {f"model.{k}": v for k, v in self.restorer.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for part, optimiser in self.optimisers.items():
            for index, entry in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{part}.{index}.{k}": torch.as_tensor(v) for k, v in entry.items()}
        state = {"step": self.step, "history": self.history, "best": self.best}
        checkpoint.keep(self.run.folder / "resume.safetensors", self.run.folder / PREVIOUS)
        checkpoint.save(self.run.folder / "resume.safetensors", tensors, state)
        self.save_weights("last.safetensors")
        write_json(self.run.folder / "training_history.json", self.history)

    def save_weights(self, name: str) -> None:
        meta = {"step": self.step, "recipe": self.run.recipe.name, "recipe_sha256": self.run.recipe_sha256}
        checkpoint.save(self.run.folder / name, self.average.state_dict(), meta)

    def load(self) -> None:
        """Go back to the last `save`; where it is damaged, to the one before, and say so."""
        path = self.run.folder / "resume.safetensors"
        try:
            tensors, state, _ = checkpoint.load(path)
        except Fault as fault:
            if fault.code != "CHECKPOINT_CORRUPT" or not (self.run.folder / PREVIOUS).is_file():
                raise
            say(f"warning: {fault.message}: going on with the previous state", error=True)
            path = self.run.folder / PREVIOUS
            tensors, state, _ = checkpoint.load(path)

        def section(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        checkpoint.compare(path, {k: tuple(v.shape) for k, v in section("model.").items()}, self.restorer.state_dict())
        self.restorer.load_state_dict(section("model."))
        self.average.load_state_dict(section("average."))
        for part, optimiser in self.optimisers.items():
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in section(f"optimiser.{part}.").items():
                index, name = key.split(".", 1)
                entries.setdefault(int(index), {})[name] = value
            optimiser.load_state_dict({"state": entries, "param_groups": optimiser.state_dict()["param_groups"]})
        self.step, self.history, self.best = state["step"], state["history"], state["best"]


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffled order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def fit(run: Run, store: planes.PlaneStore, world: World, *, sink: str = "none") -> Run:
    """Train until the plan's last step, validating and saving on the way; then threshold, fingerprint and model card."""
    trainer = Trainer(run, store, world)
    if (run.folder / "resume.safetensors").is_file():
        trainer.load()
        say(f"resumed at step {trainer.step} of {trainer.total}")
    plan, total = trainer.plan, trainer.total if trainer.restorer.parts() else 0
    every = plan.every(total)
    tracker = sinks.open_sink(sink, run.folder) if world.first else sinks.Sink()
    stop = Signals()
    begun, running = time.monotonic(), []
    if world.first:
        parameters = sum(p.numel() for p in trainer.restorer.parameters())
        run.note(status="running", steps=total, planes=len(trainer.rows), parameters=parameters,
                 precision=str(trainer.precision).removeprefix("torch."), device=world.device.type, processes=world.size)  # fmt: skip
        say(
            f"{run.recipe.name}: {parameters:,} parameters, {len(trainer.rows):,} planes, {total:,} steps of {plan.batch}"
        )
    with stop, Progress("training", total, start=trainer.step) as bar:
        while trainer.step < total:
            started = time.monotonic()
            values = trainer.advance()
            running.append(values | {"step_seconds": time.monotonic() - started})
            bar.advance(note=" ".join(f"{k} {v:.4f}" for k, v in values.items()))
            interrupted = world.any(stop.seen)
            if trainer.step % every == 0 or trainer.step == total or interrupted:
                entry = {"step": trainer.step, "epoch": round(trainer.step * plan.batch / len(trainer.rows), 3),
                         "rate": plan.rate_at(trainer.step - 1, total), "seconds": round(time.monotonic() - begun, 2),
                         "step_seconds": round(float(np.median([r["step_seconds"] for r in running])), 4),
                         **{f"loss_{part}": float(np.mean([r[part] for r in running])) for part in trainer.losses}}  # fmt: skip
                running = []
                if world.first and not interrupted:
                    entry |= watch.validate(trainer)
                    watch.keep_best(trainer, entry)
                if not interrupted:
                    trainer.history.append(entry)
                    tracker.write(entry)
                trainer.save()
                world.wait()
            if interrupted:
                if world.first:
                    run.note(status="interrupted", step=trainer.step, stopped=now())
                raise Fault("INTERRUPTED", f"stopped at step {trainer.step}, state saved",
                            f"go on with: pseudohealthy train --resume {run.folder.name}", exit=INTERRUPTED)  # fmt: skip
    tracker.close()
    if world.first:
        if not trainer.restorer.parts():
            trainer.save()
        finish.finish(trainer)
    world.wait()
    return Run.open(run.folder)
