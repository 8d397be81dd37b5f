"""BMAD (Bao et al. 2024, CVPR workshops) and MVTec AD (Bergmann et al. 2019, CVPR): folders of 2-D
images.

Layout: ``train/good``; ``valid/{good,Ungood}`` (BMAD); ``test/{good,Ungood}``, images there below
``img`` and masks below ``label`` or ``anomaly_mask`` where there are pixel labels; MVTec:
``test/<defect>`` and ``ground_truth/<defect>/000_mask.png``. SOURCE is the folder of train
(``Brain_AD``, ``bottle``) or one above a single such folder. The plain folder layout reads most of
this as it stands; this adapter adds the patients, the second name of the mask folder and the
checks.

Labels: folders named good are healthy, all others anomalous; a mask's values above 0 are lesion.
The published split is kept; without ``valid``, ``val`` of the training patients validate.
Traps: BMAD cuts volumes into slices, so a split by image would leak. The patient is read from names
as in BraTS (``BraTS2021_00003_...``) and OCT2017 (``CNV-1016042-3``), or by ``patient``, a regular
expression whose first group it is; any other image counts as a patient of its own, which makes
intervals too narrow: the count is printed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.checks import leaks
from pseudohealthy.data.folders import read_folders
from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets.chexpert import divide, say_counts
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.progress import say

_PATIENT = re.compile(r"(BraTS(?:2021|20_Training)_\d+)|(?:NORMAL|CNV|DME|DRUSEN)-(\d+)-\d+")
_MASKS = ("label", "anomaly_mask")


def prepare(
    source: Path, out: Path, *, seed: int = 0, val: float = 0.15, patient: str = ""
) -> Manifest:
    """One case per image. Raises Fault LAYOUT (exit 3), BAD_SETTING (exit 2)."""
    root = _root(Path(source))
    found = read_folders(root)
    cases = [replace(case, patient_id=_patient(case, patient), mask=_mask(case)) for case in found]
    own_val = any((root / name).is_dir() for name in ("val", "valid", "validation"))
    if not own_val:
        training = [case for case in cases if case.split in ("train", "val")]
        if any(case.label == ANOMALOUS for case in training):
            raise Fault(
                "LAYOUT", "train holds a folder other than good", "train on healthy images only"
            )
        split = {
            c.case_id: c.split
            for c in divide(training, out, seed=seed, fractions=(1 - val, val, 0))
        }
        cases = [replace(case, split=split.get(case.case_id, "test")) for case in cases]
    bad = [case for case in cases if case.label == ANOMALOUS]
    without = [case for case in bad if not case.mask]
    if 0 < len(without) < len(bad):
        raise Fault(
            "LAYOUT",
            f"{len(without)} of {many(len(bad), 'anomalous image')} have no mask",
            "fetch them",
            case=without[0].case_id,
        )
    manifest = Manifest(cases, out)
    say_counts("bmad", manifest)
    if len(manifest.patients) == len(manifest):
        say(
            "bmad: every image counts as a patient of its own; where names tell the patient, give"
            " patient=REGEX"
        )
    for sentence in leaks(manifest):
        say(f"warning: as published, {sentence}")
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _root(source: Path) -> Path:
    if (source / "train" / "good").is_dir():
        return source
    below = sorted(path.parents[1] for path in source.glob("*/train/good"))
    if len(below) == 1:
        return below[0]
    names = ", ".join(path.name for path in below[:6])
    raise Fault(
        "LAYOUT",
        (
            f"{len(below)} data sets in the folder: {names}"
            if below
            else "no train/good in the folder"
        ),
        "give the folder of one train",
    )


def _patient(case: Case, pattern: str) -> str:
    name = Path(case.image).name
    if pattern:
        match = re.search(pattern, name)
        if not match or not match.groups() or not match[1]:
            raise Fault(
                "BAD_SETTING",
                f"patient {pattern!r} does not fit",
                "give a group, as in '(P\\d+)_'",
                exit=USAGE,
                case=case.case_id,
            )
        return match[1]
    match = _PATIENT.match(name)
    return (match[1] or match[2]) if match else case.patient_id


def _mask(case: Case) -> str:
    """The mask beside ``img`` under either name, else what the plain layout found."""
    image = Path(case.image)
    if case.label != ANOMALOUS or case.mask or image.parent.name != "img":
        return case.mask
    for name in _MASKS:
        for path in sorted((case.root / image.parents[1] / name).glob(f"{image.stem}*")):
            if path.stem in (image.stem, f"{image.stem}_mask"):
                return path.relative_to(case.root).as_posix()
    return ""
