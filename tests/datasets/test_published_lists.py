"""Published lists: every leak they hold is said with its count, and the manifest that is written
has none."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.data.checks import check, leaks
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.datasets import prepare
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image, read_mask
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.train import train

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


def findings(out):
    return (out / "published_leaks.txt").read_text().splitlines()


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


def thor_list(folder, name, rows, header="filenames"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")


def wrist(name):
    return f"./data/wrist/pediatric/{name}.png"


@pytest.fixture
def wrist_lists(tmp_path):
    """0001_b trains although it is in boneanomaly; patient 0002 is in both normal lists; 0005_a has
    two boxes."""
    folder = tmp_path / "thor" / "thor-wrist"
    thor_list(folder, "train_normal", map(wrist, ("0001_a", "0001_b", "0002_a", "0003_a")))
    thor_list(folder, "test_normal", map(wrist, ("0002_b", "0004_a", "0006_a")))
    found = ("0001_b", "0005_a", "0005_a", "0006_a")
    thor_list(folder, "boneanomaly", map(wrist, found))
    masks = [
        f"./data/wrist/masks/boneanomaly/{name}_boneanomaly_{k}.png" for k, name in enumerate(found)
    ]
    thor_list(folder, "boneanomaly_ann", masks)
    thor_list(folder, "text", map(wrist, ("0003_a", "0004_a")))
    return folder


def test_wrist_leaks_and_findings_in_healthy_lists(wrist_lists, tmp_path):
    manifest = prepare("thor-lists", wrist_lists, tmp_path / "out")
    found = findings(tmp_path / "out")
    assert (
        "train_normal and test_normal: 1 subject and 0 scans in both, 1 row of test_normal: 0002."
        in found
    )
    assert "train_normal: 1 scan of this healthy list is listed in boneanomaly, too." in found
    assert "test_normal: 1 scan of this healthy list is listed in boneanomaly, too." in found
    assert "boneanomaly: 4 rows of 3 scans, repeated: 0005_a." in found
    assert not any("text" in line for line in found)
    assert leaks(manifest) == [] and [c.case_id for c in manifest.split("train")] == ["0003_a"]
    assert {c.case_id: c.label for c in manifest.split("test")} == {
        "0002_b": HEALTHY,
        "0004_a": HEALTHY,
        "0001_b": ANOMALOUS,
        "0005_a": ANOMALOUS,
        "0006_a": ANOMALOUS,
    }


@pytest.fixture
def drawn(wrist_lists):
    """Images of 20 x 30 for the lists, but 0001_b, and the masks of both boxes of 0005_a."""
    data = wrist_lists.parent / "data" / "wrist"
    for folder in ("pediatric", "masks/boneanomaly"):
        (data / folder).mkdir(parents=True)
    for number, name in enumerate(("0002_b", "0003_a", "0004_a", "0005_a", "0006_a")):
        image = np.roll(np.arange(600, dtype=np.uint16).astype(np.uint8), number).reshape(20, 30)
        Image.fromarray(image).save(data / "pediatric" / f"{name}.png")
    for number in (1, 2):
        mask = np.zeros((20, 30), np.uint8)
        mask[5 * number : 5 * number + 2, 3:13] = 255
        Image.fromarray(mask).save(
            data / "masks" / "boneanomaly" / f"0005_a_boneanomaly_{number}.png"
        )
    return data


def test_boxes_of_one_radiograph_are_united_and_each_is_listed(
    wrist_lists, drawn, tmp_path, capsys
):
    prepare("thor-lists", wrist_lists, tmp_path / "out")
    manifest = load(tmp_path / "out")
    cases = {case.case_id: case for case in manifest}
    assert (
        sorted(cases) == ["0002_b", "0003_a", "0004_a", "0005_a", "0006_a"]
        and check(manifest) == []
    )
    case = cases["0005_a"]
    assert read_mask(case.mask, case.root, read_image(case.image, case.root)).sum() == 40
    assert case.extra["boxes"] == "3 5 13 7 boneanomaly;3 10 13 12 boneanomaly"
    assert {
        name: cases[name].extra["boxes"] for name in ("0002_b", "0003_a", "0004_a", "0006_a")
    } == dict.fromkeys(("0002_b", "0003_a", "0004_a", "0006_a"), "")
    assert cases["0006_a"].mask == "", "its mask was not drawn"
    said = capsys.readouterr().err
    assert "boxes: 2 boneanomaly" in said and "1 image of a finding has no box" in said


def test_boxes_can_come_from_the_annotations_of_the_data_set(wrist_lists, drawn, tmp_path, capsys):
    for path in (drawn / "masks").rglob("*.png"):
        path.unlink()
    labels = tmp_path / "graz/folder_structure/yolov5/labels"
    labels.mkdir(parents=True)
    for name, lines in {
        "0005_a": "8 0.1 0.1 0.1 0.1\n3 0.5 0.5 0.2 0.5",
        "0006_a": "4 0.5 0.5 1 1",
        "0004_a": "4 0.5 0.5 1 1",
    }.items():
        (labels / f"{name}.txt").write_text(lines)
    prepare("thor-lists", wrist_lists, tmp_path / "out", annotations=str(tmp_path / "graz"))
    cases = {case.case_id: case for case in load(tmp_path / "out")}
    assert check(load(tmp_path / "out")) == [] and {case.mask for case in cases.values()} == {""}
    assert (
        cases["0005_a"].extra["boxes"] == "12 5 18 15 fracture"
        and cases["0006_a"].extra["boxes"] == "0 0 30 20 metal"
    )
    said = capsys.readouterr().err
    assert (
        "boxes: 1 fracture, 1 metal" in said
        and "1 image of the healthy lists has an annotated finding" in said
    )
    assert cases["0004_a"].label == HEALTHY and cases["0004_a"].extra["boxes"] == ""


@pytest.mark.parametrize(
    "shape, marked, code", [((20, 31), 5, "GRID_MISMATCH"), ((20, 30), 0, "LAYOUT")]
)
def test_a_mask_of_another_size_or_without_a_box_stops_it(
    wrist_lists, drawn, tmp_path, shape, marked, code
):
    mask = np.zeros(shape, np.uint8)
    mask[:marked] = 255
    Image.fromarray(mask).save(drawn / "masks/boneanomaly/0006_a_boneanomaly_3.png")
    with pytest.raises(Fault, match=code):
        prepare("thor-lists", wrist_lists, tmp_path / "out")


def test_the_wrist_lists_are_measured_by_the_wrist_rule(wrist_lists, drawn, tmp_path):
    """From the lists to figures: `prepare`, a run, `evaluate --protocol thor-wrist`."""
    recipe = Recipe(
        "wrist",
        canvas={"size": 32, "normalise": "unit", "foreground": "all"},
        restorer={"name": "identity"},
    )
    prepare("thor-lists", wrist_lists, tmp_path / "out")
    run = train(recipe, tmp_path / "out", tmp_path / "run", device="cpu")
    result = evaluate(
        run, tmp_path / "out", tmp_path / "scores", protocol="thor-wrist", device="cpu"
    )
    found = [r for r in result.records if r.metric == "box_recall_covered" and r.is_control]
    assert found and {r.n_cases for r in found} == {1} and all(0 <= r.value <= 1 for r in found)


def brain_lists(folder, masks=True):
    """Two healthy IXI slices to train and one to validate on, three of ATLAS: with lesion, without,
    without mask file."""
    data = folder.parent / "data"
    rows = {
        name: f"./data/{name}.png"
        for name in (
            "IXI001",
            "IXI002",
            "IXI003",
            "Atlas_train_0",
            "Atlas_train_1",
            "Atlas_train_2",
        )
    }
    thor_list(
        folder,
        "ixi-t1_atlas_train_2D",
        [rows["IXI001"], rows["IXI002"], rows["Atlas_train_1"]],
        "filename",
    )
    thor_list(folder, "ixi-t1_val_2D", [rows["IXI003"]], "filename")
    atlas = [name for name in rows if "Atlas" in name]
    thor_list(folder, "atlas_train_png", [rows[name] for name in atlas], "filename")
    data.mkdir(exist_ok=True)
    for number, name in enumerate(rows):
        Image.fromarray(
            np.roll(np.arange(400) % 251, number).astype(np.uint8).reshape(20, 20)
        ).save(data / f"{name}.png")
    if masks:
        thor_list(
            folder,
            "atlas_train_mask_png",
            [f"./data/{name}_mask.png" for name in atlas],
            "filename",
        )
        for number, name in enumerate(atlas[:2]):
            mask = np.zeros((20, 20), np.uint8)
            mask[4:9, 4:9] = 255 * (number == 0)
            Image.fromarray(mask).save(data / f"{name}_mask.png")


def test_the_masks_of_the_brain_list_label_its_slices(tmp_path, capsys):
    brain_lists(tmp_path / "thor-brain")
    prepare("thor-lists", tmp_path / "thor-brain", tmp_path / "out")
    cases = {case.case_id: case for case in load(tmp_path / "out")}
    assert check(load(tmp_path / "out")) == [] and "no lesion mask" not in capsys.readouterr().err
    assert [cases[f"Atlas_train_{k}"].label for k in range(3)] == [ANOMALOUS, HEALTHY, None]
    assert [bool(cases[f"Atlas_train_{k}"].mask) for k in range(3)] == [True, False, False]
    assert cases["Atlas_train_1"].split == "test" and cases["IXI001"].mask == ""


def test_a_brain_list_without_masks_says_that_nothing_can_be_measured(tmp_path, capsys):
    brain_lists(tmp_path / "thor-brain", masks=False)
    prepare("thor-lists", tmp_path / "thor-brain", tmp_path / "out")
    assert "protocol thor has nothing to measure" in capsys.readouterr().err
    thor_list(tmp_path / "thor-brain", "atlas_train_mask_png", ["./data/one.png"], "filename")
    with pytest.raises(Fault, match=r"atlas_train_mask_png\.csv does not name a mask"):
        prepare("thor-lists", tmp_path / "thor-brain", tmp_path / "out")


def test_lists_of_masks_and_parts_of_lists_are_passed_over(wrist_lists, tmp_path):
    before = [
        (c.case_id, c.split, c.label) for c in prepare("thor-lists", wrist_lists, tmp_path / "out")
    ]
    thor_list(wrist_lists, "boneanomaly_neg", ["./data/wrist/masks/neg/0001_b_neg.png"] * 4)
    thor_list(wrist_lists, "train_normal_fast", [wrist("0003_a")])
    assert [
        (c.case_id, c.split, c.label) for c in prepare("thor-lists", wrist_lists, tmp_path / "out")
    ] == before


def test_masks_that_belong_to_other_rows_stop_it(wrist_lists, tmp_path):
    thor_list(
        wrist_lists,
        "boneanomaly_ann",
        ["./data/wrist/masks/boneanomaly/0009_a_boneanomaly_1.png"] * 4,
    )
    with pytest.raises(Fault, match=r"boneanomaly_ann\.csv does not name a mask"):
        prepare("thor-lists", wrist_lists, tmp_path / "out")


def test_the_published_brain_and_wrist_lists(shared, tmp_path):
    brain = prepare("thor-lists", shared / "data/published-splits/thor-brain", tmp_path / "brain")
    assert (
        len(findings(tmp_path / "brain")) == 1
        and "218 subjects and 218 scans" in findings(tmp_path / "brain")[0]
    )
    assert Counter((c.split, c.label) for c in brain) == {
        ("train", 0): 465,
        ("val", 0): 58,
        ("test", 0): 58 + 218,
        ("test", None): 437,
    }
    prepare("thor-lists", shared / "data/published-splits/thor-wrist", tmp_path / "wrist")
    found = "\n".join(findings(tmp_path / "wrist"))
    assert (
        "train_normal and test_normal: 13 subjects and 0 scans in both, 16 rows of test_normal"
        in found
    )
    assert "train_normal: 23 scans of this healthy list are listed in boneanomaly" in found
    assert "boneanomaly: 180 rows of 122 scans" in found
    assert leaks(load(tmp_path / "wrist")) == [] == leaks(brain)


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
