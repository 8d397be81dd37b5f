"""A DICOM case is called by its series, and no name that a header or a file of it holds is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from folders import ids, make_zip, series

from pseudohealthy import io
from pseudohealthy.errors import Fault
from pseudohealthy.io.names import unnamed

HOSTILE = "ID1_SURNAME_FORENAME-Head-CT"


def test_a_dicom_case_is_called_by_its_series(tmp_path, write_series, volume):
    names = [f"SURNAME_{k}.dcm" for k in range(10)]
    write_series(tmp_path / HOSTILE, volume, series="1.2.3", names=names)
    write_series(tmp_path / "SURNAME2", volume, series="1.2.9", names=names)
    make_zip(
        tmp_path / "SURNAME.zip", {p.name: p.read_bytes() for p in (tmp_path / HOSTILE).iterdir()}
    )
    assert ids(tmp_path / HOSTILE, tmp_path / "SURNAME2") == [series("1.2.3"), series("1.2.9")]
    assert (
        ids(tmp_path / HOSTILE / "SURNAME_3.dcm")
        == ids(tmp_path / "SURNAME.zip")
        == [series("1.2.3")]
    )
    assert ids(tmp_path / HOSTILE, named="path") == [HOSTILE]
    copies = ids(tmp_path / HOSTILE, tmp_path / "SURNAME.zip")
    assert copies == [f"{series('1.2.3')}-1", f"{series('1.2.3')}-2"]


def test_series_whose_first_digits_agree_get_more_of_them(
    tmp_path, write_series, volume, monkeypatch
):
    monkeypatch.setattr("pseudohealthy.io.names.DIGITS", 1)
    uids = [f"1.2.{k}" for k in range(7)]
    for uid in uids:
        write_series(tmp_path / uid, volume[:1], series=uid)
    made = {s.origin.series: s.case_id for s in io.discover([tmp_path])[0]}
    assert {len(name) for name in made.values()} == {8, 9} and len(set(made.values())) == 7
    assert all(
        hashlib.sha256(uid.encode()).hexdigest().startswith(name[7:]) for uid, name in made.items()
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.dcm has no Rows", "file 1 has no Rows"),
        ("file=IM-0001-0112.dcm ends before its pixels", "file 2 ends before its pixels"),
        (
            "FRAMES: 3 counts 3 frames and describes 4",
            "FRAMES: file 3 counts 3 frames and describes 4",
        ),
        ("3 has another PixelSpacing than slice", "file 3 has another PixelSpacing than file 4"),
        ("3 slices missing; 3 x 4 voxels", "3 slices missing; 3 x 4 voxels"),
        ("1 slice missing (slices are 3 mm apart)", "1 slice missing (slices are 3 mm apart)"),
        ("name one as 3#0 to #2", "name one as file 3#0 to #2"),
        ("SURNAME lies beside, and slice", "file 5 lies beside, and file 4"),
    ],
)
def test_no_name_of_a_dicom_file_is_said_however_short(text, said):
    paths = [Path(name) for name in ("0.dcm", "IM-0001-0112.dcm", "3", "slice", "SURNAME")]
    assert unnamed(text, paths) == said


def test_what_lies_among_dicom_files_is_not_named(tmp_path, write_series, volume):
    write_series(tmp_path / "one", volume, names=[f"SURNAME_{k}.dcm" for k in range(10)])
    for name in ("SURNAME.dcm", "SURNAME2.dcm", "SURNAME.scan", "SURNAME_mask.png"):
        (tmp_path / name).write_bytes(b"x" * 400)
    found = io.survey([tmp_path])
    assert not any("SURNAME" in name + reason for name, reason in found.left_out())
    assert [reason for _, reason in found.left_out()].count(
        "2 files: not a DICOM file (no DICM magic)"
    ) == 1
    assert {name for name, _ in io.survey([tmp_path], "path").left_out()} >= {
        "SURNAME.dcm",
        "SURNAME.scan",
    }
    with pytest.raises(Fault) as caught:
        io.read(tmp_path / "SURNAME.dcm")
    assert "SURNAME" not in str(caught.value)


def test_what_is_wrong_with_a_series_is_said_without_its_names(tmp_path, write_series, volume):
    paths = write_series(
        tmp_path / "SURNAME", volume, names=[f"SURNAME {k}.dcm" for k in range(10)]
    )
    whole = paths[4].read_bytes()
    paths[4].write_bytes(whole[:-100])
    for named, told in (("series", "file 5"), ("path", "SURNAME 4.dcm")):
        (source,), _ = io.discover([tmp_path], named)
        with pytest.raises(Fault) as caught:
            io.read(source)
        assert told in str(caught.value) and (named == "path" or "SURNAME" not in str(caught.value))
    (tmp_path / "SURNAME.zip").write_bytes(b"PK\3\4 damaged")
    with pytest.raises(Fault, match="input 1") as caught:
        io.discover([tmp_path / "SURNAME.zip"])
    assert "SURNAME" not in str(caught.value)
