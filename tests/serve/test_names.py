"""What the app calls an upload: by its files, unless an archive may have named them after a patient."""

from __future__ import annotations

import zipfile

import pytest

pytest.importorskip("starlette")

from pseudohealthy.serve.uploads import title


def test_dicom_and_zips_are_not_named(tmp_path):
    def called(**files: bytes) -> str:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, data in files.items():
            (tmp_path / name.replace("_", ".")).write_bytes(data)
        return title(tmp_path, [name.replace("_", ".") for name in files])

    dicom = bytes(128) + b"DICM" + bytes(300)
    assert called(scan_png=b"\x89PNG") == "scan.png"
    assert called(a_nii=bytes(400), b_nii=bytes(400)) == "a.nii and 1 more"
    assert called(SURNAME=dicom) == "a DICOM file"
    assert called(SURNAME_1=dicom, SURNAME_2=dicom, notes_txt=b"x") == "3 files (DICOM)"
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        archive.writestr("SURNAME", b"x")
    assert called(SURNAME_zip=(tmp_path / "x").read_bytes()) == "a zip file"
