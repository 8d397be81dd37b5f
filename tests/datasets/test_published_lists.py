"""The lists of THOR: every leak they hold is said, and boxes and masks label what they name."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image
from published import findings

from pseudohealthy.data.checks import check, leaks
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.datasets import prepare
from pseudohealthy.errors import Fault
from pseudohealthy.io import read_image, read_mask
from pseudohealthy.runs.recipe import Recipe
from pseudohealthy.workflows.evaluate import evaluate
from pseudohealthy.workflows.train import train


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
