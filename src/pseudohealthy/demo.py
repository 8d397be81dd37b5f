"""The main job from beginning to end on input that the program brings along: no download, no data, a few minutes.

1. A model that comes along (`pseudohealthy.models`) reads slices of real heads, a lesion drawn into half of them.
2. Real handwritten digits, a white splotch drawn on some: train on clean ones, find the splotches, beside the controls.
3. Synthetic heads: train on healthy ones, then read one with a bleed as NIfTI and another as a shuffled DICOM series.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy import progress
from pseudohealthy.errors import BAD_OUTPUT, Fault
from pseudohealthy.progress import duration, say

MARK = "demo.json"  # what a demo folder holds, so that only such a folder is ever written over


def demo(out: Path | str, *, minutes: float = 2.5, device: str = "auto") -> dict[str, Any]:
    """Run all parts into `out` and return the figures. `minutes` of training, shared by the last two; seeds are fixed.

    Raises Fault OUTPUT_NOT_EMPTY (exit 6) when `out` holds something other than an earlier demo.
    """
    from rich.console import Console

    from pseudohealthy import datasets, models
    from pseudohealthy.archive import detect
    from pseudohealthy.cases import load
    from pseudohealthy.evaluation.runner import evaluate
    from pseudohealthy.io.atomic import write_json

    begun, out = time.monotonic(), Path(out)
    clear(out)
    console = Console(stderr=True, width=None if Console().is_terminal else 160, quiet=progress.quiet)

    say(
        "1/5 brain-t1, a model that comes along, on slices of subjects it has not seen: half of them with a lesion drawn in"
    )
    slices = sorted(
        (models.examples("brain-t1") / "test").rglob("*.png"), key=lambda path: (path.parent.name, path.name)
    )
    brains = detect("brain-t1", slices, out / "findings-brains", device=device)
    drawn_in = {path.stem for path in slices if path.parent.name == "bad"}
    say("2/5 splotched digits: 1,797 handwritten digits of scikit-learn, a white splotch on 200 of them")
    datasets.prepare("digits", ".", out / "digits")
    timed_training("digits-splotch", out / "digits", out / "run-digits", 60 * minutes / 2, device)
    say("3/5 evaluation on 200 clean and 200 splotched digits that were not trained on, beside the trivial controls")
    result = evaluate(out / "run-digits", load(out / "digits"), out / "evaluation", device=device, batch=64)
    console.print(result.table())
    shown = [case for case in load(out / "digits").split("test") if case.label][:6]
    detect(out / "run-digits", [case.root / case.image for case in shown], out / "findings-digits", device=device)

    say("4/5 synthetic heads: training on 24 healthy ones")
    datasets.prepare("heads", ".", out / "heads")
    timed_training("heads-quick", out / "heads", out / "run-heads", 60 * minutes / 2, device)
    say("5/5 a head with a bleed as NIfTI, another as a DICOM series in shuffled order")
    inputs = head_scans(out)
    found = detect(out / "run-heads", inputs, out / "findings", device=device, names="path")  # nobody's names
    reports = [str(out / name / "report.html") for name in ("findings-brains", "evaluation", "findings")]
    summary: dict[str, Any] = {
        "seconds": round(time.monotonic() - begun),
        "digits": {r.metric: r.value for r in result.records if r.method == "ddpm"},
        "brains": [
            {"case_id": row["case_id"], "lesion": row["case_id"] in drawn_in, "score": row["score"]}
            for row in brains.rows
        ],
        "heads": [
            {k: row[k] for k in ("case_id", "score", "healthy_percentile", "volume_ml_above")} for row in found.rows
        ],
        "reports": reports,
    }
    write_json(out / MARK, summary)
    for row in found.rows:
        say(f"  {row['case_id']}: score {row['score']:.3g}, above {row['healthy_percentile']:.0f} % of 4 healthy heads, "
            f"{row['volume_ml_above']:.1f} ml above the threshold")  # fmt: skip
    say(f"done in {duration(summary['seconds'])}; the pages to open:")
    return summary


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
            "OUTPUT", f"cannot write '{out.name}': {error.strerror}", "name another folder with --out", exit=BAD_OUTPUT
        ) from None


def timed_training(recipe: str, data: Path, run: Path, seconds: float, device: str) -> None:
    """Train for about `seconds`: a few steps to learn this machine's speed, then the run is extended. A slow or busy
    machine takes longer: at least two steps for each of the seconds, since after half as many nothing is found."""
    from pseudohealthy.training import loop

    trial = 12
    settings = ["training.validation_planes=64", "training.validate=250"]
    loop.train(recipe, data, run, steps=trial, device=device, settings=settings)
    history = json.loads((run / "training_history.json").read_text(encoding="utf-8"))
    least = max(2 * trial, round(2 * seconds))
    loop.resume(run, steps=int(np.clip(seconds / history[-1]["step_seconds"], least, 2000)), device=device)


def head_scans(out: Path) -> list[Path]:
    """Two heads with a bleed that no training has seen: one NIfTI file, one DICOM series."""
    from pseudohealthy.phantoms import dicom_series, head, nifti

    folder = out / "scans"
    folder.mkdir()
    rng = np.random.default_rng(2024)
    volume, _, affine = head(rng, shape=(24, 96, 96), lesion=0.18)
    path = nifti(folder / "head-nifti.nii.gz", volume, affine)
    volume, _, _ = head(rng, shape=(24, 96, 96), lesion=0.2)
    dicom_series(folder / "head-dicom", volume, spacing=(160 / 24, 160 / 96, 160 / 96))
    return [path, folder / "head-dicom"]
