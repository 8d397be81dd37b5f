"""Healthy IXI slices with simulated lesions in every second test subject: what differs is known
exactly.

Layout of SOURCE: as of ``ixi`` with mid-axial PNG slices. Training and validation subjects stay as
they are. Of the test subjects (of the splits in ``lesions_in``; with "val" for sweeps) every second
one gets one lesion (`phantoms.lesion`) inside the brain (a third of the slice's radius is kept from
the skull), with its mask and, in the column ``twin``, the slice as it was: so restoration itself
can be measured.

Traps: a simulated lesion is no disease, and one slice position is no brain. Made for comparing
methods, not for claims.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from pseudohealthy import io
from pseudohealthy.anomalies.phantoms import lesion
from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets import ixi
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.preprocessing.foreground import foreground
from pseudohealthy.progress import say

DEPTH = 0.3  # of the head's breadth at its widest: kept clear of skull and scalp


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    lesions_in: tuple[str, ...] = ("test",),
) -> Manifest:
    """As ``ixi``, split anew by subject (the published split has no test); pictures below
    ``out/lesions``.

    Raises Fault LAYOUT (exit 3), BAD_SETTING (exit 2) for splits other than "val" and "test".
    """
    if not set(lesions_in) <= {"val", "test"}:
        raise Fault(
            "BAD_SETTING", f"lesions_in is {', '.join(lesions_in)}", "name val or test", exit=USAGE
        )
    out = Path(out)
    given = ixi.prepare(source, out, seed=seed)
    manifest = assign_splits(
        Manifest([replace(case, split="") for case in given], out), seed=seed, fractions=fractions
    )
    subjects = {
        split: sorted({case.patient_id for case in manifest if case.split == split})
        for split in lesions_in
    }
    diseased = {subject for names in subjects.values() for subject in names[::2]}
    cases = [
        with_lesion(case, out, seed) if case.patient_id in diseased else case for case in manifest
    ]
    among = sum(map(len, subjects.values()))
    say(
        f"ixi-lesions: {len(diseased)} of {among} {' and '.join(lesions_in)} subjects have a"
        " simulated lesion"
    )
    manifest = Manifest(cases, out)
    manifest.save(out / "manifest.csv")
    return manifest


def with_lesion(case: Case, out: Path, seed: int) -> Case:
    """The anomalous version of a healthy case: image, mask and true twin as 8-bit PNG."""
    scan = io.read_image(case.image, case.root)
    values = scan.voxels[0, 0] / 255
    depth = ndimage.distance_transform_edt(foreground(scan.voxels)[0])
    rng = np.random.default_rng([seed, *case.case_id.encode()])
    changed, mask = lesion(values, depth > DEPTH * depth.max(), rng)
    folder = out / "lesions"
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in (("", changed), ("_mask", mask), ("_clean", values)):
        Image.fromarray(np.rint(np.asarray(picture, dtype=np.float64) * 255).astype(np.uint8)).save(
            folder / f"{case.case_id}{name}.png"
        )
    path = f"lesions/{case.case_id}"
    return Case(
        case.case_id,
        case.patient_id,
        case.split,
        ANOMALOUS,
        f"{path}.png",
        mask=f"{path}_mask.png",
        site=case.site,
        root=out,
        extra={**case.extra, "twin": f"{path}_clean.png"},
    )
