"""The layouts of "Diffusion Models for Medical Anomaly Detection" (Wolleb et al. 2022, MICCAI), as
its code reads them.

``wolleb-brats``: ``brats/training/000001/brats_train_001_{t1,t1ce,t2,flair,seg}_080_w.nii.gz``, one
folder an axial slice, 2-D, 240 x 240, already in [0, 1]; ``brats/testing/000247/`` without seg and
``brats/test_labels/ 000247-label.nii.gz``. Channels in the published order t1, t1ce, t2, flair. A
slice is healthy if its mask is empty. ``wolleb-chexpert``:
``chexpert/{training,testing}/{healthy,diseased}/patient00128_study3.npy``, (256, 256, 1), 8 bits;
diseased is pleural effusion; image level. SOURCE is the folder of brats or chexpert, or the one
above.

The published split is kept; ``val`` of the training patients, healthy and diseased alike, validate.
Training holds diseased images, for the method learns from image labels; a healthy-only method takes
the healthy ones. Traps: every slice of a patient has a folder of its own, so the patient is in the
file's name, not the folder's; the lowest 80 and the upper 26 slices are left out by the authors;
healthy slices come from tumour patients; labels are 0, 1, 2, 4. A patient in training and testing
is named and left to the leak check. The counts found are printed beside the paper's (5,598 healthy
and 10,607 diseased slices and 1,082 with and 705 without tumour in the test; 14,179 and 16,776
radiographs and 200 of each).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets.chexpert import divide, say_counts
from pseudohealthy.datasets.nnunet import label_values
from pseudohealthy.datasets.paper_counts import WOLLEB_BRATS, WOLLEB_CHEXPERT, counted, say_beside
from pseudohealthy.errors import Fault
from pseudohealthy.progress import say

CHANNELS = ("t1", "t1ce", "t2", "flair")
LABELS = (0, 1, 2, 4)
_SLICE = re.compile(r"(brats_[a-z]+_\d+)_(t1|t1ce|t2|flair|seg)_(\d+)_w\.nii(\.gz)?$")
_ARRAY = re.compile(r"(patient\d+)_(study\d+)\.npy$")


def prepare_brats(source: Path, out: Path, *, seed: int = 0, val: float = 0.1) -> Manifest:
    """One case per slice, four channels, with its mask. Raises Fault LAYOUT, LABELS (exit 3)."""
    root = _root(source, "brats")
    cases = []
    for part in ("training", "testing"):
        for folder in sorted(path for path in (root / part).glob("[!.]*") if path.is_dir()):
            patient, number, files = _slice(folder)
            if part == "testing":
                files["seg"] = next(
                    (root / "test_labels").glob(f"{folder.name}-label.nii*"), Path()
                )
            if absent := [
                kind for kind in (*CHANNELS, "seg") if kind not in files or not files[kind].name
            ]:
                raise Fault(
                    "LAYOUT",
                    f"no {', '.join(absent)} of {part}/{folder.name}",
                    "fetch it",
                    case=folder.name,
                )
            name = f"{patient}-{number}"
            label = ANOMALOUS if label_values(files["seg"], LABELS, name) - {0} else HEALTHY
            cells = {kind: path.relative_to(root).as_posix() for kind, path in files.items()}
            image = "|".join(cells[kind] for kind in CHANNELS)
            cases.append(Case(name, patient, part, label, image, mask=cells["seg"], root=root))
    manifest = _divided("wolleb-brats", cases, out, seed, val)
    say_beside("wolleb-brats", "paper", counted(manifest), WOLLEB_BRATS, "slices")
    return manifest


def prepare_chexpert(source: Path, out: Path, *, seed: int = 0, val: float = 0.1) -> Manifest:
    """One case per study. Raises Fault LAYOUT (exit 3)."""
    root = _root(source, "chexpert")
    cases = []
    for part in ("training", "testing"):
        for kind, label in (("healthy", HEALTHY), ("diseased", ANOMALOUS)):
            for path in sorted((root / part / kind).glob("[!.]*.npy")):
                match = _ARRAY.match(path.name)
                if not match:
                    raise Fault(
                        "LAYOUT", f"{path.name} is not patientN_studyN.npy", "name it as published"
                    )
                image = path.relative_to(root).as_posix()
                cases.append(Case(path.stem, match[1], part, label, image, root=root))
    manifest = _divided("wolleb-chexpert", cases, out, seed, val)
    say_beside("wolleb-chexpert", "paper", counted(manifest), WOLLEB_CHEXPERT, "radiographs")
    return manifest


def _root(source: Path, name: str) -> Path:
    for folder in (Path(source) / name, Path(source)):
        if (folder / "training").is_dir() and (folder / "testing").is_dir():
            return folder
    raise Fault(
        "LAYOUT",
        f"no {name}/training and {name}/testing in the folder",
        f"give the folder of {name}",
    )


def _slice(folder: Path) -> tuple[str, str, dict[str, Path]]:
    """Patient, slice number and files of one folder. Raises Fault LAYOUT where it mixes slices."""
    files, places = {}, set()
    for path in sorted(folder.glob("brats_*.nii*")):
        if match := _SLICE.match(path.name):
            if match[2] in files:
                raise Fault(
                    "LAYOUT",
                    f"{match[2]} lies there twice",
                    "keep one slice a folder",
                    case=folder.name,
                )
            files[match[2]] = path
            places.add((match[1], match[3]))
    if len(places) != 1:
        raise Fault(
            "LAYOUT",
            f"{many(len(places), 'slice')} in one folder",
            "keep one slice a folder",
            case=folder.name,
        )
    return *places.pop(), files


def _divided(name: str, cases: list[Case], out: Path, seed: int, val: float) -> Manifest:
    """The published training and testing, with ``val`` of the training patients set aside."""
    training = [case for case in cases if case.split == "training"]
    if not training:
        raise Fault(
            "LAYOUT", f"no image of {name} in training", "give the folder of training and testing"
        )
    split = {
        c.case_id: c.split
        for c in divide(training, out, seed=seed, fractions=(1 - val, val, 0), weak=True)
    }
    done = [
        replace(case, split=split[case.case_id] if case.split == "training" else "test")
        for case in cases
    ]
    manifest = Manifest(done, out)
    shared = set(manifest.split("test").patients) & {case.patient_id for case in training}
    if shared:
        say(
            f"{name}: {many(len(shared), 'patient is', 'patients are')} in training and testing as"
            f" published, e.g. {min(shared)}"
        )
    say_counts(name, manifest)
    manifest.save(Path(out) / "manifest.csv")
    return manifest
