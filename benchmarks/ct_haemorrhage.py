"""Has the score found haemorrhage, or a ruler? Every patient of CT-ICH is tested once, by the run
that never saw them.

    pseudohealthy prepare ct-ich CT_ICH --out data/ct0 --set folds=2 fold=0     (and fold=1 into
    data/ct1)
    pseudohealthy train ct-pddpm-small --data data/ct0 --out runs/ct0 --set
    'canvas.windows=["40/120"]'
    python benchmarks/ct_haemorrhage.py runs/ct0=data/ct0 runs/ct1=data/ct1 [--elsewhere CT_MASKS]
    [--out FILE.json]

Slices are scored in many ways by each run. Each fold chooses one way, and one control, on its *own*
validation patients and applies it to its own test patients (a patient who validates in one fold is
tested in the other, so a choice made on all of them would have seen test patients). Chosen scores
are shares of the fold's validation slices that score lower; the other rows pool the scores of both
runs as they are, and are known afterwards: the best of them is no result.

--elsewhere: the folder ct-masks. The way to make a map is then also chosen on slices of other
patients (BHSD, 17 volumes with masks), by voxel AP over both runs; a slice is scored by the mean of
the map's highest 1 %, as recipes do it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pseudohealthy import io
from pseudohealthy.data.load import load
from pseudohealthy.datasets import ct_masks
from pseudohealthy.detection.detector import Detector
from pseudohealthy.diffusion.noise import Draw
from pseudohealthy.io.scan import Scan
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.maps.filters import smooth
from pseudohealthy.maps.regions import largest_region_mass
from pseudohealthy.metrics import bootstrap
from pseudohealthy.metrics.curves import curve
from pseudohealthy.restorers.apply import keys as plane_keys
from pseudohealthy.restorers.controls import control_restorers
from pseudohealthy.restorers.symmetry import mirror_residual
from pseudohealthy.runs.run import Run
from pseudohealthy.training.plane_store import plane_labels

DEPTHS = (151, 250, 350, 450)
SIGMAS = (1.5, 3.0)
BHSD_HU = (
    300  # its pictures show 0 to 300 HU: brain tissue then has a median of 38, and blood of 62
)
RULERS = ("area of tissue", "mean brightness", "bright area", "sulci: local contrast")


@torch.no_grad()
def twins(
    detector: Detector, planes: Tensor, keys: list, depths: tuple[int, ...], draws: int
) -> Tensor:
    """Healthy twins (N, C, S, S) averaged over levels and draws; the background is restored,
    too."""
    model = detector.restorer
    model.walk = replace(model.walk, start_levels=depths, draws=draws)
    parts = []
    for start in range(0, len(planes), 8):
        part = slice(start, start + 8)
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(
                model.restore(planes[part], Draw(detector.run.seed, keys[part])).healthy.float()
            )
    return torch.cat(parts)


def pixel_scores(residual: Tensor, inside: Tensor, prefix: str) -> dict[str, np.ndarray]:
    """Mean of the highest 1 % and 5 %, and the largest region above .1, of a smoothed positive
    residual, per plane."""
    found = {}
    for sigma in SIGMAS:
        maps = map_of(residual, inside, sigma)
        for share in (0.01, 0.05):
            top = AnomalyMap(score="top", share=share)
            name = f"{prefix}, sigma {sigma:g}, top {share:.0%}"
            found[name] = np.array([top.score_of(m, i) for m, i in zip(maps, inside, strict=True)])
        found[f"{prefix}, sigma {sigma:g}, largest region"] = largest_region_mass(
            maps, inside.bool(), 0.1
        ).numpy()
    return found


def map_of(residual: Tensor, inside: Tensor, sigma: float) -> Tensor:
    return smooth(residual, sigma).clamp(min=0).mean(1) * inside


def control_residuals(detector: Detector, planes: Tensor, foreground: Tensor) -> dict[str, Tensor]:
    """What can be had without a network, (D, C, S, S) each."""
    light = (planes.mean(1) + 1) / 2
    mean = (light * foreground).flatten(1).sum(1) / foreground.flatten(1).sum(1).clamp(min=1)
    model = detector.restorer
    z = (planes - model.healthy_mean) / (
        model.healthy_spread + control_restorers(model)["z-score"].floor
    )
    return {
        "control: brightness": planes + 1,
        "control: brightness less its mean": planes + 1 - 2 * mean[:, None, None, None],
        "control: healthy mean": planes - model.healthy_mean,
        "control: z-score": z.abs(),
        "control: z-score, brighter": z,
        "control: less itself smoothed": planes - smooth(planes, 6.0),
    }


def our_residuals(planes: Tensor, each: dict[int, Tensor]) -> dict[str, Tensor]:
    """What the twins of each level say, (D, C, S, S) each."""
    found = {}
    for name, twin in (
        ("level 250", each[250]),
        ("level 350", each[350]),
        ("level 450", each[450]),
        ("levels 250 to 450", (each[250] + each[350] + each[450]) / 3),
    ):
        found[name] = planes - twin
        found[f"{name}, less its mirror"] = mirror_residual(
            planes - twin, planes, sigma=planes.shape[-1] / 64
        )
    return found


def score_case(
    detector: Detector, untrained: Detector | None, planes: Tensor, foreground: Tensor, keys: list
) -> dict:
    """name -> score (D,) of every plane of one patient."""
    inside = AnomalyMap(erode=2).inside(foreground)
    area = foreground.flatten(1).sum(1).clamp(min=1)
    light = (planes.mean(1) + 1) / 2
    found: dict[str, np.ndarray] = {
        "area of tissue": foreground.flatten(1).sum(1).float().numpy(),
        "mean brightness": ((light * foreground).flatten(1).sum(1) / area).numpy(),
        "bright area": ((light > 0.7) * inside).flatten(1).mean(1).numpy(),
        "sulci: local contrast": (
            (
                ((planes - smooth(planes, 2.0)).abs().mean(1) * inside).flatten(1).sum(1)
                / inside.flatten(1).sum(1).clamp(min=1)
            ).numpy()
        ),
    }
    for name, residual in control_residuals(detector, planes, foreground).items():
        found |= pixel_scores(residual, inside, name)
    found["control: zero network, all pixels"] = planes.abs().flatten(1).mean(1).numpy()
    if untrained is None:
        return found
    random = planes - twins(untrained, planes, keys, (151,), 1)
    found["control: untrained network, all pixels"] = random.abs().flatten(1).mean(1).numpy()
    each = {depth: twins(detector, planes, keys, (depth,), 1) for depth in DEPTHS}
    published = (planes - each[151]).abs().mean(1)
    found["published: t = 150, one draw, all pixels"] = published.flatten(1).mean(1).numpy()
    found["published, inside the skull only"] = (
        (published * inside).flatten(1).sum(1) / inside.flatten(1).sum(1).clamp(min=1)
    ).numpy()
    for name, residual in our_residuals(planes, each).items():
        found |= pixel_scores(residual, inside, name)
    return found


def elsewhere(runs: list[Path], folder: Path, out: Path) -> dict[str, float]:
    """Voxel AP of every way to make a map on BHSD, mean of the runs; none of its patients is in
    CT-ICH."""
    listed = [c for c in ct_masks.prepare(folder, out) if c.patient_id.startswith("bhsd")]
    found: dict[str, list[float]] = {}
    for run in runs:
        detector = Detector(Run.open(run), device="cpu")
        maps: dict[str, list[np.ndarray]] = {}
        truths: list[np.ndarray] = []
        for case in listed:
            picture = io.read_image(case.image, folder)
            truth = io.read_mask(case.mask, folder, picture)
            # Tissue then lies at 38 HU.
            scan = Scan.from_array(picture.voxels * (BHSD_HU / 255), name=case.case_id)
            fitted = detector.canvas.fit(scan, mask=truth)
            planes = fitted.planes
            foreground = fitted.foreground
            keys = plane_keys(range(len(fitted.planes)))
            inside = AnomalyMap(erode=2).inside(foreground)
            seen = inside[0].bool().numpy()
            each = {depth: twins(detector, planes, keys, (depth,), 1) for depth in DEPTHS[1:]}
            residuals = control_residuals(detector, planes, foreground) | our_residuals(
                planes, each
            )
            for name, residual in residuals.items():
                for sigma in SIGMAS:
                    values = map_of(residual, inside, sigma)[0].numpy()[seen]
                    maps.setdefault(f"{name}, sigma {sigma:g}", []).append(values)
            truths.append(fitted.mask[0].numpy()[seen])
        for name, values in maps.items():
            found.setdefault(name, []).append(
                curve(np.concatenate(values), np.concatenate(truths)).average_precision
            )
    chance = np.concatenate(truths).mean()
    print(
        f"on BHSD, {len(listed)} slices of {len({c.patient_id for c in listed})} volumes, voxel AP"
        f" (chance {chance:.3f}):"
    )
    means = {name: float(np.mean(values)) for name, values in found.items()}
    for name in sorted(means, key=means.__getitem__, reverse=True):
        print(f"  {name:50} {means[name]:.3f}  ({', '.join(f'{v:.3f}' for v in found[name])})")
    return means


def collect(run: Path, data: Path, controls_only: bool) -> list[dict]:
    """One entry per validation and test patient: split, patient, labels (D,), scores by name."""
    detector = Detector(Run.open(run), device="cpu")
    torch.manual_seed(0)
    untrained = Detector(detector.run, device="cpu", restorer=detector.run.recipe.make_restorer())
    rows = []
    for case in load(data):
        if case.split not in ("val", "test"):
            continue
        begun = time.perf_counter()
        fitted = detector.canvas.fit(io.read_image(case.image, case.root))
        labels = plane_labels(case, len(fitted.planes))
        assert labels is not None, "labels per slice are missing"
        found = score_case(
            detector,
            None if controls_only else untrained,
            fitted.planes,
            fitted.foreground,
            plane_keys(range(len(fitted.planes))),
        )
        rows.append(
            {
                "split": case.split,
                "patient": case.patient_id,
                "labels": np.array(labels),
                "scores": found,
            }
        )
        print(
            f"{case.patient_id} {case.split}: {len(labels)} slices, {sum(labels)} bleed, "
            f"{time.perf_counter() - begun:.0f} s",
            flush=True,
        )
    return rows


def auroc(
    rows: list[dict], name: str, keep: list[np.ndarray] | None = None
) -> tuple[float, np.ndarray]:
    """(AUROC of slices, of every resample of patients)."""
    keep = keep or [np.ones(len(row["labels"]), bool) for row in rows]
    scores = [row["scores"][name][k] for row, k in zip(rows, keep, strict=True)]
    labels = [row["labels"][k] for row, k in zip(rows, keep, strict=True)]
    found = curve(np.concatenate(scores), np.concatenate(labels) > 0)
    table = bootstrap.Histograms(found, len(rows))
    for i, (s, y) in enumerate(zip(scores, labels, strict=True)):
        table.add(i, s, y)
    return found.auroc, table.resampled(bootstrap.weights(len(rows)), ["auroc"])["auroc"]


def patient_auroc(rows: list[dict], name: str) -> float:
    """AUROC of patients, each scored by their most conspicuous slice."""
    scores = np.array([row["scores"][name].max() for row in rows])
    return curve(scores, np.array([row["labels"].any() for row in rows])).auroc


CHOSEN, CONTROL = "chosen by each fold on its validation patients", "control chosen so"


def choose(val: list[dict], test: list[dict], names: list[str], called: str) -> str:
    """Score one fold's test patients by what is best on its validation patients; returns that."""
    best = max(names, key=lambda name: auroc(val, name)[0])
    known = np.sort(np.concatenate([row["scores"][best] for row in val]))
    for row in test:
        row["scores"][called] = np.searchsorted(known, row["scores"][best]) / len(known)
    return best


def table(rows: list[dict]) -> list[dict]:
    """A row per score: all slices; slices that show much brain (at least .7 of the patient's
    largest section); patients."""
    much = [
        row["scores"]["area of tissue"] >= 0.7 * row["scores"]["area of tissue"].max()
        for row in rows
    ]
    found = []
    for name in rows[0]["scores"]:
        entry: dict = {"score": name, "patients": patient_auroc(rows, name)}
        for key, keep in (("all", None), ("much", much)):
            value, drawn = auroc(rows, name, keep)
            entry[key] = [value, *(bootstrap.percentile(drawn) or (None, None))]
            for rival in ("area of tissue", CONTROL):
                other, other_drawn = auroc(rows, rival, keep)
                interval, _ = bootstrap.paired_difference(drawn, other_drawn)
                entry[f"{key} over {rival}"] = [value - other, *(interval or (None, None))]
        found.append(entry)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", help="RUN=DATA of each fold")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--elsewhere", type=Path, metavar="CT_MASKS")
    parser.add_argument(
        "--controls", action="store_true", help="what can be had without a network, in a minute"
    )
    arguments = parser.parse_args()
    starred = [CHOSEN, CONTROL]
    if arguments.elsewhere:
        with tempfile.TemporaryDirectory() as folder:
            means = elsewhere(
                [Path(pair.split("=")[0]) for pair in arguments.pairs],
                arguments.elsewhere,
                Path(folder),
            )
        for control in (False, True):
            among = [name for name in means if name.startswith("control") == control]
            starred.append(f"{max(among, key=means.__getitem__)}, top 1%")
            print(f"chosen on BHSD among {len(among)}: {starred[-1]}")
    test: list[dict] = []
    # A process with its own threads for each fold: small batches of small planes gain little from
    # more threads.
    with ProcessPoolExecutor(len(arguments.pairs), multiprocessing.get_context("spawn")) as pool:
        several = [[*map(Path, pair.split("=", 1))] for pair in arguments.pairs]
        collected = list(
            pool.map(collect, *zip(*several, strict=True), [arguments.controls] * len(several))
        )
    for pair, rows in zip(arguments.pairs, collected, strict=True):
        val, mine = ([row for row in rows if row["split"] == split] for split in ("val", "test"))
        names = list(rows[0]["scores"])
        rulers = [name for name in names if name.startswith("control") or name in RULERS]
        ours = [name for name in names if name not in rulers] or rulers
        for called, among in ((CHOSEN, ours), (CONTROL, rulers)):
            print(f"{pair}, {called}: {choose(val, mine, among, called)}")
        test += mine
    assert len({row["patient"] for row in test}) == len(test), "a patient is tested twice"
    found = table(test)
    print(
        f"\n{len(test)} test patients, {sum(len(r['labels']) for r in test)} slices,"
        f" {sum(int(r['labels'].sum()) for r in test)} bleed in"
        f" {sum(r['labels'].any() for r in test)} patients"
    )
    print(
        "AUROC of slices [95 % over patients] | less area of tissue | slices with much brain | less"
        " area | patients"
    )
    for entry in sorted(found, key=lambda entry: -entry["all"][0]):
        cells = " | ".join(
            f"{v:+.3f} [{lo:+.2f}, {hi:+.2f}]" if "over" in key else f"{v:.3f} [{lo:.2f}, {hi:.2f}]"
            for key in ("all", "all over area of tissue", "much", "much over area of tissue")
            for v, lo, hi in [entry[key]]
        )
        print(
            f"{'*' if entry['score'] in starred else ' '} {entry['score']:55} {cells} |"
            f" {entry['patients']:.3f}"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
