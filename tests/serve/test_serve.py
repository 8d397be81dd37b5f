"""The app starts or says in one line why not; a picture is sent, detected and looked at; no worker
outlives the app."""

from __future__ import annotations

import io
import os
import re
import sys
import time
import zipfile

import pytest
from app_client import HOME, TOKEN, known, post
from starlette.testclient import TestClient

from pseudohealthy.errors import Fault
from pseudohealthy.runs.run import Run
from pseudohealthy.serve.app import build
from pseudohealthy.serve.jobs import Jobs
from pseudohealthy.serve.server import bound, serve


# -- starting --------------------------------------------------------------------------------------
def test_without_the_extra_one_line_says_so(run_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(Fault, match="EXTRA") as raised:
        serve([run_folder], tmp_path / "out")
    assert "pip install 'pseudohealthy[serve]'" in str(raised.value) and raised.value.exit == 2


def test_a_taken_port_a_foreign_address_and_no_run_are_refused_in_one_line(run_folder, tmp_path):
    with bound("127.0.0.1", 0) as taken, pytest.raises(Fault, match="PORT"):
        serve([run_folder], tmp_path / "out", port=taken.getsockname()[1])
    with pytest.raises(Fault, match="PORT"):
        serve([run_folder], tmp_path / "out", port=0, listen="192.0.2.1")
    with pytest.raises(Fault, match="RUN_MISSING"):
        serve([tmp_path], tmp_path / "out", port=0)


# -- the real thing --------------------------------------------------------------------------------
def test_a_picture_is_sent_detected_looked_at_and_downloaded(tiny_run, pictures, tmp_path):
    picture = next((pictures / "test" / "bad").iterdir())
    app = build({"tiny": Run.open(tiny_run)}, tmp_path / "out", token=TOKEN, device="cpu")
    with known(TestClient(app, base_url=HOME)) as client:
        id = post(client, "patient name.png", data=picture.read_bytes()).json()["id"]
        end = time.monotonic() + 120
        while client.get(f"/zip/{id}").status_code == 404 and time.monotonic() < end:
            time.sleep(0.2)
        report = client.get(f"/jobs/{id}/report.html")
        assert report.status_code == 200, client.get(f"/log/{id}").text
        assert "script-src 'sha256-" in report.headers["content-security-policy"]
        page = re.search(r'href="(/jobs/[^"]*case\.html)"', client.get("/").text)
        assert page and "sandbox" not in client.get(page[1]).headers["content-security-policy"]
        names = zipfile.ZipFile(io.BytesIO(client.get(f"/zip/{id}").content)).namelist()
        assert {name.split("/")[0] for name in names} == {f"pseudohealthy-{id[:8]}"}
        assert {"findings.csv", "report.html"} <= {name.split("/")[1] for name in names} and any(
            n.endswith("case.html") for n in names
        )
        assert '<a href="../report.html">' in client.get(page[1]).text
        assert str(tmp_path) not in report.text + client.get(page[1]).text
        assert not (tmp_path / "out" / "jobs" / id / "upload").exists()


def test_a_worker_ends_when_the_app_has_gone(tiny_run, pictures, tmp_path):
    jobs = Jobs(tmp_path / "out" / "jobs", {"tiny": tiny_run}, device="cpu")
    with jobs.room() as job:
        job.run, job.name = "tiny", "a.png"
        os.mkfifo(jobs.place(job) / "upload" / "a.nii")  # reading it never ends
        child = jobs._worker(job)
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(30) == 130
