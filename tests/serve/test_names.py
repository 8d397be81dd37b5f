"""What the app calls an upload: by its files, unless an archive may have named them after a
patient."""

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


def test_nothing_of_a_name_stays_in_the_apps_folder(ct_run, tmp_path):
    """The real worker on a series and a zip that are named after a patient."""
    import time

    import numpy as np

    from pseudohealthy.anomalies.phantoms import dicom_series, head
    from pseudohealthy.serve.jobs import DONE, Jobs

    jobs = Jobs(tmp_path / "app" / "jobs", {"ct": ct_run}, device="cpu")
    jobs.start()
    try:
        values, _, _ = head(np.random.default_rng(0), shape=(4, 24, 24), lesion=0.3)
        with jobs.room() as job:
            upload = jobs.place(job) / "upload"
            dicom_series(upload, values, spacing=(5.0, 5.0, 5.0))
            for path in list(upload.iterdir()):
                path.rename(upload / f"SURNAME_{path.name}")
            (upload / "SURNAME.scan").write_bytes(b"x")
            job.name, job.run = title(upload, ["SURNAME"] * 5), "ct"
            jobs.add(job)
        end = time.monotonic() + 200
        while not job.ended and time.monotonic() < end:
            time.sleep(0.2)
        assert job.status == DONE, jobs.place(job).joinpath("log.txt").read_text()
        assert job.findings[0]["case_id"].startswith("series-")
    finally:
        jobs.close()
    for path in (tmp_path / "app").rglob("*"):
        assert "SURNAME" not in path.name
        assert path.is_dir() or b"SURNAME" not in path.read_bytes(), path
