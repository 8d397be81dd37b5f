"""IXI (brain-development.org): healthy brain MR from three London hospitals. CC BY-SA 3.0. Every
case is healthy.

Layouts: (1) volumes ``IXI002-Guys-0828-T1.nii.gz``, flat or in folders, also lower-cased
``..._t1.nii.gz``; sites Guys (Philips 1.5 T), HH (Philips 3 T), IOP (GE 1.5 T). (2) mid-axial PNG
slices in ``png/`` with ``index.csv`` (columns file, subject, and thor_split where a published split
is kept), as in THOR's set-up. ``IXI.csv`` (IXI.xls saved as CSV; the .xls itself is read where xlrd
is installed), beside the images or one folder above, gives the columns age and sex.

Traps: IXI.xls has duplicate rows per subject, which put the same scan in two published splits, so
the patient is always the IXI number of the file name and the table is joined by IXI_ID, never by
position; where a subject's rows disagree the value is left blank; scans without a row and rows
without a scan exist (both are counted); a height or weight of 0 means unknown and neither is taken.
A subject may have two files; not skull-stripped, faces present; site and field strength are
confounded with everything: report per site. One slice per subject says nothing about the rest of
the brain.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import SPLITS, Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.chexpert import read_table, say_counts
from pseudohealthy.errors import Fault
from pseudohealthy.progress import say

_VOLUME = re.compile(r"(IXI\d{3})-([A-Za-z]+)-\d+[-_]([A-Za-z0-9]+)\.nii(\.gz)?$", re.IGNORECASE)
_SEX = {"1": "M", "2": "F"}


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    modality: str = "T1",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Manifest:
    """Volumes of one modality, or the slices of ``index.csv``; the published split where the index
    has one."""
    source = Path(source)
    if (source / "index.csv").is_file():
        manifest = _slices(source, out)
    else:
        manifest = Manifest(_volumes(source, modality), out)
    if not len(manifest):
        raise Fault(
            "LAYOUT",
            f"neither index.csv nor IXI...-{modality}.nii.gz in the folder",
            "give the folder of IXI-T1",
        )
    manifest = _described(manifest, source)
    if not all(case.split for case in manifest):
        manifest = assign_splits(manifest, seed=seed, fractions=fractions)
    say_counts("ixi", manifest)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _slices(source: Path, out: Path) -> Manifest:
    with (source / "index.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"file", "subject"} <= set(rows[0]):
        raise Fault(
            "LAYOUT",
            "index.csv lacks the columns file, subject",
            "give the folder of mid-axial slices",
        )
    folder = "png/" if (source / "png").is_dir() else ""
    cases = []
    for row in rows:
        split = row.get("thor_split", "")
        name = row["file"].removesuffix(".png")
        cases.append(
            Case(
                name,
                row["subject"],
                split if split in SPLITS else "",
                HEALTHY,
                folder + row["file"],
                root=source,
            )
        )
    return Manifest(cases, out)


def _volumes(source: Path, modality: str) -> list[Case]:
    cases = []
    for path in sorted(source.rglob("*.nii*")):
        match = _VOLUME.match(path.name)
        if match and match[3].lower() == modality.lower():
            name = re.sub(r"\.nii(\.gz)?$", "", path.name)
            image = path.relative_to(source).as_posix()
            cases.append(
                Case(name, match[1].upper(), "", HEALTHY, image, site=match[2], root=source)
            )
    return cases


def _described(manifest: Manifest, source: Path) -> Manifest:
    """The cases with age and sex, where the table of subjects is there."""
    rows = _table(source)
    if rows is None:
        return manifest
    told: dict[str, dict[str, set[str]]] = defaultdict(lambda: {"age": set(), "sex": set()})
    times = Counter(subject for subject, _, _ in rows)
    for subject, age, sex in rows:
        told[subject]["age"] |= {age} - {""}
        told[subject]["sex"] |= {sex} - {""}
    single = {
        subject: {
            name: next(iter(values)) if len(values) == 1 else "" for name, values in facts.items()
        }
        for subject, facts in told.items()
    }
    scanned = set(manifest.patients)
    disagree = [
        s for s in scanned & told.keys() if any(len(values) > 1 for values in told[s].values())
    ]
    doubled = [s for s in scanned if times[s] > 1]
    say(
        f"ixi: {len(scanned & told.keys())} of {many(len(scanned), 'subject')} are in the table,"
        f" {len(doubled)} of them more than once ({len(disagree)} with rows that disagree: left"
        f" blank); subjects of the table without a scan: {len(told.keys() - scanned)}"
    )
    none = {"age": "", "sex": ""}
    return Manifest(
        [replace(c, extra={**c.extra, **single.get(c.patient_id, none)}) for c in manifest],
        manifest.root,
    )


def _table(source: Path) -> list[tuple[str, str, str]] | None:
    """(IXI number, age, sex) of every row; None without a table. Raises Fault LAYOUT for another
    table."""
    places = [
        folder / f"IXI.{end}"
        for end in ("csv", "xls")
        for folder in (source, source.resolve().parent)
    ]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    if path.suffix == ".csv":
        rows = [row for _, row in read_table(path, ("IXI_ID", "AGE"))]
    else:
        try:
            import xlrd
        except ImportError:
            say("ixi: IXI.xls needs the package xlrd; save it as IXI.csv to have age and sex")
            return None
        sheet = xlrd.open_workbook(path).sheet_by_index(0)
        head = [str(cell).strip() for cell in sheet.row_values(0)]
        rows = [
            dict(zip(head, map(str, sheet.row_values(k)), strict=True))
            for k in range(1, sheet.nrows)
        ]
    found = []
    for number, row in enumerate(rows, start=2):
        number_text = row.get("IXI_ID", "").removesuffix(".0")
        if not number_text.isdigit():
            raise Fault(
                "LAYOUT",
                f"{path.name} row {number}: no number under IXI_ID",
                "save the sheet as published",
            )
        sex = next((value for name, value in row.items() if name.startswith("SEX_ID")), "")
        found.append(
            (f"IXI{int(number_text):03d}", row.get("AGE", ""), _SEX.get(sex.removesuffix(".0"), ""))
        )
    return found
