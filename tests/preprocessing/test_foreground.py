"""Heads on CT: without table and text, inside the skull, in HU and in windowed pictures."""

from __future__ import annotations

import numpy as np
import pytest

from pseudohealthy.io import read
from pseudohealthy.io.scan import Scan
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.preprocessing.foreground import foreground
from pseudohealthy.preprocessing.levels import WINDOWS

SIDE = 192


def oval(share: float, row: float = 0.5, column: float = 0.5, wide: float = 0.8) -> np.ndarray:
    y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
    return np.hypot(y - row, (x - column) / wide) < share / 2


BRAIN, SKULL, HEAD = oval(0.56), oval(0.64), oval(0.72)


def head() -> np.ndarray:
    """HU (H, W): scalp with fat, skull, brain with ventricles and a calcification, table and a
    letter."""
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[HEAD], hu[SKULL], hu[BRAIN] = -80, 900, 35
    hu[oval(0.12, wide=2)], hu[oval(0.03, row=0.4)] = 4, 400
    hu[176:178, 20:170] = 300
    hu[10:22, 10:13] = hu[10:13, 10:20] = 1000
    return hu + np.random.default_rng(0).normal(0, 2, hu.shape)


def picture(hu: np.ndarray) -> np.ndarray:
    """As exported for the eye: brain window, 8 bits."""
    centre, width = WINDOWS["brain"]
    return np.rint(np.clip((hu - centre + width / 2) / width, 0, 1) * 255)


def mask(values: np.ndarray, method: str) -> np.ndarray:
    return foreground(values[None, None].astype(np.float32), method)[0]


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("view", [lambda hu: hu, picture])
def test_the_brain_is_what_the_skull_encloses_with_all_that_lies_in_it(view):
    hu = head()
    hu[oval(0.06, row=0.62)] = 75  # a bleed
    assert dice(mask(view(hu), "brain-ct"), BRAIN) > 0.96
    assert mask(view(hu), "brain-ct")[BRAIN & oval(0.5)].all()


def test_blood_along_the_skull_belongs_to_the_brain():
    hu = head()
    crescent = BRAIN & ~oval(0.56, column=0.47)
    hu[crescent] = 70
    for view in (lambda hu: hu, picture):
        # Its thin ends are lost in the rounding of the ring.
        assert mask(view(hu), "brain-ct")[crescent].mean() > 0.75


@pytest.mark.parametrize("view", [lambda hu: hu, picture])
def test_gaps_in_the_skull_are_closed(view):
    hu = head()
    hu[(SKULL & ~BRAIN) & (np.abs(np.arange(SIDE) - 96) < 3)[None]] = 40  # a suture at both ends
    assert dice(mask(view(hu), "brain-ct"), BRAIN) > 0.95


def test_sinuses_are_enclosed_as_well_but_no_brain():
    hu, sinus = head(), oval(0.14, row=0.17)
    hu[oval(0.2, row=0.17)], hu[sinus] = 900, -1000
    found = mask(hu, "brain-ct")
    assert not found[sinus].any() and dice(found, BRAIN) > 0.95


@pytest.mark.parametrize("view", [lambda hu: hu, picture])
def test_without_a_ring_of_bone_it_is_the_head_less_a_margin(view):
    hu = np.full((SIDE, SIDE), -1000.0)
    hu[HEAD] = 40
    hu[oval(0.1)] = 900
    found = mask(view(hu), "brain-ct")
    assert found[oval(0.5)].all() and not found[~HEAD].any() and found.sum() < 0.9 * HEAD.sum()


def test_each_plane_has_its_own_brain_and_an_empty_one_none():
    volume = np.stack([head(), np.full((SIDE, SIDE), -1000.0)])[None].astype(np.float32)
    found = foreground(volume, "brain-ct")
    assert found[0].any() and not found[1].any()
    assert not foreground(volume[:, 1:], "head-ct").any()


def test_a_head_in_a_picture_has_neither_table_nor_text():
    found = mask(picture(head()), "head-png")
    assert dice(found, SKULL) > 0.97  # fat is black in this window
    assert not found[170:].any() and not found[:30, :30].any()


def test_a_head_in_hu_loses_the_table_that_an_ear_touches():
    hu = head()
    hu[150:177, 94:96] = 20
    found = mask(hu, "head-ct")
    assert dice(found, HEAD) > 0.98 and not found[174:].any()


def test_the_canvas_takes_the_new_kinds_and_crops_to_them():
    canvas = Canvas(
        size=64,
        normalise="window",
        windows=("brain",),
        foreground="brain-ct",
        crop=True,
        margin=0.1,
    )
    fitted = canvas.fit(Scan.from_array(head().astype(np.float32)))
    inside = fitted.foreground[0].numpy()
    assert 0.38 < inside.mean() < 0.48 and inside[32, 32] and not inside[0].any()


def test_real_pictures_and_series_keep_their_brain_and_lose_their_table(shared):
    """Pictures of a series without scalp to speak of, and a DICOM series with a head holder."""
    from PIL import Image

    shares = []
    for path in sorted((shared / "data" / "ct-ich" / "images").glob("*.jpg"))[20::160]:
        values = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
        brain, whole = mask(values, "brain-ct"), mask(values, "head-png")
        assert (brain & ~whole).sum() < 0.01 * whole.sum()
        assert not whole[[0, -1]].any() and not whole[:, [0, -1]].any()
        shares.append(brain.mean())
    assert 0.05 < np.median(shares) < 0.4
    voxels = read(shared / "data" / "rsna-dicom" / "series").voxels[:, 14:30:4]
    brain = foreground(voxels, "brain-ct")
    assert ((voxels[0] > 300) & brain).sum() < 0.06 * brain.sum()
    assert brain.mean(axis=(1, 2)).min() > 0.03


def test_brain_mr_leaves_scalp_and_skull_out_and_takes_a_stripped_brain_whole():
    y, x = (np.mgrid[:128, :128] + 0.5) / 128 - 0.5
    away = np.hypot(y, x)
    brain, head = away < 0.3, away < 0.44
    with_skull = np.where(head, 1.2, 0) - 1.1 * ((away < 0.4) & (away >= 0.31)) - 0.2 * brain
    for image in (with_skull, np.where(brain, 1.0, 0.0)):
        volume = np.repeat(image[None, None], 3, axis=1).astype(np.float32)
        volume += np.abs(np.random.default_rng(0).normal(0, 0.02, volume.shape))
        found = foreground(volume, "brain-mr")
        assert 2 * (found & brain).sum() / (found.sum() + 3 * brain.sum()) > 0.93


def test_brain_mr_on_real_brains_without_skull(shared):
    """Dice against the brain mask of a glioma FLAIR; docs/preprocessing.md states the figure."""
    from pseudohealthy.io import read

    root = shared / "data" / "brats2015" / "brats_2013_pat0001_1"
    brain = read(root / "brainmask.nii.gz").voxels[0, ::8] > 0
    found = foreground(read(root / "Flair_subtrMeanDivStd.nii.gz").voxels[:, ::8], "brain-mr")
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.95
