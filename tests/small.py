"""Every method with networks small enough for tests: what a setting of some name, or a network of
some class, is then."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from pseudohealthy.restorers.base import Batch, Restorer
    from pseudohealthy.runs.recipe import Recipe

SIZE, CHANNELS = 16, 1
SETTINGS: dict[str, dict[str, Any]] = {
    "diffusion": {"levels": 40},
    "walk": {"start_levels": (8,), "calls": 3, "draws": 1},
}
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {
        "width": 16,
        "multipliers": (1, 2),
        "blocks": 1,
        "block": {"scale_shift": True, "groups": 4},
    },
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
    "stitched": {
        "repaint": {"level": 4, "calls": 2, "repeats": 2},
        "perceptual": {"trunk": "none"},
    },
}


def merged(*tables: dict[str, Any]) -> dict[str, Any]:
    """Tables of settings over one another, the later ones uppermost, tables within them as well."""
    found: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


def small_recipe(name: str, channels: int = CHANNELS) -> Recipe:
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
        k: dict(NETWORKS[network.__name__])
        for k, network in cls.nested.items()
        if network.__name__ in NETWORKS
    }
    canvas = {"size": SIZE, "channels": channels, "normalise": "unit"}
    return Recipe(
        "test",
        canvas=canvas,
        restorer={"name": name, **copy.deepcopy(merged(settings, OWN.get(name, {})))},
    )


def build(name: str, channels: int = CHANNELS) -> Restorer:
    """The method with tiny networks, weights drawn (zero-initialised layers, too) from a fixed
    seed."""
    restorer = recipe_of(name, channels).make_restorer()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in restorer.parameters():
            if parameter.abs().max() == 0:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator))
        restorer.healthy_mean.fill_(-0.3)
        restorer.healthy_spread.fill_(0.2)
    return restorer.eval()


def recipe_of(name: str, channels: int = CHANNELS) -> Recipe:
    torch.manual_seed(0)
    return small_recipe(name, channels)


def images(count: int, seed: int = 0, channels: int = CHANNELS) -> Tensor:
    """Smooth pictures in [-1, 1], no two alike."""
    noise = torch.randn(
        count, channels, SIZE // 4, SIZE // 4, generator=torch.Generator().manual_seed(seed)
    )
    return nn.functional.interpolate(noise, size=(SIZE, SIZE), mode="bicubic").clamp(-1, 1)


def batch_of(restorer: Restorer, count: int, channels: int = CHANNELS) -> Batch:
    from pseudohealthy.diffusion.noise import Draw
    from pseudohealthy.restorers.base import Batch

    x = images(count, channels=channels)
    labels = torch.arange(count) % 2 if restorer.uses_labels else None
    return Batch(x, x[:, 0] > -0.5, labels, Draw(0, [("train", i) for i in range(count)]))


def restored(restorer: Restorer, x: Tensor, keys: list[int]) -> dict[str, Tensor]:
    """Every tensor of a restoration, by name."""
    from pseudohealthy.diffusion.noise import Draw

    with torch.no_grad():
        found = restorer.restore(x, Draw(5, [("case", key) for key in keys]))
    named = {"healthy": found.healthy, "map": found.map, "score": found.score}
    return {k: v for k, v in named.items() if v is not None} | {
        f"trail{i}": v for i, v in enumerate(found.trail)
    }


def filled(network: nn.Module) -> nn.Module:
    """With weights everywhere: published files have no layer of zeros."""
    torch.manual_seed(3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    return network.eval().requires_grad_(False)


class OnGPU(torch.Tensor):
    """A tensor of the CPU that takes the branches of CUDA: ``values.as_subclass(OnGPU)``."""

    is_cuda = True  # type: ignore[assignment]


def on_gpu(value: Any) -> Any:
    """A tensor or a network on the GPU; where there is none, the CPU's, whose tensors take the
    branches of CUDA."""
    if torch.cuda.is_available():
        return value.cuda()
    return value.as_subclass(OnGPU) if isinstance(value, Tensor) else value
