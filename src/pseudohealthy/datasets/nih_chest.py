"""NIH ChestX-ray14 (Wang et al. 2017, CVPR): 112,120 chest radiographs of 30,805 patients. Image
level, mined labels.

Layouts: (1) ``Data_Entry_2017*.csv`` with ``images*/**/00000001_000.png`` and, where they are
there, ``test_list.txt``, whose patients are then test. (2) ``labels.csv`` with the columns file,
patient and one 0/1 column a finding, images anywhere below.

Labels: healthy is "No Finding" (or all columns 0): nothing of the fourteen was mentioned, which is
weaker than healthy. ``anomaly`` is one finding (also beside others) or "any"; images with other
findings only are left out and counted. No pixel masks.
Splits by patient: patients whose every image here is healthy are divided, all others are test;
``weak`` divides all. Traps: the first word of a file name is the patient, and a patient has healthy
and ill images; labels come from reports (noisy); an image may lie there twice under two numbers of
one patient (the leak check names it); AP is the bedside view and goes with disease: choose ``view``
where the table knows it; ages above 120 are typing errors and left blank. Images are stored at 1024
x 1024 with 8 bits, a few as RGBA.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets.chexpert import choose, divide, read_table, require_files, say_counts
from pseudohealthy.errors import Fault

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
_NAME = re.compile(r"(\d{8})_\d{3}\.png$")


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    anomaly: str = "Effusion",
    view: str = "",
    weak: bool = False,
    partial: bool = False,
) -> Manifest:
    """Healthy radiographs and those with the anomaly; ``partial`` takes the listed images that are
    there.

    Raises Fault LAYOUT, MISSING, DUPLICATE (exit 3), BAD_SETTING (exit 2).
    """
    source = Path(source)
    choose("anomaly", anomaly, ("any", *FINDINGS))
    choose("view", view, ("", "AP", "PA"))
    files: dict[str, str] = {}
    for path in sorted(path for path in source.rglob("*.png") if not path.name.startswith(".")):
        if path.name in files:
            raise Fault("DUPLICATE", f"{path.name} lies in two folders", "keep one of them")
        files[path.name] = path.relative_to(source).as_posix()
    cases, left = [], Counter[str]()
    for name, patient, findings, extra in _rows(source):
        if view and extra["view"] != view:
            left["another view"] += 1
        elif findings and anomaly != "any" and anomaly not in findings:
            left["other findings"] += 1
        else:
            label = ANOMALOUS if findings else HEALTHY
            extra |= {"findings": " ".join(sorted(findings))}
            cases.append(
                Case(
                    name.removesuffix(".png"),
                    patient,
                    "",
                    label,
                    files.get(name, name),
                    root=source,
                    extra=extra,
                )
            )
    cases = require_files("nih-chest", cases, partial)
    listed = source / "test_list.txt"
    held = (
        {line[:8] for line in listed.read_text(encoding="utf-8").split()}
        if listed.is_file()
        else set()
    )
    manifest = divide(cases, out, seed=seed, fractions=fractions, weak=weak, test=held)
    say_counts("nih-chest", manifest, left)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _rows(source: Path) -> list[tuple[str, str, set[str], dict[str, str]]]:
    """File name, patient, findings and what else is known of every listed image."""
    tables = [*sorted(source.glob("Data_Entry_2017*.csv")), *source.glob("labels.csv")]
    if not tables:
        raise Fault(
            "LAYOUT",
            "neither Data_Entry_2017.csv nor labels.csv in the folder",
            "give the folder of the table",
        )
    official = tables[0].name != "labels.csv"
    columns = (
        ("Image Index", "Finding Labels", "Patient ID", "View Position")
        if official
        else ("file", "patient", *FINDINGS)
    )
    rows = []
    for number, row in read_table(tables[0], columns):
        name, patient = row[columns[0]].split("/")[-1], row["Patient ID" if official else "patient"]
        match = _NAME.match(name)
        if not match or not patient.isdigit() or int(match[1]) != int(patient):
            raise Fault(
                "LAYOUT",
                f"{tables[0].name} row {number}: file name and patient disagree",
                "fetch the table again",
            )
        found = (
            set(row["Finding Labels"].split("|"))
            if official
            else {name for name in FINDINGS if row[name] == "1"}
        )
        found -= {"No Finding"} if found == {"No Finding"} else set()
        if unknown := found - set(FINDINGS):
            raise Fault(
                "LAYOUT",
                f"{tables[0].name} row {number}: findings {sorted(unknown)}",
                "fetch the table again",
            )
        age = row.get("Patient Age", "").rstrip("Y").lstrip("0")
        extra = {
            "view": row.get("View Position", ""),
            "sex": row.get("Patient Gender", ""),
            "age": age if age.isdigit() and int(age) <= 120 else "",
        }
        rows.append((name, match[1], found, extra))
    return rows
