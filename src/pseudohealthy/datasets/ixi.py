"""IXI (brain-development.org): healthy brain MR from three London hospitals. CC BY-SA 3.0. Every case is healthy.

Layouts: (1) volumes ``IXI002-Guys-0828-T1.nii.gz``, flat or in folders, also lower-cased ``..._t1.nii.gz``; sites Guys
(Philips 1.5 T), HH (Philips 3 T), IOP (GE 1.5 T). (2) mid-axial PNG slices in ``png/`` with ``index.csv`` (columns
file, subject, and thor_split where a published split is kept), as in THOR's set-up.

Traps: IXI.xls has duplicate rows per subject, which put the same scan in two published splits, so the patient is
always the IXI number of the file name; a subject may have two files; not skull-stripped, faces present; site and
field strength are confounded with everything: report per site. One slice per subject says nothing about the rest of
the brain.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from pseudohealthy.cases import HEALTHY, SPLITS, Case, Manifest, assign_splits
from pseudohealthy.errors import Fault

_VOLUME = re.compile(r"(IXI\d{3})-([A-Za-z]+)-\d+[-_]([A-Za-z0-9]+)\.nii(\.gz)?$", re.IGNORECASE)


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    modality: str = "T1",
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Manifest:
    """Volumes of one modality, or the slices of ``index.csv``; the published split where the index has one."""
    source = Path(source)
    if (source / "index.csv").is_file():
        manifest = _slices(source, out)
    else:
        manifest = Manifest(_volumes(source, modality), out)
    if not len(manifest):
        raise Fault(
            "LAYOUT", f"neither index.csv nor IXI...-{modality}.nii.gz in the folder", "give the folder of IXI-T1"
        )
    if not all(case.split for case in manifest):
        manifest = assign_splits(manifest, seed=seed, fractions=fractions)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _slices(source: Path, out: Path) -> Manifest:
    with (source / "index.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"file", "subject"} <= set(rows[0]):
        raise Fault("LAYOUT", "index.csv lacks the columns file, subject", "give the folder of mid-axial slices")
    folder = "png/" if (source / "png").is_dir() else ""
    cases = []
    for row in rows:
        split = row.get("thor_split", "")
        name = row["file"].removesuffix(".png")
        cases.append(
            Case(name, row["subject"], split if split in SPLITS else "", HEALTHY, folder + row["file"], root=source)
        )
    return Manifest(cases, out)


def _volumes(source: Path, modality: str) -> list[Case]:
    cases = []
    for path in sorted(source.rglob("*.nii*")):
        match = _VOLUME.match(path.name)
        if match and match[3].lower() == modality.lower():
            name = re.sub(r"\.nii(\.gz)?$", "", path.name)
            image = path.relative_to(source).as_posix()
            cases.append(Case(name, match[1].upper(), "", HEALTHY, image, site=match[2], root=source))
    return cases
