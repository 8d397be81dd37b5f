"""Writers of a finding that draw nothing: its volumes and its description; see `outputs`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pseudohealthy import io
from pseudohealthy.detection.finding import Finding
from pseudohealthy.detection.output_layout import relative
from pseudohealthy.detection.outputs import IMAGES, Target
from pseudohealthy.io.atomic import write_json, write_text
from pseudohealthy.io.hashing import sha256


def volumes(finding: Finding, to: Target) -> dict[str, Path]:
    """Healthy twin, map and mask on the input's grid and in its type, see `io.write_volume`."""
    return {name: _image(finding, to, name) for name in IMAGES}


def nifti(finding: Finding, to: Target) -> dict[str, Path]:
    """Those images as NIfTI: the very files of `volumes` where it has written NIfTI, else beside
    them under names of their own."""
    paths = {}
    for name in IMAGES:
        there = to.paths.get(name)
        if there is None or not there.name.endswith(".nii.gz"):
            paths[f"{name}_nifti" if there else name] = _image(finding, to, name, nifti=True)
    return paths


def _image(finding: Finding, to: Target, name: str, *, nifti: bool = False) -> Path:
    array = dict(zip(IMAGES, (finding.healthy, finding.map, finding.mask), strict=True))[name]
    dtype = np.float32 if name == "anomaly_map" else None
    folder, stem = to.place.volumes, to.place.stems[name]
    return io.write_volume(array, finding.scan, folder, stem, dtype=dtype, nifti=nifti)


def description(finding: Finding, to: Target) -> dict[str, Path]:
    """case.json with the hashes of every other file, and of several planes slices.csv."""
    case, paths = to.place.case, dict(to.paths)
    if len(finding.plane_scores) > 1:
        paths["slices"] = write_text(case / "slices.csv", finding.slices())
    hashes = {name: sha256([path]) for name, path in paths.items()}
    said = finding.describe({name: relative(path, case) for name, path in paths.items()})
    said |= {**finding.hashes, "outputs_sha256": hashes}
    said |= {} if to.truth is None else {"truth": finding.beside(to.truth).as_dict()}
    return paths | {"case": write_json(case / "case.json", said)}
