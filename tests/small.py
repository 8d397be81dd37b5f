"""Every method with networks small enough for tests: what a setting of some name, or a network of some class, is then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pseudohealthy.runs.recipe import Recipe

SIZE, CHANNELS = 16, 1
SETTINGS: dict[str, Any] = {"levels": 40, "max_level": 0, "depths": (8,), "depth": 8, "steps": 3, "draws": 1}
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {"width": 16, "multipliers": (1, 2), "blocks": 1, "scale_shift": True, "groups": 4},
    "Classifier": {"width": 16, "multipliers": (1, 2), "blocks": 1, "groups": 4},
    "ConvAutoencoder": {"width": 8, "latent": 8},
    "CtUNet": {"width": 16, "multipliers": (1, 2), "blocks": 1, "dropout": 0.0},
    "ResNet": {"width": 8, "layers": (1,), "outputs": 8},
    "Translator": {"width": 8, "blocks": 1},
    "PatchCritic": {"width": 8, "layers": 2},
    "Generator": {"width": 8},
    "Critic": {"width": 8},
}
# Where the names above do not fit a method.
OWN: dict[str, dict[str, Any]] = {
    "ct-patched": {"patch": 8, "stride": 4},
    "patched": {"patch": 8, "overlap": "average", "stride": 4},
    "spark": {"decoder_width": 32},
    "thor": {"harmonise": (4,), "perceptual": "none"},
    "stitched": {"repaint": 4, "repaint_steps": 2, "repeats": 2, "perceptual": "none"},
}


def small_recipe(name: str) -> Recipe:
    """The recipe of a method with tiny networks, on images of 16 x 16."""
    from pseudohealthy.restorers import restorer_class
    from pseudohealthy.runs.recipe import Recipe

    cls = restorer_class(name)
    keys = Recipe("test", restorer={"name": name}).resolved().restorer
    settings = {k: v for k, v in SETTINGS.items() if k in keys}
    settings |= {
        k: dict(NETWORKS[network.__name__]) for k, network in cls.nested.items() if network.__name__ in NETWORKS
    }
    canvas = {"size": SIZE, "channels": CHANNELS, "normalise": "unit"}
    return Recipe("test", canvas=canvas, restorer={"name": name, **settings | OWN.get(name, {})})


class OnGPU(torch.Tensor):
    """A tensor of the CPU that takes the branches of CUDA: ``values.as_subclass(OnGPU)``."""

    is_cuda = True  # type: ignore[assignment]
