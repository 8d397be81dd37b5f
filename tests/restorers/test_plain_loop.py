"""The plain loops of benchmarks/speed, which every speed is measured against, restore what the
methods do."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.runs.recipe import Recipe

SPEED = Path(__file__).parents[2] / "benchmarks" / "speed"
NET = "network={width=8, multipliers=[1, 2], blocks=1, block={groups=4}}"
METHODS = {
    "ddpm": [NET, "walk={calls=4, draws=2}"],
    "thor": [NET, "walk={calls=3}", "perceptual={trunk=none}"],
    "patched": [NET, "patches={side=8}"],
    "ct-patched": [
        NET.replace("network={", "network.unet={"),
        "network.architecture=unet",
        "windows={side=8, stride=4}",
    ],
    "guided": [
        NET,
        "walk={calls=3}",
        "classifier={width=8, multipliers=[1, 2], attention={head_channels=8}, block={groups=4}}",
    ],
}


@pytest.mark.parametrize("method", METHODS)
def test_the_plain_loop_restores_the_same(method, monkeypatch):
    monkeypatch.syspath_prepend(SPEED)
    plain, made = importlib.import_module("plain"), importlib.import_module("made")
    texts = [f"restorer.{text}".replace("trunk=none", 'trunk="none"') for text in METHODS[method]]
    model = made.restorer(
        Recipe.parse(f'[canvas]\nsize = 16\n[restorer]\nname = "{method}"').set(texts).resolved()
    )
    images = made.slices(2, 16)
    with torch.no_grad():
        twins = model.restore(images, Draw(0, [1, 2])).healthy
    torch.testing.assert_close(
        plain.restore(model, images, Draw(0, [1, 2])), twins, atol=1e-4, rtol=0
    )
