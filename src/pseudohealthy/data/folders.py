"""A plain folder as a manifest: train/good, val/good (optional), test/good, test/bad, masks/.

The layout of MVTec AD and BMAD: ``valid`` reads as ``val``; ``good``, ``normal`` and ``healthy``
are healthy, every other folder of a split (``bad``, ``Ungood``, a disease) is anomalous; images may
lie one deeper in ``img`` with their masks in ``label``. Elsewhere a mask has the image's stem, with
or without ``_mask``, in ``masks/`` or ``ground_truth/`` (there also below ``test/bad`` or ``bad``);
brain masks in ``brain_masks/`` likewise. Two masks at one place are refused.

A DICOM case is named by its series, whatever the name of its folder. Patients: a ``patients.csv``
(columns file, patient) decides; otherwise the file's stem (of DICOM the series) is the patient,
except for stems that are bare numbers, which count images within their folder.
``<patient>_<number>`` is not taken apart, since a wrong guess would not be noticed. Without a val
folder, 15 % of the training patients become val.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.formats import ARCHIVE, FORMATS, ending
from pseudohealthy.io import names as naming
from pseudohealthy.lazy import lazy
from pseudohealthy.progress import say

GOOD = {"good", "normal", "healthy"}
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
VAL_SHARE = 0.15
Masks = Mapping[str, Sequence[str]]  # files by place below their folder, without suffix


def read_folders(root: Path, names: str = "series") -> Manifest:
    """The manifest of a plain folder.

    Args:
        names: What DICOM cases are named by, "series" or "path".

    Raises:
        Fault: NO_MANIFEST (exit 3) for any other layout; BAD_MANIFEST, MASK_AMBIGUOUS (exit 2).
    """
    root = Path(root).resolve()
    entries: list[tuple[str, str, Path]] = []  # split, folder of the class, image
    for split_folder in _folders(root):
        if split := SPLIT_FOLDERS.get(split_folder.name.lower()):
            entries += [
                (split, kind.name, image)
                for kind in _folders(split_folder)
                for image in _images(kind)
            ]
    if not entries:
        raise Fault(
            "NO_MANIFEST",
            f"{root.name} holds neither manifest.csv nor images in train/good or test/good,"
            " test/bad",
            "run prepare, write a manifest.csv, or sort the images into those folders",
            exit=NO_INPUT,
        )
    patients = _patients(root)
    masks = _by_place(root, root / "masks", root / "ground_truth")
    brains = _by_place(root, root / "brain_masks")
    series_ids = _ids(entries, names)
    cases = []
    for (split, kind, image), case_id in zip(entries, _apart(entries, series_ids), strict=True):
        stem, place = _stem(image), image.relative_to(root).as_posix()
        folder = place.split("/")[0]
        counted = f"{split}-{kind}-{stem}"
        label = HEALTHY if kind.lower() in GOOD else ANOMALOUS
        patient = next(
            (patients[key] for key in (place, image.name, stem) if key in patients), None
        )
        if patients and patient is None:
            name = place if case_id == stem else case_id
            raise Fault(
                "BAD_MANIFEST",
                f"patients.csv has no row for {name}",
                "list every image there",
                exit=USAGE,
            )
        known_as = patient or (counted if stem.isdigit() else stem)
        cases.append(
            Case(
                case_id=case_id,
                patient_id=patient or series_ids.get(image) or known_as,
                split=split,
                label=label,
                image=place,
                root=root,
                mask="" if label == HEALTHY else _mask(root, image, folder, kind, masks),
                brain_mask=_lookup(brains, image, folder, kind),
                known_as=known_as,
            )
        )
    manifest = Manifest(cases, root)
    return manifest if any(case.split == "val" for case in cases) else _with_val(manifest)


def _ids(entries: list[tuple[str, str, Path]], names: str) -> dict[Path, str]:
    """Ids of the images that are DICOM, by their series.

    Archives name folders and files after patients.
    """
    packs = (*FORMATS["dicom"].suffixes, ARCHIVE)
    packed = [image for _, _, image in entries if image.is_dir() or image.suffix.lower() in packs]
    if not packed or names != "series":
        return {}
    identity = lazy(FORMATS["dicom"].identity)
    return {image: case_id for image in packed if (case_id := identity(image))}


def _apart(entries: list[tuple[str, str, Path]], series_ids: dict[Path, str]) -> list[str]:
    """A distinct case id for each image, from its series or its stem.

    With split and class folder where it is a bare number or another folder has it, too; with its
    ending, or a digest of its name, where one folder has it twice (a.nii, a.nii.gz).
    """
    stems = [series_ids.get(image) or _stem(image) for _, _, image in entries]
    count = Counter(stems)
    ids = [
        stem if count[stem] == 1 and not stem.isdigit() else f"{split}-{kind}-{stem}"
        for (split, kind, _), stem in zip(entries, stems, strict=True)
    ]

    def ending(place: int) -> str:
        image = entries[place][2]
        return (
            ids[place]
            if image in series_ids
            else f"{ids[place]}-{text}"
            if (text := naming.ending(image))
            else ids[place]
        )

    by_ending = naming.distinct(ids, [ending])
    distinct_ids = naming.distinct(
        by_ending,
        [lambda place: f"{by_ending[place]}-{naming.digest(entries[place][2].as_posix())}"],
    )
    if changed := [new for new, old in zip(distinct_ids, ids, strict=True) if new != old]:
        say(
            f"{many(len(changed), 'image')} share a name with another; they are called"
            f" {', '.join(changed[:4])}"
        )
    return distinct_ids


def _with_val(manifest: Manifest) -> Manifest:
    """Give 15 % of the training patients (at least one of two or more) to val."""
    patients = manifest.split("train").patients
    number = max(1, round(VAL_SHARE * len(patients))) if len(patients) > 1 else 0
    val_patients = {
        patients[place] for place in np.random.default_rng(0).permutation(len(patients))[:number]
    }
    return Manifest(
        [
            (
                replace(case, split="val")
                if case.split == "train" and case.patient_id in val_patients
                else case
            )
            for case in manifest
        ],
        manifest.root,
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _images(kind: Path) -> list[Path]:
    """Image files of one class folder, and folders that are one DICOM series each."""
    inner = kind / "img" if (kind / "img").is_dir() else kind
    children = sorted(path for path in inner.iterdir() if not path.name.startswith("."))
    files = [path for path in children if path.is_file() and _ending(path)]
    return files + [
        path for path in children if path.is_dir() and path.name not in {"label", "img"}
    ]


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.name.removesuffix(_ending(path))


def _ending(path: Path) -> str:
    """The ending of an image file or a zip; empty for every other file."""
    return ending(path.name) or (path.suffix if path.suffix.lower() == ARCHIVE else "")


def _by_place(root: Path, *folders: Path) -> Masks:
    """Files below some folders, relative to the root, by their place there without suffix.

    A place is, for example, ``bad/017_mask``.
    """
    places: dict[str, list[str]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and _ending(path):
                place = (path.relative_to(folder).parent / _stem(path)).as_posix()
                places.setdefault(place, []).append(path.relative_to(root).as_posix())
    return places


def _lookup(masks: Masks, image: Path, split_folder: str, kind: str) -> str:
    stem = _stem(image)
    return _first(
        masks, (f"{split_folder}/{kind}/{stem}", f"{kind}/{stem}", f"{split_folder}/{stem}", stem)
    )


def _first(masks: Masks, places: Sequence[str]) -> str:
    """The mask at the first of these places that has one.

    Raises:
        Fault: MASK_AMBIGUOUS (exit 2) where a place has several.
    """
    candidates = ([*masks.get(place, ()), *masks.get(f"{place}_mask", ())] for place in places)
    files = next((group for group in candidates if group), [""])
    if len(files) > 1:
        cure = "keep one of them, or name it in a manifest.csv"
        raise Fault(
            "MASK_AMBIGUOUS", f"two masks of one image: {files[0]} and {files[1]}", cure, exit=USAGE
        )
    return files[0]


def _mask(root: Path, image: Path, split_folder: str, kind: str, masks: Masks) -> str:
    if image.parent.name == "img":
        return _first(_by_place(root, image.parent.parent / "label"), (_stem(image),))
    return _lookup(masks, image, split_folder, kind)


def _patients(root: Path) -> dict[str, str]:
    path = root / "patients.csv"
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig").splitlines()
        rows = list(
            csv.DictReader(
                text, delimiter=";" if text and text[0].count(";") > text[0].count(",") else ","
            )
        )
    except (UnicodeDecodeError, csv.Error):
        raise Fault(
            "BAD_MANIFEST",
            "patients.csv is not a text table",
            "save it as CSV in UTF-8",
            exit=USAGE,
        ) from None
    if not rows or not {"file", "patient"} <= set(rows[0]):
        raise Fault(
            "BAD_MANIFEST",
            "patients.csv lacks the columns file, patient",
            "name both in its header",
            exit=USAGE,
        )
    if any(not row["file"] or not row["patient"] for row in rows):
        raise Fault(
            "BAD_MANIFEST",
            "patients.csv has a row without file or patient",
            "complete it",
            exit=USAGE,
        )
    return {row["file"].replace("\\", "/"): row["patient"] for row in rows}
