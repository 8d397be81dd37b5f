"""What is done with a broken file, and the promise: it is read, or refused by a `Fault` of one
clear line."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pseudohealthy import io
from pseudohealthy.data.checks import check
from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.runs.run import Run
from pseudohealthy.training.plane_store import PlaneStore

CANVAS = Canvas(size=16)


def scan(path: Path) -> None:
    """Read as `detect` does, and bring what was read to a model."""
    from pseudohealthy.io import unzip

    try:
        sound(io.read(path))
    finally:
        while unzip._unpacked:
            unzip._unpacked.pop().cleanup()


def sound(scan: Scan) -> None:
    assert (
        scan.voxels.dtype == np.float32 and scan.voxels.ndim == 4 and np.isfinite(scan.voxels).all()
    )
    if scan.affine is not None:
        assert (
            np.isfinite(scan.affine).all()
            and np.isfinite(scan.spacing).all()
            and min(scan.spacing) > 0
        )
        assert scan.voxel_ml > 0 and np.isfinite(np.linalg.inv(scan.affine)).all()
    if scan.voxels.size < 10**6 and len(scan.voxels) == 1:
        planes = CANVAS.fit(scan).planes.numpy()
        assert np.isfinite(planes).all() and abs(planes).max() <= 1 + 1e-6


def manifest(path: Path) -> None:
    found = load(path)
    check(found)
    for case in found:
        case.values("mask_ignore")
        for cell in filter(None, (case.image, case.mask)):
            try:
                io.read_image(cell, case.root)
            except Fault as fault:
                clear(fault)
    saved = found.save(path.with_name("again.csv"))
    assert load(saved).sha256 == found.sha256


def roots(path: Path) -> None:
    table = path.with_name("manifest.csv")
    table.write_text("case_id,patient_id,split,label,image,root\na,,test,0,a.png,source\n")
    manifest(table)


def patients(path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        image = path.parent / "train" / "good" / name
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    load(path.parent)


def recipe(path: Path) -> None:
    found = Recipe.load(path)
    resolved = found.resolved()
    assert same(Recipe.parse(resolved.toml()).resolved(), resolved)
    for part in (resolved.make_canvas, resolved.make_budget, resolved.make_map):
        part()


def same(one: Recipe, other: Recipe) -> bool:
    """Equal, where NaN equals itself."""
    return repr(one) == repr(other)


def checkpoint(path: Path) -> None:
    from pseudohealthy.runs import checkpoint

    _, state, _ = checkpoint.load(path)
    assert isinstance(state, dict)


def run(path: Path) -> None:
    path.with_name("recipe.toml").write_text('name = "x"\n[restorer]\nname = "identity"\n')
    Run.open(path.parent)


def planes(path: Path) -> None:
    """A cache of planes that holds nothing but its key is refused as well."""
    PlaneStore.open(path.parent)


# kind -> the name its file gets, and what is done with it
TARGETS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "nifti": ("scan.nii", scan),
    "nifti-gz": ("scan.nii.gz", scan),
    "dicom": ("scan.dcm", scan),
    "png": ("scan.png", scan),
    "tiff": ("scan.tiff", scan),
    "jpeg": ("scan.jpg", scan),
    "bmp": ("scan.bmp", scan),
    "npy": ("scan.npy", scan),
    "idx": ("scan-idx3-ubyte", scan),
    "zip": ("scan.zip", scan),
    "manifest": ("manifest.csv", manifest),
    "roots": ("manifest.roots.json", roots),
    "patients": ("patients.csv", patients),
    "recipe": ("recipe.toml", recipe),
    "checkpoint": ("best_model.safetensors", checkpoint),
    "run": ("run.json", run),
    "planes": ("key.json", planes),
}


def attempt(kind: str, folder: Path, data: bytes) -> Fault | None:
    """The Fault with which a file of these bytes is refused, None where it is read. Whatever else
    is raised is a defect."""
    name, act = TARGETS[kind]
    path = folder / name
    path.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            act(path)
    except Fault as fault:
        return clear(fault)
    return None


def clear(fault: Fault) -> Fault:
    """A message is one printable line of sensible length with a code and something to do."""
    text = str(fault)
    assert re.fullmatch(r"error\[[A-Z][A-Z_0-9]+\]( case=\S+)?: \S.*; \S.*", text), repr(text)
    assert len(text) < 1000 and text.isprintable(), repr(text)
    return fault
