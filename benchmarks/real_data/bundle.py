"""Trains the model that comes with the package, and puts it where the package looks for it. Ten
minutes on two cores.

    python benchmarks/real_data/bundle.py IXI_SLICES OUT [--steps 1200] [--export
    src/pseudohealthy/models/brain-t1]
    python benchmarks/real_data/bundle.py IXI_SLICES OUT --recalibrate [--set
    restorer.walk.draws=16] [--export ...]
    python benchmarks/real_data/bundle.py IXI_SLICES OUT --domain [--export ...]

IXI_SLICES: the folder of mid-axial IXI T1 slices, as `prepare ixi-lesions` takes it. OUT gets the
data, the run and its scores on the test subjects. Matrices are rounded to bfloat16 (half the size)
*before* spreads and threshold are set, so that what is stored is what was measured. --recalibrate:
the network of the model that comes along stays; what is measured of health is measured anew, for
example because noise is keyed otherwise, or under other settings of restoring. --domain: only what
the domain check compares with is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor

import pseudohealthy as ph
from pseudohealthy import datasets, models
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.detection.domain import Domain
from pseudohealthy.evaluation.evaluation import Evaluation
from pseudohealthy.evaluation.records import heading_of, number
from pseudohealthy.io import read_image
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.processes import World
from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run, provenance
from pseudohealthy.training.fingerprint import fingerprint
from pseudohealthy.training.finish import file_hashes, finish
from pseudohealthy.training.loop import Trainer
from pseudohealthy.training.plane_store import PlaneStore
from pseudohealthy.workflows.train import open_planes, resume

SETTINGS = ["restorer.network.width=56"]  # 3.5 million parameters: 7 MB as bfloat16
FILES = (
    "recipe.toml",
    "threshold.json",
    "fingerprint.json",
    "run.json",
    "split.csv",
    "training_history.json",
)
# Examples with and without a lesion: the first of the test subjects by name, whatever they score.
EACH = 4
NOTICE = """# Whose images

The examples, and the images that this model was trained on, are mid-axial slices of T1-weighted
scans of the IXI Dataset (brain-development.org/ixi-dataset), registered to MNI152NLin2009cSym;
licence: Creative Commons Attribution-ShareAlike 3.0 (creativecommons.org/licenses/by-sa/3.0).
Slices as published with THOR (Bercea et al., MICCAI 2024). Changes: a round lesion, darker or
brighter, was drawn into those in `examples/test/bad`, outlined in `examples/masks/bad`. The same
licence applies to the examples.

sha256:

"""


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels of the network as bfloat16; what is measured of health stays float32."""

    def small(name: str, t: Tensor) -> bool:
        measured = name.startswith(("healthy_", "residual_"))
        return t.is_floating_point() and t.ndim > 1 and not measured

    return {name: t.to(torch.bfloat16) if small(name, t) else t for name, t in tensors.items()}


def store(run: Run, as_float: bool) -> str:
    """Round the weights that restore, in float32 or as they will lie in the package; returns their
    sha256."""
    tensors, state, _ = checkpoint.load(run.weights())
    rounded = halved(tensors)
    return checkpoint.save(
        run.weights(), {k: v.float() for k, v in rounded.items()} if as_float else rounded, state
    )


def recalibrated(data: Path, folder: Path, settings: list[str], only_domain: bool) -> None:
    """The packaged model as a run of `data`, its healthy spreads, scores and threshold measured by
    this version."""
    shutil.copytree(
        models.FOLDER / "brain-t1", folder, ignore=shutil.ignore_patterns("examples", "NOTICE.md")
    )
    run = Run.open(folder)
    if only_domain:
        planes = open_planes(run, load(data), World(0, 1, torch.device("cpu")))
        write_json(folder / "fingerprint.json", fingerprint(planes))
        return widen_domain(run, planes, data)
    run.recipe = run.recipe.set(settings).resolved()
    write_text(folder / "recipe.toml", run.recipe.toml())
    run.note(
        **provenance(),
        recipe_sha256=run.recipe_sha256,
        data="../data",
        device="cpu",
        precision="float32",
    )
    run.note(weights_sha256=store(run, as_float=True))
    world = World(0, 1, torch.device("cpu"))
    trainer = Trainer(run, open_planes(run, load(data), world), world)
    trainer.precision, trainer.step = torch.float32, run.record["step"]
    finish(trainer)
    widen_domain(run, trainer.store, data)


def widen_domain(run: Run, store: PlaneStore, data: Path) -> None:
    """The limit of the domain check from validation and, as they were before a lesion was drawn in,
    test subjects: 105."""
    canvas = run.recipe.make_canvas()
    sick = [c for c in load(data).split("test") if c.label == ANOMALOUS]
    fitted = [canvas.fit(read_image(case.extra["twin"], case.root)) for case in sick]
    rows = store.select("val", HEALTHY)[:, None]
    healthy = [(store.images(row), store.foreground(row)) for row in rows] + [
        (f.planes, f.foreground) for f in fitted
    ]
    prints = run.read_json("fingerprint.json")
    prints["domain"] = Domain.from_json(prints["domain"]).calibrated(healthy).to_json()
    write_json(run.folder / "fingerprint.json", prints)
    run.note(files_sha256=file_hashes(run))


def export(run: Run, data: Path, target: Path) -> None:
    """The files of the run that detecting needs, examples of test subjects, NOTICE.md."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in (*FILES, run.weights().name, "MODEL_CARD.md"):
        shutil.copyfile(run.folder / name, target / name)
    test = sorted(load(data).split("test"), key=lambda case: case.case_id)
    for sick in (False, True):
        for case in [case for case in test if (case.label == ANOMALOUS) == sick][:EACH]:
            name = f"{case.patient_id}.png"
            places = [
                (case.image, f"test/{'bad' if sick else 'good'}"),
                *([(case.mask, "masks/bad")] if sick else []),
            ]
            for source, folder in places:
                (target / "examples" / folder).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(case.root / source, target / "examples" / folder / name)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(target).as_posix()}"
        for path in sorted(target.rglob("*"))
        if path.is_file()
    ]
    write_text(target / "NOTICE.md", NOTICE + "\n".join(f"    {line}" for line in lines) + "\n")


def card(run: Run, scores: Evaluation) -> str:
    """The run's card under the model's name, with the digest of the weights as stored, its images
    and its scores."""
    text = (
        (run.folder / "MODEL_CARD.md")
        .read_text(encoding="utf-8")
        .replace("# quick", "# brain-t1", 1)
    )
    known = text[text.index("sha256 ") + len("sha256 ") :].split()[0]
    lines = [
        (
            "- Images: the mid-axial slice of T1-weighted scans of healthy subjects (IXI), skull"
            " shown, 1 mm, MNI space. Other images are"
        ),
        (
            "  outside what it knows. Its domain check warned of all of 52 each that were turned by"
            " 90, 180 or 270 degrees, upside down,"
        ),
        (
            "  contrast-inverted, half a field of view or without skull, of all FLAIR, T2, CT,"
            " chest, digit and noise images tried, and of"
        ),
        (
            "  all 12 T1 heads of other scanners; of 47 of 52 at gamma 2, 10 of 52 blurred, 1 of 52"
            " at half the resolution; never of"
        ),
        (
            "  exchanged left and right, which a picture cannot tell. Of 52 healthy subjects that"
            " set nothing it warned of none (95 %"
        ),
        "  interval 0 to 7 %); it is made to warn of 2 %.",
        (
            "- Scores on 105 subjects it has not seen, 53 with a simulated lesion (no patient with"
            " a disease was seen):"
        ),
    ]
    for metric in ("image_auroc", "voxel_average_precision_pooled"):
        own = [
            r
            for r in scores.records
            if r.metric in (metric, f"{metric}_difference") and not r.is_control
        ]
        lines += [
            f"  {heading_of(r)}{', less the best control' if r.against else ''}:"
            f" {number(r, signed=bool(r.against))}"
            for r in own
        ]
    return text.replace(known, run.record["weights_sha256"]).replace(
        "- Canvas:", "\n".join([*lines, "- Canvas:"]), 1
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--recalibrate", action="store_true")
    parser.add_argument("--domain", action="store_true")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    arguments = parser.parse_args()
    data, folder = arguments.out / "data", arguments.out / "brain-t1"
    if not (data / "manifest.csv").is_file():
        datasets.prepare("ixi-lesions", arguments.images, data)
    if arguments.recalibrate or arguments.domain:
        recalibrated(data, folder, arguments.settings, arguments.domain)
    else:
        if not (folder / "threshold.json").is_file():
            ph.train(
                "quick", data, folder, steps=arguments.steps, settings=SETTINGS, overwrite=True
            )
        store(Run.open(folder), as_float=True)
        # No step is left: spreads, threshold and card are made anew, of the rounded weights.
        resume(folder)
    run = Run.open(folder)
    if not arguments.domain:
        run.note(weights_sha256=store(run, as_float=False))
        scores = ph.evaluate(run, data, arguments.out / "scores", overwrite=True)
        write_text(folder / "MODEL_CARD.md", card(run, scores))
    if arguments.export:
        export(run, data, arguments.export)
        size = sum(path.stat().st_size for path in arguments.export.rglob("*") if path.is_file())
        print(json.dumps({"bytes": size, "weights_sha256": run.record["weights_sha256"]}))


if __name__ == "__main__":
    main()
