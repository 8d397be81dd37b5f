"""The slices of Wolleb's preprocessing are divided by patient."""

from __future__ import annotations

from collections import Counter

import nibabel as nib
import numpy as np
import pytest

from pseudohealthy.data.checks import check
from pseudohealthy.data.load import load
from pseudohealthy.datasets import prepare
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image, read_mask


def slices(root, part, patient, count, start, tumour=lambda k: k % 2):
    for k in range(count):
        folder = root / part / f"{start + k:06d}"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(start + k)
        stem = f"brats_train_{patient:03d}"
        for kind in ("t1", "t1ce", "t2", "flair"):
            nib.save(
                nib.Nifti1Image(rng.random((24, 24)), np.eye(4)),
                folder / f"{stem}_{kind}_{80 + k:03d}_w.nii.gz",
            )
        mask = np.zeros((24, 24))
        mask[:2, :3] = 4 * tumour(k)
        seg = (
            root / "test_labels" / f"{folder.name}-label.nii.gz"
            if part == "testing"
            else folder / f"{stem}_seg_{80 + k:03d}_w.nii.gz"
        )
        seg.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(mask, np.eye(4)), seg)


def test_wolleb_slices_are_divided_by_patient_with_the_published_test(tmp_path, capsys):
    root = tmp_path / "data" / "brats"
    for patient in range(1, 11):
        slices(root, "training", patient, 4, 10 * patient)
    slices(root, "testing", 20, 2, 300)
    slices(root, "testing", 3, 1, 310)
    manifest = prepare("wolleb-brats", tmp_path / "data", tmp_path / "out")
    assert Counter((c.split, c.label) for c in manifest) == {
        ("train", 0): 18,
        ("train", 1): 18,
        ("val", 0): 2,
        ("val", 1): 2,
        ("test", 0): 2,
        ("test", 1): 1,
    }
    said = capsys.readouterr().err
    assert "1 patient is in training and testing as published, e.g. brats_train_003" in said
    assert (
        "training slices, validation among them: 20 healthy (paper: 5,598; -5,578), 20 diseased"
        " (paper: 10,607; -10,587)" in said
    )
    assert "test slices: 2 healthy (paper: 705; -703), 1 diseased (paper: 1,082; -1,081)" in said
    case = next(c for c in load(tmp_path / "out") if c.label and c.split == "test")
    scan = read_image(case.image, case.root)
    assert scan.shape == (4, 1, 24, 24) and read_mask(case.mask, case.root, scan).sum() == 6
    assert [part.split("_")[-3] for part in case.image.split("|")] == ["t1", "t1ce", "t2", "flair"]
    (root / "test_labels/000300-label.nii.gz").unlink()
    with pytest.raises(Fault, match="no seg of testing/000300"):
        prepare("wolleb-brats", root, tmp_path / "out")


def test_wolleb_real_samples(shared, tmp_path):
    brats = prepare("wolleb-brats", shared / "data" / "wolleb-layout", tmp_path / "b")
    assert Counter((c.split, c.patient_id) for c in brats) == {
        ("train", "brats_train_001"): 4,
        ("test", "brats_train_006"): 2,
    }
    case = load(tmp_path / "b").cases[-1]
    scan = read_image(case.image, case.root)
    assert scan.shape == (4, 1, 240, 240) and read_mask(case.mask, case.root, scan).sum() == 2759
    chest = prepare("wolleb-chexpert", shared / "data" / "wolleb-layout", tmp_path / "c")
    assert (
        Counter(c.label for c in chest.split("test")) == {0: 1, 1: 1}
        and check(load(tmp_path / "c")) == []
    )
    assert Counter(c.label for c in chest if c.split != "test") == {0: 3, 1: 3}
    assert read_image(chest.cases[0].image, chest.cases[0].root).shape == (1, 1, 256, 256)
