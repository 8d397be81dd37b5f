"""The demo as a newcomer starts it, with a training too short to find much."""

from __future__ import annotations

import csv
import json

import pytest

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.workflows.demo import MARK, brain_slices, by_name, clear, head_scans


@pytest.mark.slow
def test_the_demo_runs_from_nothing_to_its_reports(command, tmp_path):
    done = command(
        "demo", "--out", tmp_path / "demo", "--minutes", "0.02", "--device", "cpu", timeout=580
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = [line for line in done.stdout.splitlines() if line.endswith("report.html")]
    first, *others = [tmp_path / report for report in reports]
    assert first == tmp_path / "demo" / "report.html" and set(others) | {first} == set(
        (tmp_path / "demo").rglob("report.html")
    )
    assert {path.parent.name for path in others} == {
        "findings-brains",
        "evaluation",
        "findings-digits",
        "findings",
    }
    for report in reports:
        assert "Research use only" in (tmp_path / report).read_text(encoding="utf-8")
    assert "A lesion was drawn into 4 of 8 slices" in first.read_text(encoding="utf-8")
    summary = json.loads((tmp_path / "demo" / MARK).read_text())
    assert 0 <= summary["digits"]["image_auroc"] <= 1
    with open(tmp_path / "demo" / "findings" / "findings.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["case_id"] for row in rows} == {"head-nifti", "head-dicom"}
    assert all(row["status"] in ("ok", "warn") for row in rows)
    for row in rows:
        folder = tmp_path / "demo" / "findings" / row["case_id"]
        assert {
            "pseudo_healthy.nii.gz",
            "anomaly_map.nii.gz",
            "anomaly_mask.nii.gz",
            "panel.png",
            "case.json",
            "case.html",
            "slices.csv",
        } == {path.name for path in folder.iterdir()}


def test_the_references_of_the_heads_lie_on_the_grid_that_is_read(tmp_path):
    scans = head_scans(tmp_path)
    assert set(by_name(scans)) == {"head-nifti", "head-dicom"}
    for path, truth in scans.items():
        scan = io.read(path)
        assert truth.shape == scan.voxels[0].shape and truth.any()
        assert 60 < scan.voxels[0][truth].mean() < 70, "blood, in HU"


def test_half_of_the_slices_have_a_lesion_and_those_come_first():
    slices = brain_slices()
    assert [bool(truth.any()) for truth in slices.values()] == [True] * 4 + [False] * 4
    assert all(truth.shape == io.read(path).voxels[0].shape for path, truth in slices.items())


def test_only_an_earlier_demo_is_ever_removed(tmp_path):
    clear(tmp_path / "new")
    (tmp_path / "new" / "old-result").write_text("x")
    clear(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == [MARK]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").write_text("keep")
    for name in ("mine", "mine/thesis.docx"):
        with pytest.raises(Fault) as caught:
            clear(tmp_path / name)
        assert caught.value.exit == 6
    assert (tmp_path / "mine" / "thesis.docx").read_text() == "keep"
