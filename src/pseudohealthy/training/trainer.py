"""The state of a training: what a step changes, what is saved, and how it is read back.

Order of planes, augmentation, noise levels and noise are functions of (seed, step, position in the
global batch).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.devices import precision_of
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.errors import INTERNAL, NO_INPUT, USAGE, Fault
from pseudohealthy.interop import pretrained
from pseudohealthy.io.atomic import write_json
from pseudohealthy.processes import World
from pseudohealthy.progress import say
from pseudohealthy.restorers.base import Batch, Restorer
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.budget import Budget
from pseudohealthy.runs.run import Run
from pseudohealthy.training import plane_store
from pseudohealthy.training.augment import augment
from pseudohealthy.training.plane_store import healthy_statistics

PREVIOUS = "resume-previous.safetensors"


class PartLoss(nn.Module):
    """A module whose forward is one part's loss, for DDP, which synchronises only through
    forward."""

    def __init__(self, restorer: Restorer, part: str):
        super().__init__()
        self.module = restorer.get_submodule(part)
        self.part = part
        # In a tuple: not registered, so DDP sees this part's parameters only.
        self.hidden = (restorer,)

    def forward(self, batch: Batch) -> Tensor:
        return self.hidden[0].loss(batch, self.part).mean()


class Trainer:
    """State of a training: restorer, its averaged copy, optimisers, step and history.

    Everything that `save` writes, `load` reads.
    """

    def __init__(self, run: Run, store: plane_store.PlaneStore, world: World):
        self.run, self.store, self.world = run, store, world
        self.budget: Budget = run.recipe.make_budget()
        torch.manual_seed(self.budget.seed)
        self.restorer: Restorer = run.recipe.make_restorer()
        if not (run.folder / "resume.safetensors").is_file():
            pretrained.begin(self.restorer)
        label = None if self.restorer.uses_labels else HEALTHY
        self.rows = store.select("train", label)
        if self.restorer.uses_labels and len(store.select("train", ANOMALOUS)) == 0:
            raise Fault(
                "ONE_CLASS",
                f"'{self.restorer.name}' learns from healthy and diseased planes, the training"
                " split has only healthy ones",
                "add cases of label 1 to the training split",
                exit=NO_INPUT,
            )
        self.total = self.budget.total(len(self.rows))
        self.precision = precision_of(self.budget.precision, world.device)
        if self.budget.batch % world.size:
            raise Fault(
                "BATCH",
                f"batch {self.budget.batch} does not divide over {world.size} processes",
                "choose a multiple",
                exit=USAGE,
            )
        mean, spread = healthy_statistics(store)
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
                lr=self.budget.rate,
                betas=self.budget.betas,
                weight_decay=self.budget.weight_decay,
            )
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, float] = {}

    # -- one step ----------------------------------------------------------------------------------
    def batch(self, step: int, count: int | None = None) -> Batch:
        """This process's share of the global batch of a step.

        Args:
            step: Number of the step, from 0.
            count: Take only the first so many images.
        """
        size = self.budget.batch // self.world.size
        start = step * self.budget.batch + self.world.rank * size
        positions = range(start, start + min(size, count or size))
        rows = np.array(
            [
                self.rows[
                    order(self.budget.seed, p // len(self.rows), len(self.rows))[p % len(self.rows)]
                ]
                for p in positions
            ]
        )
        draw = Draw(self.budget.seed, [("train", p) for p in positions])
        images, foreground = self.store.images(rows), self.store.foreground(rows)
        images, foreground = augment(images, foreground, self.budget.augment, draw.fork("augment"))
        labels = self.labels(rows) if self.restorer.uses_labels else None
        device = self.world.device
        return Batch(
            images.to(device),
            foreground.to(device),
            None if labels is None else labels.to(device),
            draw,
        )

    def labels(self, rows: np.ndarray) -> Tensor:
        """Plane labels (B,) long; -1 where unknown."""
        return torch.as_tensor(
            self.store.index["label"].to_numpy(dtype=np.int64, na_value=-1)[rows]
        )

    def advance(self) -> dict[str, float]:
        """Take one optimiser step of every part, and return the losses by part."""
        self.restorer.train()
        # Dropout only.
        torch.manual_seed(
            (self.budget.seed * 1_000_003 + self.step * 4_099 + self.world.rank) % 2**63
        )
        batch, values = self.batch(self.step), {}
        for part, module in self.losses.items():
            optimiser = self.optimisers[part]
            optimiser.param_groups[0]["lr"] = self.budget.rate_at(self.step, self.total)
            with self.computing():
                loss = module(batch)
            values[part] = self.world.mean(loss.item())
            if not math.isfinite(values[part]):
                raise self.diverged(f"the loss of '{part}' is {values[part]}")
            loss.backward()
            parameters = [
                p for p in self.restorer.get_submodule(part).parameters() if p.grad is not None
            ]
            norm = nn.utils.clip_grad_norm_(parameters, self.budget.clip or math.inf)
            if not torch.isfinite(norm):  # else the next state saved would hold NaN weights
                raise self.diverged(f"the gradient of '{part}' is not finite")
            optimiser.step()
            # Every part's gradients: a loss may reach through another part (critic through
            # generator).
            self.restorer.zero_grad(set_to_none=True)
        self.follow()
        self.step += 1
        return values

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute in the precision of the training.

        Raises:
            Fault: RECIPE (exit 2) where a network refuses its images, such as those of this size.
        """
        try:
            with torch.autocast(
                self.world.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16
            ):
                yield
        except ValueError as error:
            raise Fault(
                "RECIPE", f"[restorer] {error}", "correct the recipe", exit=USAGE
            ) from error

    def loss(self, model: Restorer, batch: Batch, part: str) -> Tensor:
        """Loss of one part on a batch, outside of a step."""
        with self.computing():
            return model.loss(batch, part).float().mean()

    def diverged(self, reason: str) -> Fault:
        """The fault of a loss or gradient that is not finite.

        Before the first save the settings never trained, and are refused (exit 2); later the
        training failed (exit 1).
        """
        saved = (self.run.folder / "resume.safetensors").is_file()
        hint = "the last saved state is kept: " if saved else ""
        cure = f"{hint}train again with a lower training.rate"
        message = f"{reason} at step {self.step}"
        return Fault("NONFINITE_LOSS", message, cure, exit=INTERNAL if saved else USAGE)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the averaged weights towards the current ones; buffers are copied."""
        weight = 1 - self.budget.ema_at(self.step) if self.budget.ema else 1.0
        torch._foreach_lerp_(
            list(self.average.parameters()), list(self.restorer.parameters()), weight
        )
        for mine, theirs in zip(self.average.buffers(), self.restorer.buffers(), strict=True):
            mine.copy_(theirs)

    # -- state -------------------------------------------------------------------------------------
    def save(self) -> None:
        """Write the state to resume from, in one atomic file, and the weights that restore."""
        if not self.world.first:
            return
        tensors = {f"model.{k}": v for k, v in self.restorer.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for part, optimiser in self.optimisers.items():
            for index, entry in optimiser.state_dict()["state"].items():
                tensors |= {
                    f"optimiser.{part}.{index}.{k}": torch.as_tensor(v) for k, v in entry.items()
                }
        state = {"step": self.step, "history": self.history, "best": self.best}
        checkpoint.keep(self.run.folder / "resume.safetensors", self.run.folder / PREVIOUS)
        checkpoint.save(self.run.folder / "resume.safetensors", tensors, state)
        self.save_weights("last.safetensors")
        write_json(self.run.folder / "training_history.json", self.history)

    def save_weights(self, name: str) -> None:
        meta = {
            "step": self.step,
            "recipe": self.run.recipe.name,
            "recipe_sha256": self.run.recipe_sha256,
        }
        checkpoint.save(self.run.folder / name, self.average.state_dict(), meta)

    def rewind(self, weights: dict[str, Tensor]) -> None:
        """Forget the steps since the last `save`, or since the beginning with these weights."""
        if (self.run.folder / "resume.safetensors").is_file():
            return self.load()
        self.restorer.load_state_dict(weights)
        self.average.load_state_dict(weights)
        for optimiser in self.optimisers.values():
            optimiser.state.clear()
        self.step = 0

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

        checkpoint.compare(
            path,
            {k: tuple(v.shape) for k, v in section("model.").items()},
            self.restorer.state_dict(),
        )
        self.restorer.load_state_dict(section("model."))
        self.average.load_state_dict(section("average."))
        for part, optimiser in self.optimisers.items():
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in section(f"optimiser.{part}.").items():
                index, name = key.split(".", 1)
                entries.setdefault(int(index), {})[name] = value
            optimiser.load_state_dict(
                {"state": entries, "param_groups": optimiser.state_dict()["param_groups"]}
            )
        self.step, self.history, self.best = state["step"], state["history"], state["best"]


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The shuffled order of one epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)
