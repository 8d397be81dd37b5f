"""A case that cannot be saved is one failed row: the rest is written, nothing of it is left, and
--resume goes on."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy.anomalies.phantoms import Stored, dicom_series, head
from pseudohealthy.errors import Fault
from pseudohealthy.io import dicom_write
from pseudohealthy.io.atomic import together, write_text
from pseudohealthy.workflows.detect import detect

pytestmark = pytest.mark.usefixtures("unpainted")

EVERY = ("volumes", "nifti", "dicom-seg", "dicom-map", "dicom-sc", "panel", "html", "json")


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        Image.fromarray(picture(np.random.default_rng(seed))[0]).save(folder / f"{seed}.png")
    return folder


def series(folder: Path, seed: int, **changes: object) -> Path:
    """A small head as a DICOM series, with attributes changed (None: removed) in every file."""
    values, _, _ = head(
        np.random.default_rng(seed), shape=(4, 24, 24), lesion=0.3 if seed % 2 else None
    )
    for path in dicom_series(folder, values, seed=seed):
        ds = pydicom.dcmread(path)
        for keyword, value in changes.items():
            if value is None:
                delattr(ds, keyword)
            else:
                setattr(ds, keyword, value)
        with pydicom.config.disable_value_validation():
            ds.save_as(path)
    return folder


def status(out: Path) -> dict[str, str]:
    with open(out / "findings.csv", newline="", encoding="utf-8") as file:
        return {row["case_id"]: row["status"] for row in csv.DictReader(file)}


@pytest.fixture
def broken_page(monkeypatch):
    """A bug in the last file but one of case "1": its volumes and panel are written by then."""
    from pseudohealthy.report import case_page as page

    draw = page.case_page

    def breaks(finding, *given, **more):
        if finding.case_id == "1":
            raise ZeroDivisionError("in the page")
        return draw(finding, *given, **more)

    monkeypatch.setattr(page, "case_page", breaks)
    return monkeypatch


def test_a_case_that_cannot_be_saved_fails_alone_and_leaves_nothing(
    tiny_run, tmp_path, capsys, broken_page
):
    inputs, out = pictures(tmp_path / "in", 4), tmp_path / "out"
    found = detect(tiny_run, [inputs], out, device="cpu")
    assert found.exit == 4
    assert status(out) == {"0": "ok", "1": "failed", "2": "ok", "3": "ok"}
    assert "error[INTERNAL] case=1: ZeroDivisionError: in the page" in capsys.readouterr().err
    assert not (out / "1").exists() and not list(out.rglob(".tmp*"))
    assert all((out / name / "case.json").is_file() for name in "023")
    assert (out / "report.html").is_file() and len(
        json.loads((out / "findings.json").read_text())["findings"]
    ) == 4

    broken_page.undo()
    again = detect(tiny_run, [inputs], out, device="cpu", resume_finished=True)
    assert again.exit == 0 and set(status(out).values()) == {"ok"}
    assert "3 of 4 cases are finished already" in capsys.readouterr().err


def test_what_an_earlier_request_wrote_does_not_stand_beside_a_failed_row(
    tiny_run, tmp_path, broken_page
):
    inputs, out = pictures(tmp_path / "in", 2), tmp_path / "out"
    detect(tiny_run, [inputs], out, device="cpu", kinds=["json", "panel"])
    (out / "1" / "mine.txt").write_text("mine")
    detect(tiny_run, [inputs], out, device="cpu", resume_finished=True)
    assert status(out)["1"] == "failed"
    assert [path.name for path in (out / "1").iterdir()] == ["mine.txt"]


def test_resume_and_overwrite_contradict_each_other(tiny_run, tmp_path):
    with pytest.raises(
        Fault, match="--resume keeps what is finished, --overwrite removes it"
    ) as caught:
        detect(
            tiny_run,
            [pictures(tmp_path / "in", 1)],
            tmp_path / "out",
            overwrite=True,
            resume_finished=True,
        )
    assert caught.value.exit == 2 and not (tmp_path / "out").exists()


def test_when_no_case_can_be_saved_the_exit_says_why(tiny_run, tmp_path, monkeypatch):
    from pseudohealthy.report import panel

    monkeypatch.setattr(panel, "panel", lambda *_, **__: 1 / 0)
    found = detect(tiny_run, [pictures(tmp_path / "in", 2)], tmp_path / "out", device="cpu")
    assert found.exit == 1 and set(status(tmp_path / "out").values()) == {"failed"}


def test_not_enough_memory_while_saving_is_that_cases_failure(tiny_run, tmp_path, monkeypatch):
    from pseudohealthy.report import panel

    def hungry(*_, **__):
        raise MemoryError

    monkeypatch.setattr(panel, "panel", hungry)
    found = detect(tiny_run, [pictures(tmp_path / "in", 1)], tmp_path / "out", device="cpu")
    assert found.exit == 7 and "OUT_OF_MEMORY" in found.rows[0]["warnings"]


def test_a_full_disk_ends_everything_with_exit_6(tiny_run, tmp_path, monkeypatch):
    from pseudohealthy.report import panel

    def full(finding, path, **_):
        from pseudohealthy.io.atomic import atomic

        with atomic(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(panel, "panel", full)
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [pictures(tmp_path / "in", 2)], tmp_path / "out", device="cpu")
    assert caught.value.exit == 6 and "panel.png" in str(caught.value)
    assert not list((tmp_path / "out").rglob(".tmp*")) and not (tmp_path / "out" / "0").exists()


def test_files_that_belong_together_come_together(tmp_path):
    write_text(tmp_path / "case" / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), together(tmp_path) as stage:
        write_text(stage / "case" / "a.txt", "new")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["a.txt"]
    assert (tmp_path / "case" / "a.txt").read_text() == "old"
    with together(tmp_path) as stage:
        write_text(stage / "case" / "a.txt", "new")
        write_text(stage / "b.txt", "b")
        assert (tmp_path / "case" / "a.txt").read_text() == "old"
    assert (tmp_path / "case" / "a.txt").read_text() == "new" and (tmp_path / "b.txt").is_file()
    assert not list(tmp_path.glob(".tmp*"))


# -- kinds -----------------------------------------------------------------------------------------
def test_kinds_that_a_radiograph_cannot_have_are_left_out_and_the_rest_is_written(
    tiny_run, tmp_path, capsys
):
    from pydicom.uid import DigitalXRayImageStorageForPresentation

    values = np.asarray(picture(np.random.default_rng(0))[0], float)[None]
    (path,) = dicom_series(tmp_path / "in", values, modality="CT", stored=Stored(intercept=0.0))
    ds = pydicom.dcmread(path)
    ds.Modality, ds.SOPClassUID = "DX", DigitalXRayImageStorageForPresentation
    ds.save_as(path)
    kinds = ["nifti", "dicom-seg", "json"]
    found = detect(tiny_run, [path], tmp_path / "out", device="cpu", kinds=kinds)
    assert found.exit == 0
    case = tmp_path / "out" / found.rows[0]["case_id"]
    assert sorted(p.name for p in case.iterdir()) == ["anomaly_mask.dcm", "case.json"]
    said = json.loads((case / "case.json").read_text())
    assert said["left_out"] == {"nifti": "a place in the patient"}
    assert "LEFT_OUT: nifti needs a place in the patient" in found.rows[0]["warnings"]
    assert (
        capsys.readouterr().err.count("left out: nifti of 1 case without a place in the patient")
        == 1
    )
    again = detect(
        tiny_run, [path], tmp_path / "out", device="cpu", kinds=kinds, resume_finished=True
    )
    assert again.rows == found.rows and again.left_out == found.left_out


def test_a_note_about_a_kind_is_no_reason_to_warn(tiny_run, tmp_path):
    found = detect(
        tiny_run,
        [pictures(tmp_path / "in", 2)],
        tmp_path / "out",
        device="cpu",
        kinds=["json", "dicom-sc", "nifti"],
    )
    assert found.exit == 0 and {row["status"] for row in found.rows} == {"ok"}
    assert sorted(found.left_out) == ["dicom-sc", "nifti"]


# -- a mixed batch ---------------------------------------------------------------------------------
def test_a_mixed_batch_with_three_that_cannot_be_written_as_dicom(
    ct_run, tmp_path, monkeypatch, capsys
):
    """Legal and repairable headers, a picture, a NIfTI and three killers in one batch, with every
    kind."""
    from pseudohealthy.anomalies.phantoms import nifti

    root = tmp_path / "in"
    series(root / "plain", 1)
    series(root / "latin", 2, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen")
    series(root / "chinese", 3, SpecificCharacterSet="ISO_IR 192", PatientName="Wang=王^小东")
    series(root / "junk", 4, SpecificCharacterSet="JUNK")
    series(root / "thick", 5, SliceThickness=None)
    series(root / "dates", 6, StudyDate="2020.01.01", StudyTime="12:30")
    series(root / "nameless", 7, PatientName=None, PatientID=None)
    series(root / "greek", 20, SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος")
    series(root / "anonymous", 21, PatientName="", PatientID="", PatientBirthDate="", PatientSex="")
    series(root / "mr", 22, Modality="MR")
    series(root / "described", 23, SeriesDescription='Head, thin; "bone"', StudyDescription="=1+1")
    series(root / "no-position", 24, PatientPosition=None)
    series(root / "accession", 25, AccessionNumber="A" * 16, StudyID="")
    series(root / "later", 26, SeriesNumber=None, InstanceCreationDate="20200101")
    values, _, affine = head(np.random.default_rng(8), shape=(4, 24, 24))
    nifti(root / "volume.nii.gz", values, affine)
    Image.fromarray(picture(np.random.default_rng(9), side=24)[0]).save(root / "picture.png")
    np.save(root / "array.npy", picture(np.random.default_rng(10), side=24)[0].astype(np.float32))
    for name in ("killer-1", "killer-2", "killer-3"):
        series(root / name, hash(name) % 1000 + 10)
    write = {
        name: getattr(dicom_write, name)
        for name in ("write_segmentation", "write_map", "write_capture")
    }

    def killing(name: str, victim: str):
        def act(array, scan, *more):
            if victim in scan.name:
                raise AttributeError("'Dataset' object has no attribute 'PixelMeasuresSequence'")
            return write[name](array, scan, *more)

        return act

    for name, victim in zip(write, ("killer-1", "killer-2", "killer-3"), strict=True):
        monkeypatch.setattr(dicom_write, name, killing(name, victim))
    found = detect(ct_run, [root], tmp_path / "out", device="cpu", kinds=EVERY, names="path")
    rows = {row["case_id"]: row for row in found.rows}
    assert found.exit == 4 and len(rows) == 20
    assert sorted(name for name in rows if rows[name]["status"] == "failed") == [
        "killer-1",
        "killer-2",
        "killer-3",
    ]
    assert capsys.readouterr().err.count("error[INTERNAL] case=killer-") == 3
    for name in rows:
        files = {path.name for path in (tmp_path / "out" / name).glob("*")}
        dicom = {"anomaly_mask.dcm", "anomaly_map.dcm", "panel.dcm"}
        expected = set() if "killer" in name else {"panel.png", "case.html", "case.json"}
        expected |= (
            dicom if not {"killer", "volume", "picture", "array"} & {name.split("-")[0]} else set()
        )
        assert expected <= files and (files or "killer" in name), name
    assert "SOURCE: StudyDate is not written as the standard has it" in rows["dates"]["warnings"]
    assert "SOURCE" not in rows["latin"]["warnings"] + rows["chinese"]["warnings"]
    assert "SOURCE: StudyTime" in (tmp_path / "out" / "dates" / "case.html").read_text()
    assert not list((tmp_path / "out").rglob(".tmp*"))
