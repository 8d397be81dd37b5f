"""Which series is which file stands in the key, outside the outputs, for its owner; nothing else
knows a name."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pseudohealthy.anomalies.phantoms import dicom_series, head
from pseudohealthy.cli import parse
from pseudohealthy.detection import key, worker
from pseudohealthy.errors import Fault
from pseudohealthy.workflows import detect as workflow

pytestmark = pytest.mark.usefixtures("unpainted")

SURNAME = "ID1_SURNAME_FORENAME-Head-CT"


def export(folder: Path, uid: str, seed: int = 0) -> Path:
    """A series as an archive exports it: folder and files named after the patient."""
    values, _, _ = head(np.random.default_rng(seed), shape=(4, 24, 24), lesion=0.3)
    dicom_series(folder, values, spacing=(5.0, 5.0, 5.0))
    for number, path in enumerate(sorted(folder.iterdir()), 1):
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID, data.AccessionNumber = uid, "SURNAME77"
        data.StudyDescription = data.SeriesDescription = data.PatientName = "SURNAME"
        data.save_as(path)
        path.rename(folder / f"SURNAME_{number}.dcm")
    return folder


def case(uid: str) -> str:
    return f"series-{hashlib.sha256(uid.encode()).hexdigest()[:8]}"


def rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def detect(run: Path, *inputs: Path, out: Path, **how) -> worker.Detections:
    return workflow.detect(run, inputs, out, device="cpu", kinds=("json",), **how)


def test_the_key_lies_beside_the_outputs_and_is_extended(ct_run, tmp_path):
    one = export(tmp_path / "in" / SURNAME, "1.2.1")
    other = export(tmp_path / "more" / SURNAME, "1.2.2", 1)
    out, beside = tmp_path / "out", tmp_path / "out.key.csv"
    done = detect(ct_run, tmp_path / "in", out=out)
    assert [row["case_id"] for row in done.rows] == [case("1.2.1")]
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    row = rows(beside)[case("1.2.1")]
    assert (row["input"], row["path"], row["folder"]) == (str(tmp_path / "in"), SURNAME, SURNAME)
    assert row["files"].split("|") == [f"SURNAME_{k}.dcm" for k in range(1, 5)]
    assert row["series_instance_uid"] == "1.2.1"
    detect(ct_run, one, other, out=out, resume_finished=True)
    assert (
        rows(beside).keys() == {case("1.2.1"), case("1.2.2")}
        and rows(beside)[case("1.2.1")]["path"] == "."
    )
    for path in out.rglob("*"):
        assert "SURNAME" not in path.name
        assert path.is_dir() or b"SURNAME" not in path.read_bytes(), path.name


def test_a_key_inside_the_outputs_is_refused_before_any_work(ct_run, tmp_path):
    folder = export(tmp_path / SURNAME, "1.2.1")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for place in ("out/key.csv", "out/deep/key.csv", "link/key.csv", "out", "x/../out/k"):
        with pytest.raises(Fault) as caught:
            detect(ct_run, folder, out=tmp_path / "out", key=tmp_path / place)
        assert (caught.value.code, caught.value.exit) == ("KEY", 2)
    assert not (tmp_path / "out").exists()
    detect(ct_run, folder, out=tmp_path / "out", key=tmp_path / "elsewhere" / "key.csv")
    assert rows(tmp_path / "elsewhere" / "key.csv") and not (tmp_path / "out.key.csv").exists()


def test_a_file_that_is_no_key_stays_as_it_is(ct_run, tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(Fault) as caught:
        detect(
            ct_run,
            export(tmp_path / SURNAME, "1.2.1"),
            out=tmp_path / "out",
            key=tmp_path / "mine.csv",
        )
    assert (caught.value.code, caught.value.exit) == ("KEY", 6)
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


def test_names_of_paths_are_kept_where_they_are_asked_for(ct_run, tmp_path):
    done = detect(ct_run, export(tmp_path / SURNAME, "1.2.1"), out=tmp_path / "out", names="path")
    assert done.rows[0]["case_id"] == SURNAME and not (tmp_path / "out.key.csv").exists()


def test_inspect_tells_the_same_names(tmp_path, capsys):
    folder = export(tmp_path / SURNAME, "1.2.1")
    assert (
        parse(
            [
                "inspect",
                str(folder),
                "--out",
                str(tmp_path / "sheet"),
                "--key",
                str(tmp_path / "key.csv"),
            ]
        ).start()
        == 0
    )
    said = capsys.readouterr()
    assert case("1.2.1") in said.out and "SURNAME" not in said.out + said.err
    assert b"SURNAME" not in b"".join(path.read_bytes() for path in (tmp_path / "sheet").iterdir())
    assert rows(tmp_path / "key.csv")[case("1.2.1")]["folder"] == SURNAME


def test_a_plain_folder_of_series_names_no_patient(tmp_path):
    from pseudohealthy.data.load import load

    for place, uid in (
        ("train/good/SURNAME_1", "1.2.1"),
        ("test/bad/SURNAME_2", "1.2.2"),
        ("test/bad/copy", "1.2.2"),
    ):
        export(tmp_path / place, uid, seed=len(place))
    manifest = load(tmp_path)
    assert {c.case_id for c in manifest} >= {case("1.2.1")} and len(
        {c.case_id for c in manifest}
    ) == 3
    assert not any("SURNAME" in c.case_id + c.patient_id for c in manifest)
    assert {c.patient_id for c in manifest.split("test")} == {case("1.2.2")}
    assert {c.case_id for c in load(tmp_path, names="path")} == {"SURNAME_1", "SURNAME_2", "copy"}


def test_what_tells_volumes_apart_is_no_name_either(tmp_path):
    """Two kernels in one series, one of them called after the patient."""
    from pseudohealthy import io

    folder = export(tmp_path / SURNAME, "1.2.1")
    for kernels in (("B30", "B70"), ("SURNAME", "B70"), ("X" * 16, "B30")):
        for number, path in enumerate(sorted(folder.iterdir())):
            data = pydicom.dcmread(path)
            data.ConvolutionKernel, data.PatientName = kernels[number % 2], "SURNAME^FORENAME"
            data.save_as(path)
        ids = {source.case_id for source in io.discover([folder])[0]}
        assert len(ids) == 2 and not any("SURNAME" in name for name in ids), ids


def test_odd_names_stand_in_the_key_as_they_are(tmp_path):
    from pseudohealthy import io

    folder = export(tmp_path / '=cmd, "x" ü', "1.2.1")
    os.rename(folder / "SURNAME_1.dcm", os.fsencode(folder) + b"/\xff.dcm")
    assert key.extend(tmp_path / "key.csv", io.discover([folder])[0])
    row = rows(tmp_path / "key.csv")[case("1.2.1")]
    assert row["folder"] == '\'=cmd, "x" ü' and "\\udcff.dcm" in row["files"]


def test_two_programs_that_extend_one_key_at_once_lose_no_row(tmp_path, monkeypatch):
    import time
    from concurrent.futures import ThreadPoolExecutor
    from types import SimpleNamespace

    reads = key.known

    def slow(path: Path) -> dict[str, tuple[str, ...]]:
        found = reads(path)
        time.sleep(0.05)
        return found

    monkeypatch.setattr(key, "known", slow)
    monkeypatch.setattr(key, "row", lambda source: (source.case_id, *["x"] * 5))
    path = tmp_path / "all.key.csv"
    with ThreadPoolExecutor(6) as pool:
        list(
            pool.map(
                lambda n: key.extend(path, [SimpleNamespace(case_id=f"case-{n}", origin=True)]),
                range(6),
            )
        )
    assert sorted(rows(path)) == [f"case-{n}" for n in range(6)]
