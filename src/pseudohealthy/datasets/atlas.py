"""ATLAS v2.0 (Liew et al. 2022, Scientific Data 9:320): T1 of chronic stroke, 197 x 233 x 189, 1
mm, MNI space, BIDS.

Layout: ``[Training/R001/ | derivatives/ATLAS/]sub-r001s001/ses-1/anat/`` with ``*_T1w.nii.gz`` and
``*_label-L_desc-T1lesion_mask.nii.gz``, at any depth below SOURCE. Rxxx is a cohort (the site
here), not a subject.

Labels: the mask is the lesion; ``label-L`` means lesion, not left. Every subject had a stroke, so
every case is anomalous and test, unless ``fractions`` divide the subjects; planes without lesion
come from patients. Masks are read: an empty one is refused. The hidden test cohorts (Testing/R...)
have no masks: they are test cases without reference; a cohort in which only some subjects have a
mask is refused. Traps: some subjects have several sessions, so the patient is the subject; the raw
T1w outside derivatives/ATLAS has another grid than the masks, so an image is taken only from the
folder of its mask; defaced but not skull-stripped; the background is small, not 0; lesions range
from 0.01 to 497 ml, so report by size. Published 2-D lists of ATLAS train and test on the same
scans.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.chexpert import say_counts
from pseudohealthy.datasets.nnunet import label_values
from pseudohealthy.errors import Fault
from pseudohealthy.progress import Progress, say

_IMAGE = re.compile(r"(sub-(r\d{3})s\d{3})_(ses-\w+?)(_.*)?_T1w\.nii(\.gz)?$")


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Manifest:
    """One case per session. Raises Fault LAYOUT, LABELS (exit 3)."""
    source = Path(source)
    images = [path for path in sorted(source.rglob("sub-*_T1w.nii*")) if _IMAGE.match(path.name)]
    if any("derivatives" in path.relative_to(source).parts for path in images):
        images = [path for path in images if "derivatives" in path.relative_to(source).parts]
    if not images:
        raise Fault(
            "LAYOUT",
            "no sub-r..._T1w.nii.gz in the folder",
            "give the folder Training or derivatives/ATLAS",
        )
    cases, masked = [], defaultdict(list)
    with Progress("labels", len(images)) as bar:
        for path in images:
            match = _IMAGE.match(path.name)
            assert match is not None
            name = f"{match[1]}_{match[3]}"
            masks = sorted(path.parent.glob(f"{name}_*desc-T1lesion_mask.nii*"))
            if len(masks) > 1:
                raise Fault(
                    "LAYOUT",
                    f"{len(masks)} lesion masks of one session",
                    "keep one of them",
                    case=name,
                )
            if masks and not label_values(masks[0], (0, 1), name) - {0}:
                raise Fault(
                    "LABELS",
                    "an empty lesion mask; every subject had a stroke",
                    "fetch it again",
                    case=name,
                )
            cell = masks[0].relative_to(source).as_posix() if masks else ""
            masked[match[2].upper(), bool(masks)].append(name)
            image = path.relative_to(source).as_posix()
            cases.append(
                Case(
                    name,
                    match[1],
                    "",
                    ANOMALOUS,
                    image,
                    mask=cell,
                    site=match[2].upper(),
                    root=source,
                )
            )
            bar.advance()
    for cohort in sorted({cohort for cohort, _ in masked}):
        if masked[cohort, True] and masked[cohort, False]:
            raise Fault(
                "LAYOUT",
                f"{many(len(masked[cohort, False]), 'case')} of {cohort} without lesion mask",
                "fetch it again",
                case=masked[cohort, False][0],
            )
    manifest = assign_splits(Manifest(cases, out), seed=seed, fractions=fractions)
    say(
        f"atlas: {many(len({case.site for case in manifest}), 'cohort')},"
        f" {many(sum(not case.mask for case in manifest), 'case')} without mask"
    )
    say_counts("atlas", manifest)
    manifest.save(Path(out) / "manifest.csv")
    return manifest
