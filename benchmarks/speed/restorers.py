"""Each method per image and per volume against the plain loop of the published systems, exact in
tolerance.

    python benchmarks/speed/restorers.py [--only guided thor] [--planes 8] [--rounds 1] [--out FILE]

"exact" is float32 as `detect --precision fp32` runs it, "bf16" as it runs by default where the
processor has bf16. Both give the plain loop's twins (the published sizes only when named; a minute
each): the largest and the mean difference (images in [-1, 1]) stand in the row.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial

import made
import plain
import torch
from paired import Report, arguments, paired
from torch import Tensor

from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.networks.precision import for_inference
from pseudohealthy.restorers.base import Restorer
from pseudohealthy.runs.recipe import Recipe

# name: recipe, settings. The published sizes walk few of their levels: cost is the same at each.
METHODS = {
    "guided": ("wolleb-brats-small", ("restorer.walk.calls=5",)),
    "guided, published size": (
        "wolleb-brats",
        ("restorer.walk.calls=1", "restorer.quirks=none", "restorer.guidance.data_range=signed"),
    ),
    "thor": ("thor-atlas-small", ("restorer.walk.calls=7",)),
    "thor, published size": (
        "thor-atlas",
        ("restorer.walk.calls=3", "restorer.walk.eta=0.0", "restorer.quirks=none"),
    ),
    "patched": ("pddpm-ixi-small", ()),
    # Symmetry acts on the twin, afterwards.
    "ct-patched": ("ct-pddpm-small", ("restorer.reading.symmetry=false",)),
    "ddpm": ("anoddpm-nfbs-small", ()),
    "consensus": ("quick", ()),
}
LARGE = ("published",)  # one plane is enough: their networks gain nothing from a batch


def prepared(model: Restorer, precision: torch.dtype) -> Restorer:
    """A copy as `Detector` has it."""
    model = copy.deepcopy(model)
    for_inference(model, precision)
    return model


def fast(model: Restorer, images: Tensor, precision: torch.dtype) -> Tensor:
    """Twins as `apply.restore_planes` makes them."""
    with (
        torch.no_grad(),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16),
    ):
        twins = model.restore(
            images.contiguous(memory_format=torch.channels_last), draw(len(images))
        ).healthy
    return twins.float()


def draw(count: int) -> Draw:
    return Draw(0, [("plane", index) for index in range(count)])


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--only",
            nargs="+",
            default=[name for name in METHODS if LARGE[0] not in name],
            choices=METHODS,
        )
        parser.add_argument("--planes", type=int, default=8)
        parser.add_argument("--rounds", type=int, default=1)

    given = arguments(__doc__, more=more)
    report = Report("restorers", given.out)
    for name in given.only:
        recipe = Recipe.load(METHODS[name][0]).set(METHODS[name][1]).resolved()
        model = made.restorer(recipe)
        exact, half = (prepared(model, precision) for precision in (torch.float32, torch.bfloat16))
        large = any(word in name for word in LARGE)
        for planes in (1,) if large else (1, given.planes):
            images = made.slices(planes, model.size, model.channels)
            runs = {
                "plain": partial(plain.restore, model, images, draw(planes)),
                "exact": partial(fast, exact, images, torch.float32),
                "bf16": partial(fast, half, images, torch.bfloat16),
            }
            twins = {kind: run() for kind, run in runs.items()}
            times, foreign = paired(runs, 1 if large else given.rounds)
            what = (
                f"{name}, {'one image' if planes == 1 else f'{planes} planes'} of {model.size} px"
            )
            report.add(
                what + ", plain loop",
                1000 * times["plain"] / planes,
                "ms/image",
                foreign,
                network_calls=model.network_calls(),
            )
            for kind in ("exact", "bf16"):
                away = (twins[kind] - twins["plain"]).abs()
                report.add(
                    f"{what}, {kind}",
                    times["plain"] / times[kind],
                    "x plain",
                    foreign,
                    ms=1000 * times[kind] / planes,
                    largest=away.max().item(),
                    mean=away.mean().item(),
                )


if __name__ == "__main__":
    main()
