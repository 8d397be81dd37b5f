"""Several cheap estimates or one long walk? Levels, draws, smoothing and standardisation, at
counted network calls.

    python benchmarks/consensus_study.py RUN DATA [--out FILE.json]

RUN is a trained `ddpm` run (or any with its denoiser), DATA the manifest it was trained on, with
masks. Same weights for every row. Healthy residuals are those of lesion-free validation planes.
Figures are on the model's grid, foreground less its rim and reference; each row is printed for
validation and for test patients, the best of validation is marked.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pseudohealthy.data.load import load
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.diffusion.sampler import sample, walk
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import smooth
from pseudohealthy.metrics import bootstrap
from pseudohealthy.metrics.curves import curve
from pseudohealthy.restorers.base import HealthyResiduals, Restorer
from pseudohealthy.runs.run import Run
from pseudohealthy.training.plane_store import PlaneStore, build_cache

LEVELS, DRAWS, SIGMA = (100, 250, 400, 550), (1, 2, 4, 8), 3.0
SETS = ((100,), (250,), (400,), (550,), (250, 400), (100, 250, 400), (250, 400, 550))
WALKS = ((250, 8), (250, 25), (400, 25))  # level, steps of DDIM down from random noise: one draw
ENCODED = ((250, 25), (400, 25))  # level, steps of DDIM up and as many down again: no draw
SCORE = AnomalyMap(erode=4, score="top", share=0.005)


class Split:
    """Planes of one split with everything a row needs."""

    def __init__(self, store: PlaneStore, name: str):
        self.rows = store.select(name)
        self.images = store.images(self.rows)
        foreground = store.foreground(self.rows)
        masks = store.masks(self.rows)
        assert masks is not None, "the cases have no masks"
        self.masks, self.inside = masks, SCORE.inside(foreground).bool()
        self.labels = masks.flatten(1).any(1).numpy()
        names = store.index["patient_id"].to_numpy()[self.rows]
        self.patients = np.unique(names, return_inverse=True)[1]
        self.residuals: dict[tuple, Tensor] = {}

    @torch.no_grad()
    def restore(self, model: Restorer) -> None:
        """Smoothed signed residuals by (level, draws), and unsmoothed ones by ("walk", level,
        steps), ("encoded", level, steps) and ("one", level)."""
        parts: dict[tuple, list[Tensor]] = {}
        for start in range(0, len(self.rows), 16):
            images = self.images[start : start + 16]
            draw = Draw(0, [("study", int(row)) for row in self.rows[start : start + 16]])
            with torch.autocast("cpu", torch.bfloat16):
                for level in LEVELS:
                    noise = draw.fork(f"depth {level}").repeat(max(DRAWS))
                    x = images.repeat_interleave(max(DRAWS), 0)
                    x = (
                        model.denoiser(model.denoiser.noised(x, noise(x), level), level)
                        .clean.float()
                        .clamp(-1, 1)
                    )
                    found = images[:, None] - x.unflatten(0, (-1, max(DRAWS)))
                    parts.setdefault(("one", level), []).append(found[:, 0])
                    for draws in DRAWS:
                        parts.setdefault((level, draws), []).append(
                            smooth(found[:, :draws].mean(1), SIGMA).half()
                        )
                for level, steps in WALKS:
                    x = model.denoiser.noised(images, draw.fork("walk").noise(images), level)
                    x = sample(model.denoiser, x, walk(level, 0, steps), clip=True).float()
                    parts.setdefault(("walk", level, steps), []).append(images - x)
                for level, steps in ENCODED:  # as `restorers.ddim`
                    back = walk(level, 0, steps)
                    x = sample(model.denoiser, images, back[::-1], clip=False)
                    x = sample(model.denoiser, x, back, clip=True).float()
                    parts.setdefault(("encoded", level, steps), []).append(images - x)
        self.residuals = {key: torch.cat(values) for key, values in parts.items()}

    def changed(self, key: tuple) -> float:
        """Mean |image - twin| of lesion-free tissue, share of the range: how much of the anatomy is
        not kept."""
        tissue = self.inside & ~self.masks
        return self.residuals[key].abs().mean(1)[tissue].mean().item() / 2

    def figures(self, maps: Tensor, intervals: bool) -> dict[str, list[float | None]]:
        """Voxel AP and plane AUROC of maps (N, S, S), with intervals over patients."""
        maps = maps * self.inside
        keep = self.inside | self.masks
        found: dict[str, list[float | None]] = {}
        scores = np.array([SCORE.score_of(m, i) for m, i in zip(maps, self.inside, strict=True)])
        voxels = [
            (maps[i][keep[i]].numpy(), self.masks[i][keep[i]].numpy()) for i in range(len(maps))
        ]
        planes = [(scores[i : i + 1], self.labels[i : i + 1]) for i in range(len(maps))]
        for name, key, pairs in (
            ("voxel AP", "average_precision", voxels),
            ("plane AUROC", "auroc", planes),
        ):
            whole = curve(
                np.concatenate([s for s, _ in pairs]), np.concatenate([y for _, y in pairs])
            )
            found[name] = [getattr(whole, key), None, None]
            if intervals:
                table = bootstrap.Histograms(whole, int(self.patients.max()) + 1)
                for patient, (s, y) in zip(self.patients, pairs, strict=True):
                    table.add(int(patient), s, y)
                drawn = table.resampled(bootstrap.weights(int(self.patients.max()) + 1), [key])[key]
                found[name][1:] = bootstrap.percentile(drawn) or (None, None)
        return found


def healthy(split: Split, key: tuple, by: str) -> tuple[Tensor | float, Tensor | float]:
    """Mean and spread of the residuals of lesion-free planes."""
    if by == "none":
        return 0.0, 1.0
    rows = torch.as_tensor(~split.labels)
    gathered = HealthyResiduals()
    model = Restorer(size=split.images.shape[-1], channels=split.images.shape[1])
    gathered.add(split.residuals[key][rows].float(), split.inside[rows])
    gathered.fill(model, "pixel" if by == "pixel" else "level")
    return model.residual_mean, model.residual_spread


def maps_of(split: Split, validation: Split) -> dict[tuple[str, int], Tensor]:
    """(what it is, network calls) -> maps (N, S, S)."""
    found: dict[tuple[str, int], Tensor] = {
        ("intensity, smoothed", 0): smooth(split.images + 1, SIGMA).mean(1)
    }
    for level in (250, 400):
        found[f"|residual| of one estimate, level {level}", 1] = (
            split.residuals["one", level].abs().sum(1)
        )
    for level, steps in WALKS:
        residual = split.residuals["walk", level, steps]
        found[f"|residual| of DDIM from {level}, {steps} steps", steps] = residual.abs().sum(1)
        found[f"positive smoothed residual of DDIM from {level}, {steps} steps", steps] = (
            smooth(residual, SIGMA).clamp(min=0).sum(1)
        )
    for level, steps in ENCODED:
        residual = split.residuals["encoded", level, steps]
        name = f"encoded by DDIM to {level}, {steps} steps each way"
        found[f"|residual|, {name}", 2 * steps] = residual.abs().sum(1)
        found[f"positive smoothed residual, {name}", 2 * steps] = (
            smooth(residual, SIGMA).clamp(min=0).sum(1)
        )
    for levels, draws, by in itertools.product(SETS, DRAWS, ("none", "level", "pixel")):
        total = torch.zeros_like(split.images)
        for level in levels:
            mean, spread = healthy(validation, (level, draws), by)
            total += (split.residuals[level, draws].float() - mean) / spread
        name = f"levels {'+'.join(map(str, levels))}, {draws} draws, standardised by {by}"
        found[name, len(levels) * draws] = total.clamp(min=0).sum(1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    store = build_cache(
        load(arguments.data), run.recipe.make_canvas(), arguments.run / "study-planes"
    )
    model, _ = run.restorer()
    splits = {name: Split(store, name) for name in ("val", "test")}
    for split in splits.values():
        split.restore(model.eval())
    found: dict[tuple[str, int], dict] = {}
    for name, split in splits.items():
        for key, maps in maps_of(split, splits["val"]).items():
            found.setdefault(key, {})[name] = split.figures(maps, intervals=name == "test")
    for key in sorted(key for key in splits["test"].residuals if isinstance(key[0], str)):
        print(
            f"lesion-free tissue changed by {splits['test'].changed(key):.4f} of the range: {key}"
        )
    best = max(found, key=lambda key: found[key]["val"]["voxel AP"][0])
    test = splits["test"]
    print(
        f"{len(test.rows)} test planes of {test.patients.max() + 1} patients, {test.labels.sum()}"
        f" with lesion; voxel prevalence {test.masks[test.inside | test.masks].float().mean():.4f}"
    )
    print("test voxel AP [95 %]    plane AUROC [95 %]      validation AP  calls  what")
    for key, row in sorted(found.items(), key=lambda item: -item[1]["test"]["voxel AP"][0]):
        cells = "  ".join(
            "{:.3f} [{:.2f}, {:.2f}]".format(*row["test"][name])
            for name in ("voxel AP", "plane AUROC")
        )
        print(
            f"{cells}  {row['val']['voxel AP'][0]:13.3f}  {key[1]:5} "
            f" {key[0]}{'  <- validation' if key == best else ''}"
        )
    if arguments.out:
        rows = [
            {"what": key[0], "calls": key[1], "chosen": key == best, **row}
            for key, row in found.items()
        ]
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
