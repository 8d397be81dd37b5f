"""CheXpert (Irvin et al. 2019, AAAI): chest radiographs of Stanford with labels mined from their
reports. Image level.

Layout: ``CheXpert-v1.0-small/{train.csv, valid.csv, train/patient00001/study1/view1_frontal.jpg}``;
SOURCE is that folder or the one above it, and the folder's name at the start of the column Path is
stripped.

Labels: 1 positive, 0 said to be absent, -1 uncertain, blank = not mentioned, which is not 0.
``healthy``: "no-finding" takes ``No Finding`` = 1 (tubes and pacemakers may show), "no-devices"
also asks for ``Support Devices`` other than 1. ``anomaly``: one observation, or "any" of the twelve
pathologies, = 1. ``uncertain`` says what -1 of it counts as: "drop", "positive" or "negative"
(neither healthy nor anomalous). All others are left out, and counted.

Splits by patient: healthy patients are divided, patients with an anomaly are test only, as are all
of valid.csv, which radiologists labelled. ``weak`` divides the anomalous patients of train.csv too,
for methods that learn from image labels; the counts of Wolleb et al. 2022, whose choice of patients
was never published, are then printed beside. Traps: frontal and lateral views are mixed; AP means
bedside and goes with disease, so choose ``view`` (frontal, AP, PA or all) or report by the column
of that name; 8-bit and histogram-equalised; ages end at 90; the training labels are noisy.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.paper_counts import WOLLEB_CHEXPERT, counted, say_beside
from pseudohealthy.errors import REFUSED, USAGE, Fault
from pseudohealthy.progress import say

PATHOLOGIES = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
)
COLUMNS = (
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    "No Finding",
    *PATHOLOGIES,
    "Support Devices",
)
_PATH = re.compile(
    r"(?:CheXpert-v1\.0[^/]*/)?"
    r"((?:train|valid)/(patient\d+)/(study\d+)/(view\d+_(?:frontal|lateral))\.\w+)$"
)
_STATES = {"": None, "1": 1, "1.0": 1, "0": 0, "0.0": 0, "-1": -1, "-1.0": -1}


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    healthy: str = "no-finding",
    anomaly: str = "Pleural Effusion",
    uncertain: str = "drop",
    view: str = "frontal",
    weak: bool = False,
    partial: bool = False,
) -> Manifest:
    """Healthy and anomalous radiographs under the policies above; ``partial`` takes the listed
    images that are there.

    Raises Fault LAYOUT, MISSING (exit 3), BAD_SETTING (exit 2), PATH_ESCAPE (exit 8).
    """
    choose("healthy", healthy, ("no-finding", "no-devices"))
    choose("anomaly", anomaly, ("any", *PATHOLOGIES, "Support Devices"))
    choose("uncertain", uncertain, ("drop", "positive", "negative"))
    choose("view", view, ("frontal", "AP", "PA", "all"))
    roots = [
        folder
        for folder in (source, *sorted(Path(source).glob("CheXpert-v1.0*")))
        if (folder / "train.csv").is_file()
    ]
    if not roots:
        raise Fault("LAYOUT", "no train.csv in the folder", "give the folder CheXpert-v1.0-small")
    root, cases, left = roots[0], [], Counter[str]()
    for name in ("train.csv", "valid.csv"):
        for number, row in read_table(root / name, COLUMNS) if (root / name).is_file() else ():
            path, patient, study, view_name = _place(name, number, row["Path"])
            state = {column: _state(name, number, row[column]) for column in COLUMNS[5:]}
            if view_name.endswith("lateral") != (row["Frontal/Lateral"] == "Lateral"):
                raise Fault(
                    "LAYOUT",
                    f"{name} row {number}: path and Frontal/Lateral disagree",
                    "fetch the table again",
                )
            lateral = view_name.endswith("lateral")
            other = view in ("AP", "PA") and row["AP/PA"] != view
            if (view != "all" and lateral) or other:
                left["another view"] += 1
            elif isinstance(label := _label(state, healthy, anomaly, uncertain), str):
                left[label] += 1
            else:
                extra = {
                    "view": row["AP/PA"] or "LAT",
                    "sex": row["Sex"],
                    "age": row["Age"],
                    "table": name,
                }
                cases.append(
                    Case(
                        f"{patient}-{study}-{view_name}",
                        patient,
                        "",
                        label,
                        path,
                        root=root,
                        extra=extra,
                    )
                )
    held = {case.patient_id for case in cases if case.extra["table"] == "valid.csv"}
    manifest = divide(
        require_files("chexpert", cases, partial),
        out,
        seed=seed,
        fractions=fractions,
        weak=weak,
        test=held,
    )
    say_counts("chexpert", manifest, left)
    if weak and anomaly == "Pleural Effusion":  # what Wolleb et al. 2022 learn from
        say_beside("chexpert", "Wolleb 2022", counted(manifest), WOLLEB_CHEXPERT, "radiographs")
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _label(state: dict[str, int | None], healthy: str, anomaly: str, uncertain: str) -> int | str:
    """HEALTHY, ANOMALOUS, or why the image is neither."""
    found = [state[name] for name in (PATHOLOGIES if anomaly == "any" else (anomaly,))]
    if state["No Finding"] == 1:
        if any(state[name] == 1 for name in PATHOLOGIES):
            return "No Finding beside a finding"
        if healthy == "no-devices" and state["Support Devices"] == 1:
            return "healthy but for a device"
        return HEALTHY
    if 1 in found or (uncertain == "positive" and -1 in found):
        return ANOMALOUS
    return "uncertain" if -1 in found and uncertain == "drop" else "other findings"


def _place(name: str, number: int, cell: str) -> tuple[str, str, str, str]:
    """Path below the root, patient, study and view."""
    if PurePosixPath(cell).is_absolute() or ".." in PurePosixPath(cell.replace("\\", "/")).parts:
        raise Fault(
            "PATH_ESCAPE",
            f"{name} row {number} names a file outside the folder",
            "fetch it again",
            exit=REFUSED,
        )
    match = _PATH.match(cell)
    if not match:
        raise Fault(
            "LAYOUT",
            f"{name} row {number}: a path without patient, study and view",
            "fetch the table again",
        )
    return match[1], match[2], match[3], match[4]


def _state(name: str, number: int, cell: str) -> int | None:
    if cell not in _STATES:
        raise Fault(
            "LAYOUT",
            f"{name} row {number}: a label other than 1, 0, -1 and blank",
            "fetch the table again",
        )
    return _STATES[cell]


def choose(setting: str, value: str, known: Collection[str]) -> None:
    """Raise Fault BAD_SETTING (exit 2) unless the value is one of the known."""
    if value not in known:
        raise Fault(
            "BAD_SETTING",
            f"{setting} {value!r}",
            f"choose from {', '.join(map(repr, known))}",
            exit=USAGE,
        )


def read_table(path: Path, columns: Collection[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """Rows of a CSV (with or without BOM; comma or semicolon) with their line numbers. Raises Fault
    LAYOUT."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        head = stream.readline()
        stream.seek(0)
        table = csv.DictReader(stream, delimiter=max(",;\t", key=head.count))
        if absent := [name for name in columns if name not in (table.fieldnames or ())]:
            raise Fault(
                "LAYOUT",
                f"{path.name} has no column {', '.join(absent)}",
                "give the table as published",
            )
        for number, row in enumerate(table, start=2):
            yield number, {name: (row[name] or "").strip() for name in row if name}


def require_files(name: str, cases: list[Case], partial: bool) -> list[Case]:
    """The cases whose image is there. Raises Fault MISSING (exit 3) where one is not, unless
    ``partial``."""
    there = [case for case in cases if (case.root / case.image).is_file()]
    gone = len(cases) - len(there)
    if gone and (not partial or not there):
        raise Fault(
            "MISSING",
            f"{gone} of {many(len(cases), 'listed image')} are not there",
            "fetch them, or take what is there with partial=True",
        )
    if gone:
        say(f"{name}: {gone} listed images are not there and left out")
    if not there:
        raise Fault(
            "LAYOUT",
            "the table lists no image that is healthy or anomalous",
            "check the policy and the table",
        )
    return there


def divide(
    cases: list[Case],
    out: Path,
    *,
    seed: int,
    fractions: tuple[float, float, float],
    weak: bool = False,
    test: Collection[str] = (),
) -> Manifest:
    """Splits by patient: those of ``test`` are test; of the rest the healthy are divided and all
    others are test, or, with ``weak``, everyone is divided, healthy and anomalous alike."""
    rest = [case for case in cases if case.patient_id not in test]
    sick = {case.patient_id for case in rest if case.label != HEALTHY}
    split: dict[str, str] = {}
    if weak:
        rest = [replace(case, label=None, site=str(case.patient_id in sick)) for case in rest]
    if weak or any(case.patient_id not in sick for case in rest):
        divided = assign_splits(Manifest(rest, out), seed=seed, fractions=fractions)
        split = {case.patient_id: case.split for case in divided}
    return Manifest(
        [replace(case, split=split.get(case.patient_id, "test")) for case in cases], out
    )


def say_counts(name: str, manifest: Manifest, left: Counter[str] | None = None) -> None:
    """One line: cases, patients and what was left out, why."""
    count = Counter(case.label for case in manifest)
    text = f"{name}: {count[HEALTHY]} healthy, {count[ANOMALOUS]} anomalous"
    text += (
        f", {count[None]} without label" if count[None] else ""
    ) + f"; {many(len(manifest.patients), 'patient')}"
    say(
        text
        + (
            f"; left out: {', '.join(f'{n} {why}' for why, n in left.most_common())}"
            if left
            else ""
        )
    )
