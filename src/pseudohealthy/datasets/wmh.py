"""WMH challenge 2017 (Kuijf et al. 2019, IEEE TMI): white matter hyperintensities, FLAIR and T1,
five scanners.

Layout: ``training/Utrecht/0/{pre,orig}/{FLAIR,T1}.nii.gz`` with ``wmh.nii.gz``; ``Singapore/50``;
Amsterdam has one more level (``Amsterdam/GE3T/100``, in the test part also ``GE1T5`` and
``Philips_VU .PETMR_01.``, with a space and a dot at the end that some copies have lost); ``test/``
likewise. 60 + 110 cases.

Labels: 1 is WMH, 2 is other pathology, which the challenge counts neither as lesion nor as
background: the column ``mask_ignore`` holds 2. Other values are refused. Every case is a patient
with WMH, none is healthy elsewhere (age, atrophy): all are test, unless ``fractions`` divide the
cases; column ``part`` keeps training and test as published. Traps: only ``pre/`` (bias-corrected,
T1 on the FLAIR's grid) fits the mask, so ``orig/`` is never taken; case numbers repeat between
scanners, so the id carries the scanner; ``additional_annotations`` is left alone; planes are 3 mm
thick (2D FLAIR); faces are removed, skulls are not.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.chexpert import say_counts
from pseudohealthy.datasets.nnunet import label_values
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.progress import Progress, say

OTHER = 2  # label of other pathology


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.0, 0.0, 1.0),
    modality: str = "FLAIR",
) -> Manifest:
    """One case per folder; ``modality`` "FLAIR", "T1" or both. Raises Fault LAYOUT, LABELS (exit
    3), BAD_SETTING (2)."""
    source = Path(source)
    wanted = modality.split("|")
    if not set(wanted) <= {"FLAIR", "T1"}:
        raise Fault(
            "BAD_SETTING", f"modality {modality!r}", "choose from FLAIR, T1, FLAIR|T1", exit=USAGE
        )
    folders = sorted(
        {
            path.parents[1]
            for path in source.rglob("pre/*.nii.gz")
            if path.name in ("FLAIR.nii.gz", "T1.nii.gz")
        }
    )
    cases, seen = [], Counter[int]()
    with Progress("labels", len(folders)) as bar:
        for folder in folders:
            part, site, name = _place(source, folder)
            needed = [folder / "pre" / f"{kind}.nii.gz" for kind in wanted] + [
                folder / "wmh.nii.gz"
            ]
            if absent := [path.name for path in needed if not path.is_file()]:
                raise Fault("LAYOUT", f"no {', '.join(absent)}", "fetch the case again", case=name)
            values = label_values(needed[-1], (0, 1, OTHER), name)
            seen.update(values)
            *images, mask = [path.relative_to(source).as_posix() for path in needed]
            cases.append(
                Case(
                    name,
                    name,
                    "",
                    ANOMALOUS,
                    "|".join(images),
                    mask=mask,
                    site=site,
                    root=source,
                    extra={"mask_ignore": str(OTHER), "part": part},
                )
            )
            bar.advance()
    if not cases:
        raise Fault(
            "LAYOUT",
            "no folder with pre/FLAIR.nii.gz or pre/T1.nii.gz",
            "give the folder of training and test",
        )
    manifest = assign_splits(Manifest(cases, out), seed=seed, fractions=fractions)
    scanners = Counter(case.site for case in manifest)
    say("wmh: " + ", ".join(f"{site} {count}" for site, count in sorted(scanners.items())))
    say(
        "wmh: cases with label "
        + ", ".join(f"{v}: {n}" for v, n in sorted(seen.items()))
        + "; 2 is ignored"
    )
    say_counts("wmh", manifest)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _place(source: Path, folder: Path) -> tuple[str, str, str]:
    """Part (training, test or blank), scanner and case id, from the folders above the case."""
    parts = list(folder.resolve().parts)
    at = next(
        (
            k
            for k in range(len(parts) - 1, 0, -1)
            if parts[k] in ("Utrecht", "Singapore", "Amsterdam")
        ),
        None,
    )
    if at is None or not 2 <= len(parts) - at <= 3:
        raise Fault(
            "LAYOUT",
            "a case outside Utrecht, Singapore and Amsterdam",
            "keep the folders as published",
            case=folder.relative_to(source).name or folder.name,
        )
    site = "-".join(re.sub(r"\W+", "_", part).strip("_") for part in parts[at:-1])
    part = parts[at - 1] if parts[at - 1] in ("training", "test") else ""
    return part, site, f"{site}-{parts[-1]}"
