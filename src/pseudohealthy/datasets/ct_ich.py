"""CT-ICH (Hssayeni et al. 2020, PhysioNet ct-ich): head CT of trauma patients, brain window, labels
per slice.

Layout: ``images/057_01.jpg`` (patient, slice), 650 x 650 grey, 8 bits, with ``labels.csv`` (file,
patient, slice, five subtypes, any_hemorrhage, fracture). A case is one patient, its planes the
slices by number, its ``plane_labels`` any_hemorrhage; ``plane_fractures`` keeps the fractures in
the same order. Patients are named ``ctich-057``, as by ``ct-masks``, so that the leak checks see
slices of one patient in both sets.

Labels: ``healthy="slice"`` (default) trains on every slice without haemorrhage of a training
patient; ``"patient"`` only on patients who have none anywhere. All are trauma patients: no
haemorrhage is not healthy (fractures, swelling). Traps: already windowed, no HU and no geometry, so
no ml; table visible, heads tilted, skull base and neck included. Splitting by slice leaks.
PhysioNet's terms differ by version.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.progress import say

SUBTYPES = ("intraventricular", "intraparenchymal", "subarachnoid", "epidural", "subdural")
COLUMNS = ("file", "patient", "slice", *SUBTYPES, "any_hemorrhage", "fracture")
_NAME = re.compile(r"(\d+)_(\d+)\.jpg")


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    healthy: str = "slice",
    fractions: tuple[float, float, float] = (0.6, 0.15, 0.25),
    folds: int = 0,
    fold: int = 0,
) -> Manifest:
    """One case per patient, split by patient; with healthy="slice" those with and without
    haemorrhage in equal shares.

    folds: with 2 or more, patients are dealt into so many test sets instead, of which `fold` (from
    0) is tested; a fifth of the others validate. 28 patients are few: all of them tested, once
    each, give the narrower interval. Raises Fault LAYOUT (exit 3) for files and labels that do not
    match, SIZES for a patient's slices of several sizes, BAD_SETTING (2).
    """
    if healthy not in ("slice", "patient"):
        raise Fault("BAD_SETTING", f"healthy = {healthy!r}", "use slice or patient", exit=USAGE)
    if (folds or fold) and (folds < 2 or not 0 <= fold < folds or healthy != "slice"):
        cure = "give folds=2 or more, fold from 0, and healthy=slice"
        raise Fault(
            "BAD_SETTING", f"folds = {folds}, fold = {fold}, healthy = {healthy}", cure, exit=USAGE
        )
    source = Path(source)
    patients: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in _labelled(source):
        patients[row["file"].split("_")[0]].append(row)
    cases = []
    for patient, rows in sorted(patients.items()):
        rows.sort(key=lambda row: int(row["slice"]))
        _one_size(source, rows)
        labels = [row["any_hemorrhage"] for row in rows]
        extra = {
            "plane_labels": "|".join(labels),
            "plane_fractures": "|".join(row["fracture"] for row in rows),
        }
        label = ANOMALOUS if "1" in labels else HEALTHY
        name = f"ctich-{patient}"
        cases.append(
            Case(name, name, "", label, f"images/{patient}_*.jpg", root=source, extra=extra)
        )
    if healthy == "patient" and all(case.label == ANOMALOUS for case in cases):
        raise Fault("NO_HEALTHY", "every patient has a slice with haemorrhage", "use healthy=slice")
    if folds:
        manifest = dealt(cases, out, seed=seed, folds=folds, fold=fold)
    elif healthy == "slice":
        manifest = divided(cases, out, seed=seed, fractions=fractions)
    else:
        manifest = assign_splits(Manifest(cases, out), seed=seed, fractions=fractions)
    manifest.save(Path(out) / "manifest.csv")
    slices = sum(map(len, patients.values()))
    bleeding = sum(case.extra["plane_labels"].count("1") for case in cases)
    broken = sum(case.extra["plane_fractures"].count("1") for case in cases)
    say(
        f"{many(slices, 'slice')} of {many(len(cases), 'patient')}: {bleeding} with haemorrhage in"
        f" {many(sum(case.label == ANOMALOUS for case in cases), 'patient')}, {broken} with a"
        " fracture"
    )
    return manifest


def divided(
    cases: list[Case], out: Path, *, seed: int, fractions: tuple[float, float, float]
) -> Manifest:
    """All patients over train, val and test, those with and those without an anomaly in equal
    shares; for data whose ``plane_labels`` say what is healthy."""
    anomalous = {case.patient_id for case in cases if case.label == ANOMALOUS}
    strata = [replace(case, label=None, site=str(case.patient_id in anomalous)) for case in cases]
    split = {
        case.patient_id: case.split
        for case in assign_splits(Manifest(strata, out), seed=seed, fractions=fractions)
    }
    return Manifest([replace(case, split=split[case.patient_id]) for case in cases], out)


def dealt(cases: list[Case], out: Path, *, seed: int, folds: int, fold: int) -> Manifest:
    """Patients dealt into test sets in turn, those with an anomaly first; of the others every fifth
    of each kind validates."""
    rng = np.random.default_rng(seed)
    split: dict[str, str] = {}
    for label in (ANOMALOUS, HEALTHY):
        patients = sorted({case.patient_id for case in cases if case.label == label})
        patients = [patients[i] for i in rng.permutation(len(patients))]
        rest = [patient for i, patient in enumerate(patients) if i % folds != fold]
        split |= (
            dict.fromkeys(patients, "test")
            | dict.fromkeys(rest, "train")
            | dict.fromkeys(rest[::5], "val")
        )
    return Manifest([replace(case, split=split[case.patient_id]) for case in cases], out)


def _labelled(source: Path) -> list[dict[str, str]]:
    """The rows of labels.csv, after checking each against the files and itself."""
    table, folder = source / "labels.csv", source / "images"
    if not table.is_file() or not folder.is_dir():
        raise Fault(
            "LAYOUT", "no labels.csv beside a folder images", "give the folder that holds both"
        )
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise Fault(
            "LAYOUT", f"labels.csv lacks a column of {', '.join(COLUMNS)}", "fetch it again"
        )
    for row in rows:
        match = _NAME.fullmatch(row["file"])
        if not match or (int(match[1]), int(match[2])) != (int(row["patient"]), int(row["slice"])):
            raise Fault(
                "LAYOUT",
                f"labels.csv: {row['file']} is not its patient_slice.jpg",
                "fetch it again",
            )
        flags = [row[name] for name in COLUMNS[3:]]
        if not set(flags) <= {"0", "1"} or row["any_hemorrhage"] != max(
            row[name] for name in SUBTYPES
        ):
            raise Fault(
                "LAYOUT",
                f"labels.csv: the labels of {row['file']} contradict one another",
                "fetch it again",
            )
    listed = {row["file"] for row in rows}
    if len(listed) < len(rows):
        raise Fault(
            "LAYOUT",
            f"labels.csv lists {many(len(rows) - len(listed), 'file')} twice",
            "list each once",
        )
    if odd := sorted(listed ^ {path.name for path in folder.glob("*.jpg")}):
        raise Fault(
            "LAYOUT",
            f"{many(len(odd), 'slice')} without label or the reverse, first {odd[0]}",
            "fetch them again",
        )
    return rows


def _one_size(source: Path, rows: list[dict[str, str]]) -> None:
    usual = (0, 0)
    for row in rows:
        with Image.open(source / "images" / row["file"]) as image:
            usual = usual if any(usual) else image.size
            if image.size != usual:
                found = (
                    f"{row['file']} has {image.size[0]} x {image.size[1]} pixels, the slices before"
                    f" it {usual[0]} x {usual[1]}"
                )
                raise Fault("SIZES", found, "export the patient in one size")
