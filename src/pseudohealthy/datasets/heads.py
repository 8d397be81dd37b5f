"""Synthetic head CT: 28 healthy heads to train and validate, 6 healthy and 6 with a bleed to test.
No data needed.

Nothing is read from ``source``. Volumes are NIfTI below ``out``; the mask is the lesion that was
drawn. Every head is a patient. Ellipsoids with texture and ventricles are not anatomy: figures on
them show that the program works, nothing else.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest

SHAPE = (24, 96, 96)


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    train: int = 24,
    val: int = 4,
    healthy: int = 6,
    lesioned: int = 6,
) -> Manifest:
    """Write the heads and their manifest."""
    out = Path(out)
    (out / "heads").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    plan = [("train", HEALTHY)] * train + [("val", HEALTHY)] * val + [("test", HEALTHY)] * healthy
    cases = []
    for number, (split, label) in enumerate([*plan, *[("test", ANOMALOUS)] * lesioned]):
        radius = rng.uniform(0.12, 0.22) if label == ANOMALOUS else None
        volume, mask, affine = head(rng, shape=SHAPE, lesion=radius)
        name = f"head-{number:03d}"
        nifti(out / "heads" / f"{name}.nii.gz", volume, affine)
        if label == ANOMALOUS:
            nifti(out / "heads" / f"{name}_mask.nii.gz", mask.astype(np.uint8), affine)
        masked = f"heads/{name}_mask.nii.gz" if label == ANOMALOUS else ""
        cases.append(Case(name, name, split, label, f"heads/{name}.nii.gz", mask=masked, root=out))
    manifest = Manifest(cases, out)
    manifest.save(out / "manifest.csv")
    return manifest
