"""Which depth, draws, steps and smoothing for splotched MNIST? Chosen on validation digits only,
never on test digits.

    python benchmarks/mnist_settings.py RUN MNIST_FOLDER [--digits 500]

RUN is a trained `mnist-splotch*` run, MNIST_FOLDER holds the idx files. Of the validation digits of
the run, half stay clean and half are splotched; every setting is scored on them with the run's
weights. Prints the whole table, best pixel AP first; image scores are the mean of the highest 1 %
of a map.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import splotch
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.io.scan import Scan
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.metrics import curves
from pseudohealthy.runs.run import Run

# Of the signed residual, and of the map (gate before and after)
SMOOTHINGS = [(sigma, 0.0) for sigma in (0.0, 1.0, 1.5, 2.0, 2.5)] + [
    (0.0, sigma) for sigma in (1.0, 1.5, 2.0, 2.5)
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="what `prepare mnist-splotch` wrote")
    parser.add_argument("--digits", type=int, default=500)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    canvas = run.recipe.make_canvas()
    images, masks = validation_digits(load(arguments.data), canvas, arguments.digits)
    model, _ = run.restorer()
    inside = torch.ones(len(images), *images.shape[2:])
    single = {}
    for depth in (200, 300, 350, 400, 500):
        model.walk = replace(model.walk, start_levels=(depth,), calls=1, eta=0.0, draws=1)
        single[depth] = torch.stack([restored(model, images, draw) for draw in range(8)])
    rows = []
    for depths in ((200,), (300,), (350,), (400,), (500,), (300, 400), (400, 500)):
        for draws in (1, 4, 8):
            healthy = torch.stack([single[depth][:draws].mean(0) for depth in depths]).mean(0)
            for kind, (smooth, after), gate in itertools.product(
                ("absolute", "positive"), SMOOTHINGS, (0, 4, 32)
            ):
                amap = AnomalyMap(kind=kind, smooth=smooth, gate=gate, smooth_after=after)
                maps = amap.residual_map(images, healthy, inside)
                pixel = curves.curve(maps.numpy().ravel(), masks.ravel()).average_precision
                flat = maps.flatten(1).sort(1, descending=True).values
                rows.append(
                    (
                        pixel,
                        image_auroc(flat, 0.01, masks),
                        depths,
                        draws,
                        kind,
                        smooth,
                        gate,
                        after,
                    )
                )
    print("pixel AP  image AUROC  depths      draws  kind      smooth  gate  smooth_after")
    for pixel, auroc, depths, draws, kind, smooth, gate, after in sorted(rows, reverse=True):
        print(
            f"{pixel:8.4f}  {auroc:11.4f}  {depths!s:10}  {draws:5}  {kind:8}  {smooth:6}  {gate:4}"
            f"  {after:12}"
        )


def validation_digits(manifest: Manifest, canvas, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """Clean, then splotched validation digits on the canvas, and their masks (False for clean
    ones)."""
    rng = np.random.default_rng(7)
    chosen = list(manifest.split("val"))[: 2 * count]
    planes, masks = [], []
    for index, case in enumerate(chosen):
        image = io.read_image(case.image, case.root).voxels[0, 0] / 255
        mask = np.zeros(image.shape, bool)
        if index >= count:
            image, mask = splotch(image, rng)
        planes.append(canvas.fit(Scan.from_array(np.rint(image * 255))).planes)
        masks.append(
            canvas.fit_mask(
                mask[None], canvas.fit(Scan.from_array(np.rint(image * 255))).placement
            )[0]
        )
    return torch.cat(planes), np.stack(masks)


@torch.no_grad()
def restored(model, images: torch.Tensor, draw: int) -> torch.Tensor:
    parts = []
    for rows in torch.arange(len(images)).split(200):
        keys = [(int(row), draw) for row in rows]
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(model.restore(images[rows], Draw(0, keys)).healthy.float())
    return torch.cat(parts)


def image_auroc(ordered: torch.Tensor, share: float, masks: np.ndarray) -> float:
    top = max(1, round(share * ordered.shape[1]))
    return curves.auroc(ordered[:, :top].mean(1).numpy(), masks.any((1, 2)))


if __name__ == "__main__":
    main()
