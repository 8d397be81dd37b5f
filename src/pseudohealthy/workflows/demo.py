"""The main job from beginning to end on input that the program brings along, in a few minutes.

1. A model that comes along (`pseudohealthy.models`) reads planes of real heads, a lesion drawn into
half of them. 2. Real handwritten digits, a white splotch drawn on some: train on clean ones, find
the splotches, beside the controls. 3. Synthetic heads: train on healthy ones, then read one with a
bleed as NIfTI and another as a shuffled DICOM series.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy import progress
from pseudohealthy.errors import BAD_OUTPUT, Fault
from pseudohealthy.progress import duration, say
from pseudohealthy.report import evaluation_tables

MARK = "demo.json"  # what a demo folder holds, so that only such a folder is ever written over


def demo(out: Path | str, *, minutes: float = 2.5, device: str = "auto") -> dict[str, Any]:
    """Run all parts into `out` and return the figures.

    `out`/report.html says what was found and what was missed; seeds are fixed.

    Args:
        out: the folder, new or of an earlier demo.
        minutes: of training, shared by the last two parts.
        device: as in `detect`.

    Raises:
        Fault: OUTPUT_NOT_EMPTY (exit 6) when `out` holds something other than an earlier demo.
    """
    from rich.console import Console

    from pseudohealthy import datasets, io
    from pseudohealthy.data.load import load
    from pseudohealthy.io.atomic import write_json
    from pseudohealthy.report.first_page import first_page, known
    from pseudohealthy.workflows.detect import detect
    from pseudohealthy.workflows.evaluate import evaluate

    begun, out = time.monotonic(), Path(out)
    clear(out)
    console = Console(
        stderr=True, width=None if Console().is_terminal else 160, quiet=progress.quiet
    )

    say(
        "1/5 brain-t1, a model that comes along, on slices of subjects it has not seen: half of"
        " them with a lesion drawn in"
    )
    planes = brain_slices()
    folder = out / "findings-brains"
    brains = known(
        detect("brain-t1", list(planes), folder, device=device, truths=by_name(planes)),
        "slice",
        "lesion",
    )
    say(
        "2/5 splotched digits: 1,797 handwritten digits that come along, a white splotch on 200 of"
        " them"
    )
    datasets.prepare("digits", ".", out / "digits")
    timed_training("digits-splotch", out / "digits", out / "run-digits", 60 * minutes / 2, device)
    say(
        "3/5 evaluation on 200 clean and 200 splotched digits that were not trained on, beside the"
        " trivial controls"
    )
    result = evaluate(
        out / "run-digits", load(out / "digits"), out / "evaluation", device=device, batch=64
    )
    console.print(evaluation_tables.table(result))
    cells = {
        case.root / case.image: case.mask
        for case in load(out / "digits").split("test")
        if case.label
    }
    splotches = {
        path: io.read_mask(cells[path], out / "digits", io.read(path)) for path in list(cells)[:6]
    }
    folder = out / "findings-digits"
    detections = detect(
        out / "run-digits", list(splotches), folder, device=device, truths=by_name(splotches)
    )
    digits = known(detections, "digit", "splotch")

    say("4/5 synthetic heads: training on 24 healthy ones")
    datasets.prepare("heads", ".", out / "heads")
    timed_training("heads-quick", out / "heads", out / "run-heads", 60 * minutes / 2, device)
    say("5/5 a head with a bleed as NIfTI, another as a DICOM series in shuffled order")
    inputs = head_scans(out)
    # nobody's names.
    findings = detect(
        out / "run-heads",
        list(inputs),
        out / "findings",
        device=device,
        names="path",
        truths=by_name(inputs),
    )
    heads = known(findings, "head", "bleed")
    reports = first_page(out, [brains, heads, digits], result)
    summary: dict[str, Any] = {
        "seconds": round(time.monotonic() - begun),
        "digits": {r.metric: r.value for r in result.records if r.method == "ddpm"},
        "brains": [{"lesion": row["truth"]["lesions"] > 0, **picked(row)} for row in brains.rows],
        "heads": [picked(row) for row in heads.rows],
        "reports": [str(path) for path in reports],
    }
    write_json(out / MARK, summary)
    for sentence in (*brains.sentences(), *digits.sentences(), *heads.sentences()):
        say(f"  {sentence}")
    say(f"done in {duration(summary['seconds'])}; the pages to open:")
    return summary


def brain_slices() -> dict[Path, np.ndarray]:
    """Return the example planes of brain-t1 and the lesion (1, H, W) bool drawn into each.

    Those that have one come first.
    """
    from pseudohealthy import io, models

    folder = models.examples("brain-t1")
    lesions = {}
    for path in sorted(
        (folder / "test").rglob("*.png"), key=lambda path: (path.parent.name, path.name)
    ):
        scan = io.read(path)
        mask = folder / "masks" / path.parent.name / path.name
        lesions[path] = (
            io.read_mask(mask.name, mask.parent, scan)
            if mask.is_file()
            else np.zeros(scan.shape[1:], bool)
        )
    return lesions


def by_name(truths: Mapping[Path, np.ndarray]) -> dict[str, np.ndarray]:
    """Return references by the ids that the cases get."""
    return {path.name.split(".")[0]: truth for path, truth in truths.items()}


def picked(row: dict[str, Any]) -> dict[str, Any]:
    """Return what demo.json says of a case."""
    return {
        k: row[k]
        for k in (
            "case_id",
            "score",
            "healthy_percentile",
            "healthy_cases",
            "volume_ml_above",
            "truth",
        )
    }


def clear(out: Path) -> None:
    """Remove an earlier demo; refuse any other folder that holds something."""
    import shutil

    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file()):
        raise Fault(
            "OUTPUT_NOT_EMPTY",
            f"'{out.name}' is not an earlier demo",
            "name another folder with --out",
            exit=BAD_OUTPUT,
        )
    if out.is_dir():
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True)
        (out / MARK).write_text(json.dumps({"status": "running"}), encoding="utf-8")
    except OSError as error:
        raise Fault(
            "OUTPUT",
            f"cannot write '{out.name}': {error.strerror}",
            "name another folder with --out",
            exit=BAD_OUTPUT,
        ) from None


def timed_training(recipe: str, data: Path, run: Path, seconds: float, device: str) -> None:
    """Train for about `seconds`: a few steps to learn this machine's speed, then the run is
    extended.

    A slow or busy machine takes longer: at least two steps for each of the seconds, since after
    half as many nothing is found.
    """
    from pseudohealthy.workflows.train import resume, train

    trial = 12
    settings = ["training.validation_planes=64", "training.validate=250"]
    train(recipe, data, run, steps=trial, device=device, settings=settings)
    history = json.loads((run / "training_history.json").read_text(encoding="utf-8"))
    fewest = max(2 * trial, round(2 * seconds))
    resume(
        run, steps=int(np.clip(seconds / history[-1]["step_seconds"], fewest, 2000)), device=device
    )


def head_scans(out: Path) -> dict[Path, np.ndarray]:
    """Write two heads that no training has seen, one NIfTI file and one DICOM series.

    Returns:
        The bleed (D, H, W) bool of each, by path.
    """
    from pseudohealthy.anomalies.phantoms import dicom_series, head, nifti

    folder = out / "scans"
    folder.mkdir()
    rng = np.random.default_rng(2024)
    volume, nifti_bleed, affine = head(rng, shape=(24, 96, 96), lesion=0.18)
    path = nifti(folder / "head-nifti.nii.gz", volume, affine)
    volume, dicom_bleed, _ = head(rng, shape=(24, 96, 96), lesion=0.2)
    dicom_series(folder / "head-dicom", volume, spacing=(160 / 24, 160 / 96, 160 / 96))
    return {path: nifti_bleed, folder / "head-dicom": dicom_bleed}
