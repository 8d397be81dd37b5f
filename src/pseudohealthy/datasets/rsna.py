"""RSNA intracranial haemorrhage 2019 (Flanders et al. 2020, Radiology: AI): head CT as single DICOM
slices, in HU.

Layout: ``stage_2_train/ID_000012eaf.dcm`` (also ``images/``, ``series/``) with
``stage_2_train.csv`` (or one ``stage_2_train*.csv``): header ``ID,Label``, six rows an image,
``ID_000012eaf_epidural,0`` to ``..._any,0``. A case is one series of one study; a study by
StudyInstanceUID, a patient by PatientID, the order by position along the normal.

Labels are per slice (column ``plane_labels``, blank = unlabelled); there are no masks.
``healthy="study"`` (default): only patients without any positive slice train; those with
haemorrhage are divided over val and test, so that a training has a validation ROC-AUC and its best
model is chosen by it; unlabelled ones are test. ``"slice"``: every negative slice of a training
patient counts as healthy, as in the CT-haemorrhage work this compares with: a negative slice of a
bleeding patient may show swelling or shift. Traps, all counted and printed: four images are listed
twice (24 surplus rows of 4,516,842; identical ones are dropped, contradictory ones refused);
ID_6431af929.dcm holds fewer pixels than it declares and a few slices are constant: left out by what
they are, never replaced by another image; 12-bit headers that wrap air to +3096 are repaired on
reading (``io.dicom_pixels``); file names say nothing of order or patient; published splits by slice
share patients. A series with a gap or uneven distances becomes a stack without geometry (no ml).
BHSD (``ct-masks``) is made of this set under other names, which no check by id can see.
Non-commercial terms, no redistribution.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import SPLITS, Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.ct_ich import divided
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.dicom import REGULAR
from pseudohealthy.io.dicom_pixels import dataset, quiet, stored_values
from pseudohealthy.progress import say, track

SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
FOLDERS = ("stage_2_train", "images", "series")
_ROW = re.compile(r"(ID_[0-9a-f]{9})_(\w+)")


@dataclass
class _Slice:
    path: Path
    patient: str
    study: str
    series: tuple[str, int, int]  # SeriesInstanceUID, rows, columns
    position: np.ndarray  # mm, LPS
    orientation: np.ndarray
    label: int | None
    usable: bool


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    healthy: str = "study",
    num_samples: int | None = None,
    sample_seed: int = 42,
    haemorrhage_in_val: bool = True,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
) -> Manifest:
    """One case per series, split by patient.

    Args:
        healthy: What trains: "study" or "slice", see above.
        num_samples: Train on that many healthy slices, drawn with `sample_seed` from the training
            patients; each is then a case of its own and no other is left in train. Where fewer
            exist all are taken, and a line says so.
        haemorrhage_in_val: With healthy="study", divide patients with haemorrhage over val and test
            in the ratio of their fractions; false puts all of them into test, and a training has no
            ROC-AUC then.
        fractions: Of the patients, for train, val and test.

    Reads every file once. Writes links to the slices of each study below ``out/studies``. Raises
    Fault LAYOUT (exit 3), LABELS (3) for a table that contradicts itself, BAD_SETTING (2), and what
    the DICOM reader raises.
    """
    if healthy not in ("study", "slice"):
        raise Fault("BAD_SETTING", f"healthy = {healthy!r}", "use study or slice", exit=USAGE)
    source, out = Path(source), Path(out)
    labels = read_labels(_table(source))
    files = _files(source)
    if not files.keys() & labels.keys():
        raise Fault(
            "LAYOUT",
            "no image of the table is in the folder",
            f"give the folder that holds {FOLDERS[0]}",
        )
    say(
        f"{many(len(files), 'file')}, {many(len(labels), 'labelled image')}:"
        f" {len(labels.keys() - files.keys())} without file,"
        f" {many(len(files.keys() - labels.keys()), 'file')} without label"
    )
    slices = _read(files, labels)
    stacks = _stacks(slices)
    cases = [case for case, _, _ in stacks]
    if healthy == "study" and not (
        _patients(cases, HEALTHY) - _patients(cases, ANOMALOUS) - _patients(cases, None)
    ):
        raise Fault(
            "NO_HEALTHY",
            "no patient is labelled free of haemorrhage throughout",
            "use healthy=slice",
        )
    if healthy == "slice":
        manifest = divided(cases, out, seed=seed, fractions=fractions)
    else:
        manifest = assign_splits(
            Manifest(cases, out),
            seed=seed,
            fractions=fractions,
            anomalous_in_val=haemorrhage_in_val,
        )
    split = {case.case_id: case.split for case in manifest}
    chosen = []
    if num_samples is not None:
        chosen = _drawn(
            [(c, s) for c, s, _ in stacks if split[c.case_id] == "train"],
            source,
            num_samples,
            sample_seed,
        )
        stacks = [stack for stack in stacks if split[stack[0].case_id] != "train"]
    cases = [
        _placed(replace(case, split=split[case.case_id]), stack, even, source, out)
        for case, stack, even in stacks
    ]
    manifest = Manifest(chosen + cases, out)
    manifest.save(out / "manifest.csv")
    uneven = sum(not even for _, _, even in stacks)
    say(
        f"{many(len(manifest), 'case')} of {many(len(manifest.patients), 'patient')}, {uneven} of"
        f" them without regular slice distances; slices: {_counted(manifest)}"
    )
    for name in SPLITS:
        part = manifest.split(name)
        bleeding = len(_patients(part.cases, ANOMALOUS))
        say(
            f"{name}: {many(len(part.patients), 'patient')}, {bleeding} with haemorrhage; slices:"
            f" {_counted(part)}"
        )
        if name != "train" and not {"0", "1"} <= _words(part).keys():
            lost = (
                "the training will have no ROC-AUC"
                if name == "val"
                else "nothing can be ranked in it"
            )
            say(f"warning: the split {name} does not hold slices of both classes: {lost}")
    return manifest


def _words(manifest: Manifest) -> Counter[str]:
    """How many slices are labelled "0", "1" and "" (not at all)."""
    return Counter(word for case in manifest for word in case.extra["plane_labels"].split("|"))


def _counted(manifest: Manifest) -> str:
    found = _words(manifest)
    return f"{found['0']} without, {found['1']} with haemorrhage, {found['']} unlabelled"


def read_labels(table: Path) -> dict[str, int]:
    """Image id -> its label ``any``. Raises Fault LABELS (exit 3) for anything but six consistent
    rows an image."""
    seen: dict[
        str, bytearray
    ] = {}  # a byte per subtype, 2 = not stated: a million images stay small
    again: Counter[str] = Counter()
    with table.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        if next(rows, None) != ["ID", "Label"]:
            raise _bad(table, "the header is not ID,Label")
        for number, row in enumerate(rows, start=2):
            match = _ROW.fullmatch(row[0]) if len(row) == 2 else None
            if not match or match[2] not in SUBTYPES or row[1] not in ("0", "1"):
                raise _bad(table, f"row {number} is not ID_<9 hex>_<subtype>,<0 or 1>")
            image, place, label = match[1], SUBTYPES.index(match[2]), int(row[1])
            stated = seen.setdefault(image, bytearray([2] * len(SUBTYPES)))
            if stated[place] != 2:
                again[image] += 1
                if stated[place] != label:
                    raise _bad(table, f"row {number} contradicts an earlier {match[2]} of {image}")
            stated[place] = label
    for image, stated in seen.items():
        if 2 in stated:
            raise _bad(
                table, f"{image} has {len(SUBTYPES) - stated.count(2)} of {len(SUBTYPES)} labels"
            )
        if stated[-1] != max(stated[:-1]):
            raise _bad(table, f"'any' of {image} is not the union of its subtypes")
    if again:
        say(
            f"{table.name}: {many(again.total(), 'surplus row')} of {many(len(again), 'image')}"
            " listed twice, identical, dropped"
        )
    return {image: stated[-1] for image, stated in seen.items()}


def _bad(table: Path, found: str) -> Fault:
    return Fault("LABELS", f"{table.name}: {found}", "fetch the table again")


def _table(source: Path) -> Path:
    tables = sorted(source.glob("stage_2_train*.csv"))
    whole = [path for path in tables if path.name == "stage_2_train.csv"] or tables
    if len(whole) != 1:
        raise Fault(
            "LAYOUT",
            f"{len(whole)} tables stage_2_train*.csv in the folder",
            "keep one beside the images",
        )
    return whole[0]


def _files(source: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for folder in FOLDERS:
        for path in sorted((source / folder).rglob("*.dcm")):
            if path.stem in files:
                raise Fault("LAYOUT", f"{path.name} lies in two folders", "keep one")
            files[path.stem] = path
    return files


def _read(files: dict[str, Path], labels: dict[str, int]) -> list[_Slice]:
    """Every slice by its header; one with too few or constant pixels is named and marked
    unusable."""
    slices, refused = [], Counter[str]()
    with quiet():
        for image, path in track(files.items(), "reading slices", len(files)):
            reason = ""
            try:
                ds = dataset(path)
            except Fault:
                ds, reason = dataset(path, header_only=True), "fewer pixels than declared"
            try:
                keys = [
                    str(ds[key].value)
                    for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
                ]
                position, orientation = (
                    np.array([float(v) for v in ds[key].value], np.float64)
                    for key in ("ImagePositionPatient", "ImageOrientationPatient")
                )
                named, shape = str(ds.SOPInstanceUID), (int(ds.Rows), int(ds.Columns))
            except (KeyError, AttributeError, TypeError, ValueError):
                raise Fault(
                    "LAYOUT", f"{path.name} lacks ids, position or size", "fetch the file again"
                ) from None
            if named != image or not all(keys) or ds.get("Modality") != "CT":
                raise Fault(
                    "LAYOUT", f"{path.name} is not the CT image of its name", "fetch the file again"
                )
            try:
                pixels = None if reason else stored_values(path, ds)
                reason = (
                    "constant pixels"
                    if pixels is not None and pixels.min() == pixels.max()
                    else reason
                )
            except Fault as fault:
                if fault.code != "TRUNCATED_SLICE":
                    raise
                reason = "fewer pixels than declared"
            if reason:
                refused[reason] += 1
                say(f"warning: {path.name} left out: {reason}")
            patient, study, series = keys
            slices.append(
                _Slice(
                    path,
                    patient,
                    study,
                    (series, *shape),
                    position,
                    orientation,
                    labels.get(image),
                    not reason,
                )
            )
    if refused:
        say(
            "left out: "
            + ", ".join(f"{count} with {reason}" for reason, count in sorted(refused.items()))
        )
    return slices


def _stacks(slices: list[_Slice]) -> list[tuple[Case, list[_Slice], bool]]:
    """A case, its slices in order and whether they are evenly spaced, for each series with a usable
    slice.

    The case's label is that of its study: positive if any slice is (unusable ones too), unknown if
    one is unlabelled.
    """
    studies: dict[str, list[_Slice]] = defaultdict(list)
    for one in slices:
        studies[one.study].append(one)
    found = []
    for study, members in sorted(studies.items()):
        if len({one.patient for one in members}) > 1:
            raise Fault("LAYOUT", f"study {study} names several patients", "fetch its files again")
        known = {one.label for one in members}
        label = ANOMALOUS if 1 in known else None if None in known else HEALTHY
        series: dict[tuple[str, int, int], list[_Slice]] = defaultdict(list)
        for one in members:
            if one.usable:
                series[one.series].append(one)
        for number, (_, group) in enumerate(sorted(series.items()), start=1):
            ordered, even = _ordered(group)
            words = "|".join("" if one.label is None else str(one.label) for one in ordered)
            name = study if len(series) == 1 else f"{study}-{number}"
            case = Case(
                name, group[0].patient, "", label, "", extra={"plane_labels": words, "study": study}
            )
            found.append((case, ordered, even))
    return found


def _ordered(group: list[_Slice]) -> tuple[list[_Slice], bool]:
    """Slices ascending along the normal of the first, and whether the reader will find them on one
    regular grid."""
    first = min(group, key=lambda one: one.path.name).orientation
    normal = np.cross(first[:3], first[3:])
    ordered = sorted(group, key=lambda one: (float(one.position @ normal), one.path.name))
    if len(ordered) == 1:
        return ordered, True
    positions = np.array([one.position for one in ordered])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    off = np.linalg.norm(positions - positions[0] - np.arange(len(ordered))[:, None] * step, axis=1)
    turned = max(float(np.abs(one.orientation - first).max()) for one in ordered)
    return ordered, bool(off.max() < REGULAR * float(step @ normal) and turned < 1e-3)


def _patients(cases: list[Case], label: int | None) -> set[str]:
    return {case.patient_id for case in cases if case.label == label}


def _drawn(
    stacks: list[tuple[Case, list[_Slice]]], source: Path, count: int, seed: int
) -> list[Case]:
    """Single slices of label 0 from the training stacks, each a case."""
    pool = [(case, one) for case, stack in stacks for one in stack if one.label == HEALTHY]
    if count < 1 or not pool:
        found = f"num_samples {count} of {len(pool)} healthy training slices"
        raise Fault(
            "BAD_SETTING", found, "give a number from 1, and data with healthy slices", exit=USAGE
        )
    if count > len(pool):
        say(
            f"warning: num_samples is {count}, and the training patients have"
            f" {many(len(pool), 'healthy slice')}: all are taken"
        )
    order = sorted(np.random.default_rng(seed).permutation(len(pool))[:count].tolist())
    return [
        Case(
            one.path.stem,
            case.patient_id,
            "train",
            HEALTHY,
            one.path.relative_to(source).as_posix(),
            root=source,
            extra={"plane_labels": "0", "study": one.study},
        )
        for case, one in (pool[index] for index in order)
    ]


def _placed(case: Case, stack: list[_Slice], even: bool, source: Path, out: Path) -> Case:
    """The case with its image: the file of a single slice, else a folder of links, read as a series
    or as a stack."""
    if len(stack) == 1:
        return replace(case, image=stack[0].path.relative_to(source).as_posix(), root=source)
    folder = out / "studies" / case.case_id
    folder.mkdir(parents=True, exist_ok=True)
    for link in folder.glob("*.dcm"):
        if link.is_symlink():  # of an earlier run
            link.unlink()
    for number, one in enumerate(stack):
        os.symlink(one.path.resolve(), folder / f"{number:03d}-{one.path.name}")
    return replace(case, image=f"studies/{case.case_id}" + ("" if even else "/*.dcm"), root=out)
