"""Volumes cut, scaled and thinned as published, with results that still lie on the input's own
voxels."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudohealthy import io
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import Fault
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.training.plane_store import build_cache

MM = st.floats(0.4, 4.0)


def volume(rng: np.random.Generator, shape: tuple[int, int, int], mm=(1.0, 1.0, 1.0)) -> Scan:
    return Scan.from_array(1 + rng.random(shape, dtype=np.float32), affine=np.diag([*mm, 1.0]))


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal", "native"])
@pytest.mark.parametrize("codes", ["RAS", "PIR", "LSA"])
def test_every_cut_returns_to_the_stored_voxels_bit_for_bit(tmp_path, plane, codes):
    stored = np.random.default_rng(0).integers(1, 9000, (12, 17, 14)).astype(np.int16)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(codes), nib.orientations.axcodes2ornt("RAS")
    )
    affine = nib.orientations.inv_ornt_aff(turn, (12, 17, 14)) @ np.diag([1, 2, 3, 1.0])
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "v.nii.gz")
    scan = io.read(tmp_path / "v.nii.gz", plane=plane)
    canvas = Canvas(
        size=20, normalise="range", value_range=(0, 9000), foreground="all", plane=plane
    )
    fitted = canvas.fit(scan)
    back = nib.load(
        io.write_volume(canvas.healthy(scan, fitted.planes, fitted)[0], scan, tmp_path, "out")
    )
    assert np.array_equal(np.asarray(back.dataobj), stored) and np.allclose(back.affine, affine)
    if plane == "coronal":
        stored_as = "".join(nib.aff2axcodes(affine)).replace("P", "A")
        assert scan.shape[1] == stored.shape[stored_as.index("A")]


def test_a_volume_cut_otherwise_is_refused_with_the_cure(tmp_path):
    nib.save(
        nib.Nifti1Image(np.random.default_rng(0).random((12, 12, 12)), np.eye(4)),
        tmp_path / "v.nii.gz",
    )
    with pytest.raises(Fault, match="plane='coronal'") as caught:
        Canvas(size=16, plane="coronal").fit(io.read(tmp_path / "v.nii.gz"))
    assert caught.value.code == "PLANE" and caught.value.exit == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(10, 50), st.integers(10, 50), MM, MM, MM, st.booleans(), st.integers(0, 2**31))
def test_mm_per_pixel_hold_on_any_grid_and_an_unchanged_twin_is_the_scan(
    height, width, dh, dw, mm, crop, seed
):
    scan = volume(np.random.default_rng(seed), (2, height, width), (3.0, dh, dw))
    canvas = Canvas(size=24, spacing=mm, crop=crop, foreground="all")
    fitted = canvas.fit(scan)
    rows, columns = fitted.placement.sides
    assert abs(rows * dh - 24 * mm) <= max(dh / 2, dh * (rows == 1)) + 1e-6
    assert abs(columns * dw - 24 * mm) <= max(dw / 2, dw * (columns == 1)) + 1e-6
    assert canvas.healthy(scan, fitted.planes, fitted).tobytes() == scan.voxels.tobytes()
    back = canvas.undo_map(torch.ones(2, 24, 24), fitted.placement, fill=1.0)
    np.testing.assert_allclose(back, 1, atol=1e-5)


def test_a_blob_stays_where_it_is_on_pixels_that_are_not_square():
    values = np.zeros((1, 40, 90), np.float32)
    values[0, 12:16, 60:68] = 1
    scan = Scan.from_array(values, affine=np.diag([1.0, 2.0, 1.0, 1.0]))
    fitted = (canvas := Canvas(size=64, spacing=1.5, normalise="unit", foreground="all")).fit(scan)
    back = canvas.undo_map((fitted.planes[:, 0] + 1) / 2, fitted.placement)[0]
    rows, columns = np.mgrid[:40, :90]
    assert (back * rows).sum() / back.sum() == pytest.approx(13.5, abs=0.2)
    assert (back * columns).sum() / back.sum() == pytest.approx(63.5, abs=0.2)


def test_slices_by_position_share_and_mm():
    scan = volume(np.random.default_rng(0), (155, 12, 12))
    inside = np.zeros((155, 12, 12), bool)
    inside[20:140] = True
    for slices, unit, first, last in (
        ((80, 128), "planes", 80, 128),
        ((80 / 155, 129 / 155), "share", 80, 128),
        ((-50, 50), "mm", 30, 129),
        ((0.9999, 1), "share", 154, 154),
    ):
        chosen = Canvas(size=12, slices=slices, slices_in=unit).fit(scan, brain_mask=inside).chosen
        assert np.flatnonzero(chosen)[[0, -1]].tolist() == [first, last]
    with pytest.raises(Fault, match="SLICES"):
        Canvas(size=12, slices=(200, 210)).fit(scan)


def test_what_is_not_judged_is_empty_and_said_so():
    scan, mask = volume(np.random.default_rng(0), (10, 12, 12)), np.ones((10, 12, 12), bool)
    canvas = Canvas(size=12, foreground="all", slices=(3, 5), judge="slices")
    fitted = canvas.fit(scan, mask)
    assert fitted.mask is not None
    for part in (fitted.foreground, fitted.mask):
        assert part.flatten(1).any(1).nonzero()[:, 0].tolist() == [3, 4, 5]
    assert canvas.unjudged(fitted) == [
        "SLICES: planes 3 to 5 of 10 (from 0) are judged, the others are not"
    ]
    assert "3 to 5" in canvas.limits()[0]
    everywhere = replace(canvas, judge="all")
    fitted = everywhere.fit(scan, mask)
    assert fitted.foreground.all() and everywhere.unjudged(fitted) == everywhere.limits() == []


def test_without_known_mm_the_plane_is_fitted_and_a_warning_says_so():
    scan = Scan.from_array(np.random.default_rng(0).random((4, 30, 20)))
    fitted = Canvas(size=16, spacing=2.0).fit(scan)
    assert fitted.placement.sides == (30, 30) and "SPACING" in scan.warnings[0]


def test_training_merges_thin_planes_and_validation_keeps_them(tmp_path):
    """Planes of 1 mm, a lesion on one: at 2 mm half as many, the one with the lesion anomalous,
    values averaged."""
    values = np.repeat(np.arange(40, dtype=np.float32)[None, None], 12, 0).repeat(12, 1) + 10
    lesion = np.zeros_like(values)
    lesion[4:8, 4:8, 21] = 1
    for name, array in (("v", values), ("m", lesion)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    canvas = Canvas(
        size=12,
        normalise="range",
        value_range=(0, 60),
        foreground="all",
        slices=(10, 29),
        step=2.0,
        judge="slices",
    )
    cases = [
        Case(s, s, s, None, "v.nii.gz", mask="m.nii.gz", root=tmp_path) for s in ("train", "val")
    ]
    store = build_cache(Manifest(cases, tmp_path), canvas, tmp_path / "cache")
    train, val = store.select("train"), store.select("val")
    assert (len(train), len(val)) == (10, 20) and store.index["plane"][val].tolist() == list(
        range(10, 30)
    )
    assert 1 <= len(store.select("train", 1)) <= 2 and len(store.select("val", 1)) == 1
    levels = (store.images(train[1:-1])[:, 0, 0, 0] + 1) * 30 - 10
    np.testing.assert_allclose(levels, np.arange(12.5, 28, 2), atol=0.05)
    assert HEALTHY in store.index["label"][train].tolist()


def test_a_coronal_run_detects_and_evaluates_on_the_stored_grid_and_says_which_planes(tmp_path):
    from pseudohealthy.detection.detector import load
    from pseudohealthy.runs.recipe import Recipe
    from pseudohealthy.workflows.evaluate import evaluate
    from pseudohealthy.workflows.train import train

    rng = np.random.default_rng(0)
    for place in ("train/good/a", "val/good/b", "test/good/c"):
        (tmp_path / place).parent.mkdir(parents=True)
        nib.save(
            nib.Nifti1Image(rng.random((14, 20, 16)).astype(np.float32), np.eye(4)),
            tmp_path / f"{place}.nii.gz",
        )
    canvas = {
        "size": 16,
        "normalise": "unit",
        "foreground": "all",
        "plane": "coronal",
        "slices": [4, 7],
        "judge": "slices",
    }
    recipe = Recipe("x", canvas=canvas, restorer={"name": "identity"}, training={"batch": 2})
    run = train(recipe, tmp_path, tmp_path / "run", device="cpu")
    finding = load(run.folder, device="cpu")(tmp_path / "test/good/c.nii.gz")
    assert finding.scan.shape == (1, 20, 16, 14) and "planes 4 to 7 of 20" in " ".join(
        finding.warnings
    )
    assert finding.foreground.any(axis=(1, 2)).nonzero()[0].tolist() == [4, 5, 6, 7]
    written = io.write_volume(finding.healthy[0], finding.scan, tmp_path, "twin")
    assert nib.load(written).shape == (14, 20, 16)
    assert any("only planes 4 to 7" in note for note in evaluate(run, tmp_path, device="cpu").notes)
