"""Trainers, and the weights that a training has left."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from pseudohealthy.data.load import load
from pseudohealthy.processes import World
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.training import loop
from pseudohealthy.workflows.train import open_planes

CPU = World(0, 1, torch.device("cpu"))


def weights(run: Run | Path, name: str = "resume") -> dict[str, torch.Tensor]:
    folder = run.folder if isinstance(run, Run) else run
    return checkpoint.load(folder / f"{name}.safetensors")[0]


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def trainer(recipe: Recipe, data: Path, folder: Path) -> loop.Trainer:
    manifest = load(data)
    run = Run.create(
        folder, recipe, data=os.path.relpath(data, folder), manifest_sha256=manifest.sha256
    )
    return loop.Trainer(run, open_planes(run, manifest, CPU), CPU)
