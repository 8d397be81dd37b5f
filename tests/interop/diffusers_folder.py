"""Stored answers of diffusers and the folder of a model, and how a folder is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.interop.weights import import_weights

VECTORS = Path(__file__).parent / "vectors"
LINEAR = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "variance_type": "fixed_small",
    "clip_sample": True,
}


def vector(case):
    """(config, weights, x, t, out)"""
    arrays = np.load(VECTORS / f"unet2d_{case}.npz")
    weights = {
        key.removeprefix("weights."): torch.from_numpy(arrays[key].astype(np.float32))
        for key in arrays
        if key.startswith("weights.")
    }
    return (
        json.loads(str(arrays["config"])),
        weights,
        *(torch.from_numpy(arrays[key]) for key in ("x", "t", "out")),
    )


def written(folder, config, weights, scheduler=None, *, pipeline=True, pickle=False):
    """As `save_pretrained` leaves it."""
    model = folder / "unet" if pipeline else folder
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(config))
    if pickle:
        torch.save(weights, model / "diffusion_pytorch_model.bin")
    else:
        save_file(weights, model / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
    if scheduler is not None:
        (folder / "scheduler").mkdir()
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    return folder


def refused(code, folder, out, exit=BAD_MODEL):
    with pytest.raises(Fault, match=code) as caught:
        import_weights("diffusers", folder, out)
    assert caught.value.exit == exit and not out.exists() and "\n" not in str(caught.value)
    return str(caught.value)
