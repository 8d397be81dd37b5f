"""Every method with networks small enough for tests: what a setting of some name, or a network of some class, is then."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pseudohealthy.runs.recipe import Recipe

SIZE, CHANNELS = 16, 1
SETTINGS: dict[str, dict[str, Any]] = {
    "diffusion": {"levels": 40},
    "walk": {"start_levels": (8,), "calls": 3, "draws": 1},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {"width": 16, "multipliers": (1, 2), "blocks": 1, "block": {"scale_shift": True, "groups": 4}},
    "Classifier": {"width": 16, "multipliers": (1, 2), "blocks": 1, "block": {"groups": 4}},
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
    "ct-patched": {
        "windows": {"side": 8, "stride": 4},
        "network": {"ct": NETWORKS["CtUNet"], "unet": NETWORKS["UNet"]},
    },
    "patched": {"patches": {"side": 8, "overlap": "average", "stride": 4}},
    "spark": {"decoder_width": 32},
    "thor": {"harmonise": {"levels": (4,)}, "perceptual": {"trunk": "none"}},
    "stitched": {"repaint": {"level": 4, "calls": 2, "repeats": 2}, "perceptual": {"trunk": "none"}},
}


def merged(*tables: dict[str, Any]) -> dict[str, Any]:
    """Tables of settings over one another, the later ones uppermost, tables within them as well."""
    found: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


def small_recipe(name: str) -> Recipe:
    """The recipe of a method with tiny networks, on images of 16 x 16."""
    from pseudohealthy.restorers import restorer_class
    from pseudohealthy.runs.recipe import Recipe

    cls = restorer_class(name)
    keys = Recipe("test", restorer={"name": name}).resolved().restorer
    settings: dict[str, Any] = {
        table: {key: value for key, value in given.items() if key in keys[table]}
        for table, given in SETTINGS.items()
        if table in keys
    }
    settings |= {
        k: dict(NETWORKS[network.__name__]) for k, network in cls.nested.items() if network.__name__ in NETWORKS
    }
    canvas = {"size": SIZE, "channels": CHANNELS, "normalise": "unit"}
    return Recipe("test", canvas=canvas, restorer={"name": name, **copy.deepcopy(merged(settings, OWN.get(name, {})))})


class OnGPU(torch.Tensor):
    """A tensor of the CPU that takes the branches of CUDA: ``values.as_subclass(OnGPU)``."""

    is_cuda = True  # type: ignore[assignment]
