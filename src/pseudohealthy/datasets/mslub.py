"""MSLUB, the open MS data of Ljubljana (Lesjak et al. 2017, Neuroinformatics): 30 patients,
consensus lesions. CC BY.

Layouts, one folder ``patient01`` (or ``patient1``) a patient, at any depth below SOURCE:
(1) ``patient01_{FLAIR,T1W,T1WKS,T2W}.nii.gz``, ``patient01_consensus_gt.nii.gz``,
``patient01_brainmask.nii.gz``; (2) the same names without ``patient01_``; (3) in MNI space
``{FLAIR,T1,T1POST,T2}_N4_..._regtoMNI.nii.gz`` with ``GOLD_STANDARD_..._regtoMNI.nii.gz``.
``modality`` is "FLAIR", "T1", "T1POST" (after contrast: T1WKS), "T2" or several ("T1|T2"). A
patient without that modality is left out, by name.

Labels: the mask is the consensus of three raters; everything above 0 is lesion. Every patient has
MS, so every case is anomalous and test, unless ``fractions`` divide the patients.
Traps: ``raw/`` holds images of the same names on their own grids, which the mask does not fit, so
files below raw are never taken; the longitudinal set (``gt.nii.gz``) marks what changed between two
visits, which is no lesion mask, and is refused. Lesions are small and there are 30 patients:
intervals are wide.
"""

from __future__ import annotations

import re
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.chexpert import say_counts
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.progress import say

_KINDS = {
    "FLAIR": "FLAIR",
    "T1": "T1",
    "T1W": "T1",
    "T1POST": "T1POST",
    "T1WKS": "T1POST",
    "T2": "T2",
    "T2W": "T2",
    "consensus_gt": "mask",
    "GOLD_STANDARD": "mask",
    "brainmask": "brain",
    "gt": "change",
}
_NAME = re.compile(
    rf"(?:patient\d+_)?({'|'.join(sorted(_KINDS, key=len, reverse=True))})(_N4_\w+)?\.nii(\.gz)?$"
)


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.0, 0.0, 1.0),
    modality: str = "FLAIR",
) -> Manifest:
    """One case per patient. Raises Fault LAYOUT, DUPLICATE (exit 3), BAD_SETTING (exit 2)."""
    source = Path(source)
    wanted = modality.split("|")
    if not set(wanted) <= {"FLAIR", "T1", "T1POST", "T2"}:
        raise Fault(
            "BAD_SETTING", f"modality {modality!r}", "choose from FLAIR, T1, T1POST, T2", exit=USAGE
        )
    cases: dict[str, Case] = {}
    without = []
    folders = [path for path in (source, *sorted(source.rglob("patient*"))) if path.is_dir()]
    for folder in folders:
        match = re.fullmatch(r"patient(\d+)", folder.name)
        if not match:
            continue
        name, files = f"patient{int(match[1]):02d}", _files(folder)
        if not files:
            continue  # a folder above visits, or of something else
        if "change" in files:
            raise Fault(
                "LAYOUT",
                "gt.nii.gz marks changes between two visits, not lesions",
                "give the cross-sectional set",
                case=name,
            )
        if name in cases:
            raise Fault("DUPLICATE", "two folders of this patient", "keep one of them", case=name)
        if not all(kind in files for kind in wanted):
            without.append(name)
            continue
        if "mask" not in files:
            raise Fault(
                "LAYOUT", "no consensus mask beside the images", "fetch consensus_gt", case=name
            )
        cells = {kind: path.relative_to(source).as_posix() for kind, path in files.items()}
        cases[name] = Case(
            name,
            name,
            "",
            ANOMALOUS,
            "|".join(cells[kind] for kind in wanted),
            mask=cells["mask"],
            brain_mask=cells.get("brain", ""),
            root=source,
        )
    if not cases:
        found = (
            f"none of {many(len(without), 'patient')} has {modality}"
            if without
            else "no folder patientNN with images"
        )
        raise Fault(
            "LAYOUT", found, "give the folder of the patients, with the images outside raw/"
        )
    if without:
        say(f"mslub: no {modality} of {', '.join(without)}; left out")
    manifest = assign_splits(Manifest(cases.values(), out), seed=seed, fractions=fractions)
    say_counts("mslub", manifest)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _files(folder: Path) -> dict[str, Path]:
    """Files directly in the patient's folder, by what they are. Raises Fault LAYOUT where there is
    only raw/."""
    files: dict[str, Path] = {}
    for path in sorted(folder.glob("*.nii*")):
        if match := _NAME.match(path.name):
            kind = _KINDS[match[1]]
            if kind in files:
                raise Fault(
                    "DUPLICATE",
                    f"{path.name} and {files[kind].name}",
                    "keep one of them",
                    case=folder.name,
                )
            files[kind] = path
    if not files and (folder / "raw").is_dir():
        raise Fault(
            "LAYOUT",
            "only raw/, whose images the mask does not fit",
            "fetch the aligned images",
            case=folder.name,
        )
    return files
