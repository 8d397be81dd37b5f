"""What the benchmarks run on: untrained runs and phantoms. Speed does not depend on what a network
has learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run


def restorer(recipe: Recipe) -> Restorer:
    """A method as `detect` has it. Layers that start at zero are filled: a network that answers
    nothing hides errors."""
    torch.manual_seed(0)
    model = recipe.make_restorer()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.normal_(std=0.02, generator=generator)
    return model.eval().requires_grad_(False)


def untrained(name: str, folder: Path, *settings: str) -> Run:
    """A run folder of a recipe, as training would leave it, with random weights and a threshold of
    0.5."""
    recipe = Recipe.load(name).set(settings).resolved()
    run = Run.create(folder, recipe)
    sha256 = checkpoint.save(folder / "best_model.safetensors", restorer(recipe).state_dict(), {})
    (folder / "threshold.json").write_text(
        '{"value": 0.5, "source": "given", "quantile": 0.99, "n_patients": 1}'
    )
    run.note(status="finished", weights_sha256=sha256)
    return run


def slices(count: int, size: int, channels: int = 1) -> Tensor:
    """Planes (count, channels, size, size) in [-1, 1] through the brain of a synthetic head."""
    volume, _, _ = head(np.random.default_rng(0), shape=(2 * count, size, size), modality="MR")
    planes = torch.from_numpy(volume[count // 2 : count // 2 + count]).clamp(0, 600) / 300 - 1
    return planes[:, None].repeat(1, channels, 1, 1).float()


def heads(
    folder: Path, count: int, shape: tuple[int, int, int] = (8, 96, 96), split: str = "val"
) -> Path:
    """A folder layout of MR heads, half of them with a lesion and its mask: ``split/good``,
    ``split/bad``, ``masks``."""
    rng = np.random.default_rng(0)
    for name in ("train/good", f"{split}/good", f"{split}/bad", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        ill = index % 2 == 1
        volume, mask, affine = head(rng, shape=shape, lesion=0.2 if ill else None, modality="MR")
        nifti(
            folder / split / ("bad" if ill else "good") / f"head{index:03}.nii.gz", volume, affine
        )
        if ill:
            nifti(folder / "masks" / f"head{index:03}.nii.gz", mask.astype(np.uint8), affine)
    volume, _, affine = head(rng, shape=shape, modality="MR")
    nifti(folder / "train" / "good" / "other.nii.gz", volume, affine)
    return folder
