"""One picture of many methods: the same test planes, each with its healthy twin and anomaly map.

    python benchmarks/real_data/panels.py DATA OUT.png RUN... [--planes 3]

The planes are those with the largest reference of evenly spread test patients (where no case has a
mask: the first anomalous plane of each); every map has its own run's scale, up to its
99.8 % quantile, since the units of methods differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.load import load
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.restorers.apply import keys, mapped, restore_planes
from pseudohealthy.runs.run import Run
from pseudohealthy.training.plane_store import PlaneStore, build_cache


def chosen(store: PlaneStore, number: int) -> list[tuple[str, int]]:
    """(case, plane) of the largest reference of each of `number` test patients, or of a plane
    labelled anomalous."""
    rows = store.select("test")
    masks = store.masks(rows)
    if masks is None:
        rows = store.select("test", ANOMALOUS)
    index = store.index.iloc[rows].assign(
        size=1 if masks is None else masks.flatten(1).sum(1).numpy()
    )
    best = (
        index[index["size"] > 0]
        .sort_values("size")
        .groupby("patient_id")
        .tail(1)
        .sort_values("patient_id")
    )
    picked = best.iloc[np.linspace(0, len(best) - 1, min(number, len(best))).round().astype(int)]
    return list(zip(picked["case_id"], picked["plane"], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--planes", type=int, default=3)
    arguments = parser.parse_args()
    manifest = load(arguments.data)
    caches = arguments.out.parent / "planes"
    wanted = chosen(
        build_cache(manifest, Run.open(arguments.runs[0]).recipe.make_canvas(), caches),
        arguments.planes,
    )
    figure = Figure(
        figsize=(1 + 4.6 * len(wanted), 1.55 * (len(arguments.runs) + 1)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(arguments.runs) + 1, 3 * len(wanted), squeeze=False)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[], frame_on=False)
    for line, folder in enumerate(arguments.runs):
        run = Run.open(folder)
        store = build_cache(manifest, run.recipe.make_canvas(), caches)
        places = list(zip(store.index["case_id"], store.index["plane"], strict=True))
        rows = np.array([places.index(place) for place in wanted])
        images, foreground, masks = store.images(rows), store.foreground(rows), store.masks(rows)
        model, _ = run.restorer()
        draw = Draw(run.seed, keys([plane for _, plane in wanted]))
        restoration = restore_planes(model, images, draw, torch.bfloat16)
        maps, _ = mapped(model, run.recipe.make_map(), restoration, images, foreground)
        top = max(1e-6, float(maps.flatten().float().quantile(0.998)))
        for column in range(len(wanted)):
            picture = images[column].float().mean(0)
            reference = torch.zeros_like(picture) if masks is None else masks[column].float()
            if line == 0:
                axes[0][3 * column].imshow(picture, "gray", vmin=-1, vmax=1)
                axes[0][3 * column + 1].imshow(reference, "gray")
                axes[0][3 * column].set_title("input", fontsize=9)
                axes[0][3 * column + 1].set_title("reference", fontsize=9)
            shown = axes[line + 1][3 * column : 3 * column + 3]
            shown[0].imshow(picture, "gray", vmin=-1, vmax=1)
            if reference.any():
                shown[0].contour(reference, [0.5], colors="#56B4E9", linewidths=0.8)
            shown[1].imshow(restoration.healthy[column].float().mean(0), "gray", vmin=-1, vmax=1)
            shown[2].imshow(maps[column].float(), "inferno", vmin=0, vmax=top)
        axes[line + 1][0].set_ylabel(folder.name, fontsize=9)
        print(folder.name, flush=True)
    for column in range(len(wanted)):
        for offset, text in enumerate(("as the run sees it", "healthy twin", "map")):
            axes[1][3 * column + offset].set_title(text, fontsize=9)
    figure.supxlabel("Research use only - not for diagnosis", fontsize=8, color="#666666")
    figure.savefig(arguments.out, dpi=80)


if __name__ == "__main__":
    main()
