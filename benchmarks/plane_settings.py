"""Which depths, smoothing, gate and score for a trained run? Chosen on labelled *validation* planes, never on test cases.

    python benchmarks/plane_settings.py RUN DATA [--planes 200]

RUN is a trained `ddpm` run, DATA the manifest it was trained on, with masks for validation cases. Plane images and masks
are on the model's grid. Prints the table, best voxel AP first.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
import torch

from pseudohealthy import cases
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.evaluation import curves
from pseudohealthy.maps import AnomalyMap
from pseudohealthy.planes import build_cache
from pseudohealthy.run import Run
from pseudohealthy.training.watch import chunks, spread_out


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--planes", type=int, default=200)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    store = build_cache(
        cases.load(arguments.data).split("val"), run.recipe.make_canvas(), arguments.run / "validation-planes"
    )
    rows = spread_out(store.select("val"), arguments.planes)
    images, inside, masks = store.images(rows), store.foreground(rows), store.masks(rows)
    if masks is None:
        raise SystemExit("the validation cases have no masks")
    model, _ = run.restorer()
    labels = masks.flatten(1).any(1).numpy()
    twins = {}
    for depth in (150, 250, 400, 550):
        model.depths, model.steps, model.eta, model.draws = (depth,), 1, 0.0, 8
        parts = []
        for part in chunks(np.arange(len(rows)), 16):
            with torch.autocast("cpu", torch.bfloat16):
                parts.append(model.restore(images[part], Draw(0, [int(rows[i]) for i in part])).healthy.float())
        twins[depth] = torch.cat(parts)
    found = []
    for depths in ((150,), (250,), (400,), (550,), (250, 400), (400, 550), None):
        twin = -torch.ones_like(images) if depths is None else torch.stack([twins[d] for d in depths]).mean(0)
        for kind, smooth, gate, erode in itertools.product(
            ("absolute", "positive"), (0.0, 2.0, 3.0), (0, 2, 4), (0, 4)
        ):
            amap = AnomalyMap(kind=kind, smooth=smooth, gate=gate, erode=erode)
            maps = amap.residual_map(images, twin, inside)
            keep = (inside | masks).numpy()
            pixel = curves.average_precision(maps.numpy()[keep], masks.numpy()[keep])
            for share in (0.005, 0.02):
                scorer = AnomalyMap(share=share)
                scores = np.array(
                    [scorer.score_of(m, f) for m, f in zip(maps, amap.inside(inside).bool(), strict=True)]
                )
                found.append(
                    (pixel, curves.auroc(scores, labels), depths or "intensity", kind, smooth, gate, erode, share)
                )
    print(
        f"{len(rows)} planes, {labels.sum()} with lesion; prevalence {masks.numpy()[(inside | masks).numpy()].mean():.4f}"
    )
    print("voxel AP  plane AUROC  depths      kind      smooth  gate  erode  share")
    for pixel, auroc, depths, kind, smooth, gate, erode, share in sorted(found, key=lambda row: -row[0]):
        print(f"{pixel:8.4f}  {auroc:11.4f}  {depths!s:10}  {kind:8}  {smooth:6}  {gate:4}  {erode:5}  {share:5}")


if __name__ == "__main__":
    main()
