"""The lists of Behrendt et al.: every leak they hold is said, and the manifest that is written has
none."""

from __future__ import annotations

import csv
from collections import Counter

import pytest
from published import findings

from pseudohealthy.data.checks import leaks
from pseudohealthy.data.labels import HEALTHY
from pseudohealthy.datasets import prepare
from pseudohealthy.errors import Fault

COLUMNS = ("", "img_name", "age", "label", "img_path", "mask_path", "seg_path")


def behrendt_list(folder, name, scans, kind="ixi", label=0):
    folder.mkdir(parents=True, exist_ok=True)
    place = "/Train/ixi" if kind == "ixi" else f"/Test/{kind}"
    with (folder / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for number, scan in enumerate(scans):
            seg = f"{place}/seg/{scan}_seg.nii.gz" if label else ""
            shown = f"{scan}_t1.nii.gz" if kind == "ixi" else scan
            paths = (f"{place}/t1/{scan}_t1.nii.gz", f"{place}/mask/{scan}_mask.nii.gz", seg)
            writer.writerow([number, shown, 40 + number, label, *paths])


@pytest.fixture
def data_dir(tmp_path):
    """IXI001 twice in training and once in test, IXI003 in training and validation, IXI006 twice in
    test."""
    scans = {number: f"IXI00{number}-Guys-000{number}" for number in range(1, 10)}
    splits = tmp_path / "data" / "splits"
    behrendt_list(splits, "IXI_train_fold0", [scans[k] for k in (1, 1, 2, 3, 4)])
    behrendt_list(splits, "IXI_val_fold0", [scans[k] for k in (3, 5)])
    behrendt_list(splits, "IXI_train_fold1", [scans[k] for k in (5, 2)])
    behrendt_list(splits, "IXI_val_fold1", [scans[4]])
    behrendt_list(splits, "IXI_test", [scans[k] for k in (1, 6, 6, 7)])
    behrendt_list(splits, "MSLUB_val", ["patient01"], "MSLUB", 1)
    behrendt_list(splits, "MSLUB_test", ["patient02", "patient03"], "MSLUB", 1)
    (splits / "avail_t2.csv").write_text(
        ",0\n" + "".join(f"{k},{scans[k]}_t2.nii.gz\n" for k in (2, 3, 5, 6, 6))
    )
    return tmp_path / "data"


def test_the_leaks_of_the_lists_are_said_without_any_image(data_dir, tmp_path, capsys):
    prepare("behrendt", data_dir, tmp_path / "out")
    said, found = capsys.readouterr().err, findings(tmp_path / "out")
    assert all(f"published: {line}" in said for line in found) and len(found) == 5
    assert "IXI_train_fold0: 5 rows of 4 scans, repeated: IXI001-Guys-0001." in found
    assert "IXI_test: 4 rows of 3 scans, repeated: IXI006-Guys-0006." in found
    assert any(line.startswith("avail_t2: 5 rows of 4 scans") for line in found)
    assert any(
        line.startswith("IXI_train_fold0 and IXI_test: 1 subject and 1 scan in both")
        for line in found
    )
    assert any(line.startswith("IXI_train_fold0 and IXI_val_fold0: 1 subject") for line in found)


def test_the_manifest_is_clean_and_the_lists_as_published_are_not(data_dir, tmp_path):
    clean = prepare("behrendt", data_dir, tmp_path / "clean")
    where = {c.patient_id: c.split for c in clean}
    assert leaks(clean) == [] and (where["IXI001"], where["IXI003"], where["IXI006"]) == (
        "test",
        "val",
        "test",
    )
    assert Counter(c.split for c in clean) == {"train": 2, "val": 3, "test": 5}
    whole = prepare("behrendt", data_dir, tmp_path / "whole", clean=False)
    assert len(whole) == 14 and "1 patient is in both train and test: IXI001." in leaks(whole)


def test_folds_and_modality(data_dir, tmp_path):
    other = prepare("behrendt", data_dir, tmp_path / "out", fold=1)
    assert {c.patient_id for c in other.split("train")} == {"IXI002", "IXI005"}
    second = prepare("behrendt", data_dir, tmp_path / "out", modality="t2")
    assert {c.patient_id for c in second if c.label == HEALTHY} == {
        "IXI002",
        "IXI003",
        "IXI005",
        "IXI006",
    }
    assert "Train/ixi/t2/IXI002-Guys-0002_t2.nii.gz" in {c.image for c in second}
    for options in ({"fold": 3}, {"modality": "flair"}):
        with pytest.raises(Fault, match="BAD_SETTING"):
            prepare("behrendt", data_dir, tmp_path / "out", **options)


def test_a_diseased_scan_in_a_training_list_is_said(data_dir, tmp_path):
    behrendt_list(data_dir / "splits", "IXI_train_fold1", ["IXI008-HH-0008"], label=1)
    prepare("behrendt", data_dir, tmp_path / "out")
    assert "IXI_train_fold1: 1 diseased scan in a training list: IXI008-HH-0008." in findings(
        tmp_path / "out"
    )


def test_where_images_exist_the_others_are_left_out(data_dir, tmp_path, capsys):
    for scan in ("IXI002-Guys-0002", "IXI004-Guys-0004"):
        image = data_dir / "Train/ixi/t1" / f"{scan}_t1.nii.gz"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(scan.encode())
    manifest = prepare("behrendt", data_dir, tmp_path / "out")
    assert {c.patient_id for c in manifest} == {"IXI002", "IXI004"} and manifest.cases[
        0
    ].site == "Guys"
    assert "12 of 14 listed images are not there" in capsys.readouterr().err


def test_a_list_that_lost_a_column_is_named(data_dir, tmp_path):
    (data_dir / "splits" / "IXI_test.csv").write_text(
        "img_name,label\nIXI001-Guys-0001_t1.nii.gz,0\n"
    )
    with pytest.raises(Fault, match=r"LAYOUT.*IXI_test.csv"):
        prepare("behrendt", data_dir, tmp_path / "out")


def test_the_published_lists_of_behrendt(shared, tmp_path):
    source = shared / "data/published-splits/behrendt"
    manifest = prepare("behrendt", source, tmp_path)
    found = findings(tmp_path)
    nine = "IXI219, IXI237, IXI447, IXI493, IXI499, IXI512, IXI531, IXI549, IXI552."
    for fold in (0, 2):
        assert (
            f"IXI_train_fold{fold} and IXI_test: 9 subjects and 9 scans in both, 9 rows of"
            f" IXI_test: {nine}" in found
        )
    start = [line.split(", repeated")[0].split(": IXI5")[0] for line in found]
    assert {
        "IXI_train_fold0: 387 rows of 374 scans",
        "IXI_train_fold2: 387 rows of 376 scans",
        "IXI_test: 160 rows of 157 scans",
        "avail_t2: 587 rows of 562 scans",
        (
            "IXI_train_fold2 and IXI_val_fold2: 2 subjects and 2 scans in both, 2 rows of"
            " IXI_val_fold2"
        ),
    } <= set(start)
    assert len(found) == 7 and leaks(manifest) == []
    assert Counter(c.split for c in manifest) == {"train": 365, "val": 154, "test": 177}
