"""`evaluate --protocol`: what a manifest says of planes, boxes and ignored labels reaches the
protocol that needs it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from pseudohealthy.anomalies.phantoms import head, nifti
from pseudohealthy.data.load import load
from pseudohealthy.errors import Fault
from pseudohealthy.workflows.evaluate import evaluate

pytestmark = pytest.mark.usefixtures("unpainted", "few_resamples")


def manifest(folder, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return folder


def value(result, metric, method):
    (record,) = (r for r in result.records if r.metric == metric and r.method == method)
    return record


@pytest.fixture
def heads(tmp_path):
    """Two diseased test heads, two of validation; masks on disk."""
    rng = np.random.default_rng(11)
    rows = []
    for name, split in (("one", "test"), ("two", "test"), ("three", "val"), ("four", "val")):
        volume, mask, affine = head(rng, shape=(6, 40, 40), lesion=0.25)
        nifti(tmp_path / f"{name}.nii.gz", volume, affine)
        nifti(tmp_path / f"{name}-mask.nii.gz", mask.astype(np.uint8), affine)
        rows.append(
            {
                "case_id": name,
                "patient_id": name,
                "split": split,
                "label": 1,
                "image": f"{name}.nii.gz",
            }
        )
        rows[-1] |= {"mask": f"{name}-mask.nii.gz"}
    return tmp_path, rows


@pytest.mark.parametrize("name", ["wolleb", "behrendt", "behrendt:published", "thor"])
def test_every_volume_protocol_runs_from_a_manifest_and_is_named_in_its_records(
    name, ct_run, heads, tmp_path
):
    folder, rows = heads
    result = evaluate(
        ct_run,
        manifest(folder, rows),
        tmp_path / "out",
        protocol=name,
        device="cpu",
        controls=name == "behrendt",
    )
    stored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    ours = [record for record in stored if not record["metric"].startswith(("l1_", "twin_"))]
    assert ours and all(record["protocol"].split(" (")[0] == name for record in ours)
    assert (tmp_path / "out" / "report.html").is_file() and result.notes[0].startswith(
        f"protocol {name}: "
    )
    if name == "behrendt":
        bright = value(result, "dice_validation_per_case_mean", "control: intensity")
        assert bright.threshold_source == "validation" and bright.n_cases == 2


def test_plane_labels_give_plane_figures_without_masks(ct_run, heads):
    folder, rows = heads
    labels = {"one": "0|0|1|1|0|0", "two": "0|0|0|1||0", "three": "", "four": ""}
    for row in rows:
        row["mask"], row["plane_labels"] = "", labels[row["case_id"]]
    result = evaluate(ct_run, manifest(folder, rows), protocol="ct", device="cpu")
    found = value(result, "plane_auroc", "control: intensity")
    # Of 11 labels, 2 of planes above the head.
    assert found.prevalence == pytest.approx(3 / 9) and found.n_patients == 2
    assert value(result, "n_planes_without_foreground", "control: intensity").value == 2
    assert value(result, "plane_auroc", "control: tissue-area").unit == "plane"
    assert value(result, "plane_auroc", "control: blood-area").value > 0
    assert not any("voxel" in record.metric for record in result.records)
    rows[0]["plane_labels"] = "0|1"
    with pytest.raises(Fault, match="PLANE_LABELS"):
        evaluate(ct_run, manifest(folder, rows), protocol="ct", device="cpu")


def test_ignored_labels_leave_the_evaluation(ct_run, heads):
    folder, rows = heads
    evaluated = {}
    for ignore in ("", "2"):
        for row in rows:
            row["mask_ignore"] = ignore
            _, mask, affine = head(np.random.default_rng(12), shape=(6, 40, 40), lesion=0.25)
            labels = mask.astype(np.uint8)
            labels[2, 18:20, 18:20] = 2  # other disease
            nifti(folder / row["mask"], labels, affine)
        result = evaluate(ct_run, manifest(folder, rows), device="cpu", controls=False)
        row = result.rows[0]
        evaluated[ignore] = (
            row["reference_voxels"],
            value(result, "voxel_auroc_pooled", "identity").prevalence,
        )
    assert evaluated[""][0] == evaluated["2"][0] + 4
    voxels = [count / prevalence * 2 for count, prevalence in evaluated.values()]
    assert round(voxels[0] - voxels[1]) == 8, "not healthy either: gone"


def test_boxes_of_a_manifest_are_found_in_pictures(tiny_run, pictures, tmp_path):
    rows = []
    for case in load(pictures).split("test"):
        picture = np.asarray(Image.open(case.root / case.image))
        Image.fromarray(picture).save(tmp_path / f"{case.case_id}.png")
        row = {
            "case_id": case.case_id,
            "patient_id": case.case_id,
            "split": "test",
            "label": case.label,
            "boxes": "",
        }
        if case.mask:
            y, x = np.nonzero(np.asarray(Image.open(case.root / case.mask)))
            row["boxes"] = f"{x.min()} {y.min()} {x.max() + 1} {y.max() + 1} square"
        rows.append(row | {"image": f"{case.case_id}.png"})
    result = evaluate(tiny_run, manifest(tmp_path, rows), protocol="boxes", device="cpu")
    bright = value(result, "box_recall_iou10", "control: bright-area")
    assert bright.value == 1.0 and bright.n_cases == 8 and bright.unit == "box"
    wrist = evaluate(tiny_run, tmp_path, protocol="thor-wrist", device="cpu")
    assert value(wrist, "box_recall_covered", "control: intensity").value == 1.0
    assert any("no healthy validation case" in note for note in wrist.notes)
