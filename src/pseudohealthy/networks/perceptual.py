"""Perceptual distance of two images by pixel: LPIPS (Zhang et al., CVPR 2018), or a stand-in.

LPIPS compares the features of an ImageNet network with learned weights per channel. Its weights are
not ours to ship: they are read from a folder, or from where the `lpips` and `torchvision` packages
keep them, and are then saved with the run. Nothing is downloaded. Without them the distance is a
structural dissimilarity, and `description`, which stands in every result, says which of the two it
was.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from pseudohealthy.errors import BAD_MODEL, Fault
from pseudohealthy.marks import File
from pseudohealthy.networks.ssim import ssim_map
from pseudohealthy.settings import checked

LpipsWeights = Annotated[
    str, File("the path of LPIPS weights or of a folder with them, or nothing")
]

SCALES = (1, 2, 4)  # of the stand-in, in pixels


class Trunk(NamedTuple):
    """An ImageNet network: layers, and the modules whose features are compared.

    A layer is (output channels, kernel, stride, padding), the two widths of a `Fire`, or "pool".
    """

    layers: tuple
    taps: tuple[int, ...]
    ceil: bool  # rounding of the poolings' output size
    pool: int


class Fire(nn.Module):
    """Squeeze to few channels, expand by 1x1 and 3x3 (Iandola et al. 2016), with torchvision's
    parameter names."""

    def __init__(self, channels: int, narrow: int, wide: int):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, narrow, 1)
        self.expand1x1 = nn.Conv2d(narrow, wide, 1)
        self.expand3x3 = nn.Conv2d(narrow, wide, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def _plain(width: int) -> tuple[int, int, int, int]:
    return width, 3, 1, 1


TRUNKS = {
    "squeeze": Trunk(
        (
            (64, 3, 2, 0),
            "pool",
            (16, 64),
            (16, 64),
            "pool",
            (32, 128),
            (32, 128),
            "pool",
            (48, 192),
            (48, 192),
            (64, 256),
            (64, 256),
        ),
        taps=(1, 4, 7, 9, 10, 11, 12),
        ceil=True,
        pool=3,
    ),
    "alex": Trunk(
        (
            (64, 11, 4, 2),
            "pool",
            (192, 5, 1, 2),
            "pool",
            (384, 3, 1, 1),
            (256, 3, 1, 1),
            (256, 3, 1, 1),
        ),
        taps=(1, 4, 7, 9, 11),
        ceil=False,
        pool=3,
    ),
    "vgg": Trunk(
        (
            *map(_plain, (64, 64)),
            "pool",
            *map(_plain, (128, 128)),
            "pool",
            *map(_plain, (256, 256, 256)),
            "pool",
            *map(_plain, (512, 512, 512)),
            "pool",
            *map(_plain, (512, 512, 512)),
        ),
        taps=(3, 8, 15, 22, 29),
        ceil=False,
        pool=2,
    ),
}


def features(trunk: Trunk) -> tuple[nn.Sequential, list[int]]:
    """The trunk, its modules numbered as torchvision does, and the channels at its taps."""
    modules: list[nn.Module] = []
    widths: list[int] = []
    channels = 3
    for layer in trunk.layers:
        if layer == "pool":
            modules.append(nn.MaxPool2d(trunk.pool, 2, ceil_mode=trunk.ceil))
        elif len(layer) == 2:
            modules.append(Fire(channels, *layer))
            channels = 2 * layer[1]
        else:
            width, kernel, stride, padding = layer
            modules += [nn.Conv2d(channels, width, kernel, stride, padding), nn.ReLU()]
            channels = width
        widths += [channels] * (len(modules) - len(widths))
    return nn.Sequential(*modules), [widths[tap] for tap in trunk.taps]


class Perceptual(nn.Module):
    """Distance (B, 1, H, W) of two images (B, C, H, W) in [-1, 1]; 0 where they agree.

    Parameters are held as buffers: fixed, not counted, but saved with the run, whose results are
    therefore the same on a machine without the weights. Three channels are taken as colours, any
    other number one by one, as grey images.

    Args:
        trunk: "squeeze", "alex" or "vgg"; "none" is the stand-in by choice.
        weights: A folder, or one file, with the weights (torchvision's names for the trunk, lpips'
            names for the heads, or lpips' own for both; .pth or .safetensors); "" looks where the
            two packages keep theirs.
    """

    ready: Tensor
    shift: Tensor
    scale: Tensor

    @checked
    def __init__(
        self,
        trunk: Literal["squeeze", "alex", "vgg", "none"] = "squeeze",
        weights: LpipsWeights = "",
    ):
        super().__init__()
        self.trunk = trunk
        if trunk == "none":
            return
        self.taps = TRUNKS[trunk].taps
        self.features, widths = features(TRUNKS[trunk])
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in widths)
        for module in list(self.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, torch.zeros_like(parameter))
        self.register_buffer("ready", torch.tensor(False))
        # ImageNet's mean and spread in [-1, 1]
        self.register_buffer(
            "shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False
        )
        tensors = gather([Path(weights)] if weights else installed(trunk), trunk)
        if tensors.keys() >= self.weight_names():
            self.load_weights(tensors)

    def weight_names(self) -> set[str]:
        return {name for name in self.state_dict() if name != "ready"}

    def load_weights(self, tensors: dict[str, Tensor]) -> None:
        """Take the trunk and the heads by name.

        Raises:
            Fault: PERCEPTUAL (exit 5) when they are of another trunk.
        """
        state = {name: tensors[name] for name in self.weight_names()}
        try:
            # meta: checked only.
            self.load_state_dict(state | {"ready": torch.tensor(True)}, assign=self.ready.is_meta)
        except RuntimeError as error:
            raise Fault(
                "PERCEPTUAL",
                f"these perceptual weights do not fit '{self.trunk}'"
                f" ({str(error).splitlines()[-1].strip()})",
                "name another trunk or other weights",
                exit=BAD_MODEL,
            ) from None

    @property
    def description(self) -> str:
        """The name of this distance, for every result that used it."""
        if self.trunk != "none" and bool(self.ready):
            return f"LPIPS ({self.trunk})"
        stand_in = "structural dissimilarity at three scales"
        return f"{stand_in} as a stand-in for LPIPS" + (
            "" if self.trunk == "none" else f" ({self.trunk} weights not found)"
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        # Distances are small differences of large numbers: never in half precision.
        with torch.autocast(x.device.type, enabled=False):
            x, y = x.float(), y.float()
            if self.trunk == "none" or not self.ready:
                return dissimilarity(x, y)
            if x.shape[1] == 3:
                return self.lpips(x, y)
            grey = [
                image.reshape(-1, 1, *image.shape[2:]).expand(-1, 3, -1, -1) for image in (x, y)
            ]
            return self.lpips(*grey).reshape(len(x), -1, *x.shape[2:]).mean(1, keepdim=True)

    def lpips(self, x: Tensor, y: Tensor) -> Tensor:
        """Spatial LPIPS (B, 1, H, W) of colour images (B, 3, H, W)."""
        total = torch.zeros_like(x[:, :1])
        x, y = ((image - self.shift) / self.scale for image in (x, y))
        heads = iter(self.heads)
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in self.taps:
                distance = next(heads)((unit(x) - unit(y)).square())
                total += F.interpolate(
                    distance, size=total.shape[2:], mode="bilinear", align_corners=False
                )
        return total


def unit(features: Tensor) -> Tensor:
    """Features scaled to vectors of length 1 at every place."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + 1e-10)


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004), averaged over channels and scales: the stand-in for LPIPS.

    Args:
        x, y: Images (B, C, H, W) in [-1, 1].

    Returns:
        (B, 1, H, W) in [0, 1]; negative structure counts as none.
    """
    total = torch.zeros_like(x[:, :1])
    for scale in SCALES:
        a, b = (F.avg_pool2d((image + 1) / 2, scale, ceil_mode=True) for image in (x, y))
        distance = (
            (1 - ssim_map(a, b, data_range=1.0, window=7, sigma=1.0))
            .clamp(0, 1)
            .mean(1, keepdim=True)
        )
        total += F.interpolate(distance, size=x.shape[2:], mode="bilinear", align_corners=False)
    return total / len(SCALES)


def installed(trunk: str) -> list[Path]:
    """Files with weights: heads inside the lpips package, trunks in torch's download folder."""
    package = importlib.util.find_spec("lpips")
    heads = [
        Path(place) / "weights" / "v0.1" / f"{trunk}.pth"
        for place in (package and package.submodule_search_locations) or ()
    ]
    name = {"squeeze": "squeezenet1_1-*.pth", "alex": "alexnet-*.pth", "vgg": "vgg16-*.pth"}[trunk]
    return [*heads, *sorted((Path(torch.hub.get_dir()) / "checkpoints").glob(name))]


def gather(places: list[Path], trunk: str) -> dict[str, Tensor]:
    """All tensors of some files, and of folders' files for this trunk, under our names; later ones
    win."""
    files = [
        f
        for place in places
        for f in (sorted(place.rglob(f"{trunk}*")) if place.is_dir() else [place])
    ]
    tensors: dict[str, Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors" and file.is_file():
            content: dict = load_file(file)
        elif file.suffix in (".pth", ".pt") and file.is_file():
            content = torch.load(file, map_location="cpu", weights_only=True)
        else:
            continue
        # A THOR checkpoint holds the distance it was evaluated with.
        content = content.get("model_weights", content)
        tensors |= {
            named(key): value for key, value in content.items() if isinstance(value, Tensor)
        }
    return tensors


def named(key: str) -> str:
    """Our name of a weight of torchvision, of lpips, or of lpips inside a THOR checkpoint."""
    key = re.sub(r"^l_pips_\w+?\.(?=net|lin)", "", key)
    key = re.sub(r"^net\.slice\d+\.", "features.", key)
    return re.sub(r"^lin(?:s\.)?(\d+)\.model\.1\.", r"heads.\1.", key)
