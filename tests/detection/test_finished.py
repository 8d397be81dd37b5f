"""An interrupted `detect` goes on where it stopped, trusts nothing it cannot verify, and ends with
the same table."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy.anomalies.phantoms import dicom_series, head
from pseudohealthy.detection import finding, worker
from pseudohealthy.errors import Fault
from pseudohealthy.workflows import detect as workflow

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def inputs(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    for seed in range(4):
        Image.fromarray(picture(np.random.default_rng(seed))[0]).save(
            tmp_path / "in" / f"{seed}.png"
        )
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    return tmp_path / "in"


def table(out: Path) -> list[dict[str, str]]:
    """findings.csv without the time it took."""
    with open(out / "findings.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def detect(run: Path, inputs: Path, out: Path, **more) -> worker.Detections:
    return workflow.detect(run, [inputs], out, device="cpu", batch=1, **more)


@pytest.fixture
def saved(monkeypatch) -> list[str]:
    """Case ids in the order they are written."""
    names, save = [], finding.Finding.save
    monkeypatch.setattr(
        finding.Finding,
        "save",
        lambda self, *given: names.append(self.case_id) or save(self, *given),
    )
    return names


def test_killed_and_resumed_gives_the_table_of_one_go(
    tiny_run, inputs, tmp_path, saved, monkeypatch
):
    detect(tiny_run, inputs, tmp_path / "whole")
    saved.clear()
    counted = finding.Finding.save

    def killed(self, *given):
        if len(saved) == 2:
            raise KeyboardInterrupt
        return counted(self, *given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finding.Finding, "save", killed)
        detect(tiny_run, inputs, tmp_path / "out")
    (tmp_path / "out" / "findings.csv").unlink()  # as after kill -9
    saved.clear()
    found = detect(tiny_run, inputs, tmp_path / "out", resume_finished=True)
    assert saved == ["2", "3"], "the two finished cases are not done again"
    assert table(tmp_path / "out") == table(tmp_path / "whole") and found.exit == 4


@pytest.mark.parametrize("what", ["an output", "the input", "case.json", "the request"])
def test_what_cannot_be_verified_is_done_again(tiny_run, inputs, tmp_path, saved, what):
    detect(tiny_run, inputs, tmp_path / "out")
    case, more = tmp_path / "out" / "1", {}
    if what == "an output":
        (case / "anomaly_mask.png").write_bytes(b"changed")
    elif what == "the input":
        Image.fromarray(picture(np.random.default_rng(9))[0]).save(inputs / "1.png")
    elif what == "case.json":
        (case / "case.json").write_text('{"case_id": ')
    else:
        more = {"threshold": 0.25}
    saved.clear()
    detect(tiny_run, inputs, tmp_path / "out", resume_finished=True, **more)
    assert saved == (["0", "1", "2", "3"] if more else ["1"])


def test_case_json_holds_the_hashes_of_input_and_outputs(tiny_run, inputs, tmp_path):
    import hashlib

    detect(tiny_run, inputs, tmp_path / "out")
    said = json.loads((tmp_path / "out" / "0" / "case.json").read_text())
    assert said["input_sha256"] == hashlib.sha256((inputs / "0.png").read_bytes()).hexdigest()
    for name, file in said["outputs"].items():
        assert (
            said["outputs_sha256"][name]
            == hashlib.sha256((tmp_path / "out" / "0" / file).read_bytes()).hexdigest()
        )


def test_resuming_needs_case_json(tiny_run, inputs, tmp_path):
    with pytest.raises(Fault) as caught:
        detect(tiny_run, inputs, tmp_path / "out", resume_finished=True, kinds=["volumes"])
    assert caught.value.exit == 2 and "json" in str(caught.value)


def test_overwrite_removes_earlier_cases_and_nothing_else(tiny_run, inputs, tmp_path):
    out = tmp_path / "out"
    detect(tiny_run, inputs, out)
    (out / "photos").mkdir()
    for keep in (out / "photos" / "panel.png", out / "1" / "notes.txt"):
        keep.write_text("mine")
    for number in "12":
        (inputs / f"{number}.png").unlink()
    detect(tiny_run, inputs, out, overwrite=True)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["0", "1", "3", "photos"]
    assert [path.name for path in (out / "1").iterdir()] == ["notes.txt"]
    assert (out / "photos" / "panel.png").read_text() == "mine"


def test_shares_of_several_processes_make_one_table(tiny_run, inputs, tmp_path, in_two_processes):
    detect(tiny_run, inputs, tmp_path / "one")
    done = in_two_processes(
        "detect", tiny_run, inputs, "--out", tmp_path / "two", "--device", "cpu", "--batch", "1"
    )
    assert table(tmp_path / "two") == table(tmp_path / "one"), done.stderr[-2000:]
    assert done.stdout.count("inputs:") == 1, "one process speaks"


# -- kinds that an input cannot have ---------------------------------------------------------------
def test_dicom_kinds_of_a_mixed_archive(ct_run, tmp_path, capsys):
    values, _, affine = head(np.random.default_rng(0), shape=(4, 24, 24), lesion=0.3)
    dicom_series(tmp_path / "in" / "series", values)
    from pseudohealthy.anomalies.phantoms import nifti

    nifti(tmp_path / "in" / "volume.nii.gz", values, affine)
    kinds = ["volumes", "json", "dicom-seg", "dicom-map", "dicom-sc"]
    found = workflow.detect(ct_run, [tmp_path / "in"], tmp_path / "out", kinds=kinds, device="cpu")
    rows = {row["case_id"]: row for row in found.rows}
    assert rows["volume"]["status"] in ("ok", "warn") and found.exit == 0
    assert "LEFT_OUT: dicom-seg needs a DICOM series" in rows["volume"]["warnings"]
    assert (
        "left out: dicom-seg of 1 case without a DICOM series (volume)" in capsys.readouterr().err
    )
    assert not list((tmp_path / "out" / "volume").glob("*.dcm"))
    made = {path.name for path in next((tmp_path / "out").glob("series-*")).iterdir()}
    assert {
        "anomaly_mask.dcm",
        "anomaly_map.dcm",
        "panel.dcm",
        "anomaly_map.nii.gz",
    } <= made and "panel.png" not in made
    for text in (tmp_path / "out").rglob("*.*"):
        if text.suffix in (".json", ".csv", ".html"):
            assert "PHANTOM^HEAD" not in text.read_text(), (
                "the patient stays inside the DICOM objects"
            )


def test_kinds_that_no_input_can_have_are_refused_before_anything_is_written(
    tiny_run, inputs, tmp_path
):
    with pytest.raises(Fault) as caught:
        detect(tiny_run, inputs, tmp_path / "out", kinds=["nifti", "dicom-seg"])
    assert (caught.value.code, caught.value.exit) == ("KIND", 2) and "nifti needs a place" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()
