"""The app gives its pages and the files of its jobs and runs, and nothing else."""

from __future__ import annotations

import asyncio
import io
import json
import re
import shutil
import zipfile
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest
from app_client import HOME, TOKEN, known, post, started
from starlette.testclient import TestClient

from pseudohealthy.errors import Fault
from pseudohealthy.serve import served_files
from pseudohealthy.serve.access import Guard
from pseudohealthy.serve.app import build
from pseudohealthy.serve.jobs import Job


def test_the_page_says_what_the_table_of_formats_says(idle, monkeypatch):
    from pseudohealthy.formats import FORMATS, Format

    assert "NIfTI, DICOM, PNG, JPEG, TIFF, .npy, idx or zip files" in idle.get("/").text
    monkeypatch.setitem(FORMATS.added, "fake", Format("Fake", (".fake",), "made_up:load"))
    assert ".npy, idx, Fake or zip files" in idle.get("/").text


def asked(app: Guard, path: str) -> int:
    """The status of a GET of a path as it stands; clients tidy dots away."""
    codes = []

    async def send(message):
        codes.append(message.get("status"))

    async def receive():
        return {"type": "http.disconnect"}

    headers = [(b"host", b"localhost"), (b"cookie", f"pseudohealthy={TOKEN}".encode())]
    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "http_version": "1.1",
        "scheme": "http",
        "server": None,
        "client": None,
    }
    asyncio.run(app(scope, receive, send))
    return codes[0]


@pytest.fixture
def finished(run_folder, tmp_path) -> tuple[TestClient, Path]:
    """A finished job with id 0...0, beside a secret and links to it."""
    place = tmp_path / "out" / "jobs" / ("0" * 32)
    found = place / "found"
    (found / "c").mkdir(parents=True)
    (found / "report.html").write_text("<p>no policy")
    (found / "c" / "map.nii.gz").write_bytes(b"volume")
    (found / "c" / "x.svg").write_text("<svg onload=alert(1)>")
    (tmp_path / "secret.txt").write_text("secret")
    (found / "link.txt").symlink_to(tmp_path / "secret.txt")
    (found / "folder").symlink_to(tmp_path)
    job = Job(
        "0" * 32,
        "<b>a",
        "tiny",
        status="done",
        created="2026-01-01T00:00:00+00:00",
        seconds=3,
        findings=[
            {
                "case_id": "<i>",
                "score": 1.0,
                "healthy_percentile": None,
                "volume_ml_above": 2.0,
                "n_regions": 1,
                "warnings": "<u>",
                "page": True,
            }
        ],
        count=1,
    )
    (place / "job.json").write_text(json.dumps(vars(job)))
    return known(TestClient(started(run_folder, tmp_path / "out"), base_url=HOME)), tmp_path


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/{id}/../job.json",
        "/jobs/{id}/%2e%2e/job.json",
        "/jobs/{id}/..%2fjob.json",
        "/jobs/{id}//etc/passwd",
        "/jobs/{id}/%2fetc%2fpasswd",
        "/jobs/{id}/link.txt",
        "/jobs/{id}/folder/secret.txt",
        "/jobs/{id}/c",
        "/jobs/{id}/",
        "/jobs/../jobs/{id}/report.html",
        "/jobs/{id}/c/..%5c..%5cjob.json",
        "/jobs/{id}/.%00/report.html",
        "/jobs/%2e%2e/x",
        "/zip/..%2f..",
        "/log/%2e%2e",
        "/runs/0/..%2frun.json",
        "/runs/0/run.json",
        "/runs/0/best_model.safetensors",
        "/runs/1/a.png",
        "/runs/-1/training_curves.png",
        "/static/../../etc/passwd",
        "/jobs/{id}0/report.html",
    ],
)
def test_ids_and_listed_names_are_all_that_is_found(finished, path):
    client, _ = finished
    assert asked(client.app, "/jobs/{id}/c/map.nii.gz".format(id="0" * 32)) == 200
    assert asked(client.app, path.format(id="0" * 32)) == 404


def test_a_page_without_our_policy_runs_nothing_and_other_files_are_downloads(finished):
    client, _ = finished
    base = "/jobs/" + "0" * 32
    assert "sandbox" in client.get(f"{base}/report.html").headers["content-security-policy"]
    for name in ("c/map.nii.gz", "c/x.svg"):
        headers = client.get(f"{base}/{name}").headers
        assert headers["content-disposition"] == "attachment"
        assert headers["content-type"] == "application/octet-stream"


def test_the_zip_holds_the_outputs_in_its_own_folder_and_no_link(finished):
    client, folder = finished
    names = zipfile.ZipFile(io.BytesIO(client.get("/zip/" + "0" * 32).content)).namelist()
    assert names == [
        f"pseudohealthy-00000000/{name}" for name in ("c/map.nii.gz", "c/x.svg", "report.html")
    ]
    assert list((folder / "out" / "jobs" / ("0" * 32)).glob("*.zip")) == []


def test_names_are_shown_as_text(finished):
    client, _ = finished
    page = client.get("/").text
    assert "&lt;b&gt;a" in page and "<b>a" not in page
    assert "&lt;u&gt;" in page and "/%3Ci%3E/case.html" in page


def test_the_viewers_of_several_cases_stand_in_their_row(finished):
    _, folder = finished
    path = folder / "out" / "jobs" / ("0" * 32) / "job.json"
    job = json.loads(path.read_text())
    job["findings"] = [{"case_id": f"<c{n}>", "score": 1.0, "page": n != 1} for n in range(8)]
    path.write_text(json.dumps(job | {"count": 8}))
    page = (
        known(TestClient(started(folder / "tiny", folder / "out"), base_url=HOME))
        .get("/queue")
        .text
    )
    assert (
        re.findall(r"%3Cc(\d)%3E/case.html", page) == list("02345") and "all in the report" in page
    )


def test_the_policy_of_a_real_report_is_known(tmp_path):
    from pseudohealthy.report.page import Cases, Report, write_report

    policy = served_files.policy(
        write_report(
            tmp_path, Report("x", cases=Cases([{"case_id": "a", "score": 1.0, "status": "ok"}]))
        )
    )
    assert (
        "sandbox" not in policy
        and "script-src 'sha256-" in policy
        and policy.endswith("frame-ancestors 'none'")
    )


def test_runs_are_compared_by_what_they_recorded(idle):
    page = idle.get("/runs").text
    for text in (
        "41,609",
        "0.900",
        "at step 8",
        "healthy-quantile 0.95",
        "blobs",
        "Research use only. Not a medical",
    ):
        assert text in page
    assert idle.get("/runs.json").json()[0]["pictures"] == [
        "training_curves.png",
        "diagnostics_epoch_10.png",
    ]
    assert idle.get("/runs/0/diagnostics_epoch_10.png").headers["content-type"] == "image/png"
    assert idle.get("/runs/0/diagnostics_epoch_2.png").status_code == 404


def test_a_run_is_shown_by_the_images_it_knows_not_by_its_recipe(idle, run_folder):
    shown = unescape(idle.get("/").text)
    assert (
        "knows images like those of blobs" in shown
        and "for tests" not in shown + idle.get("/runs").text
    )
    card = run_folder / "MODEL_CARD.md"
    said = (
        "- What it is: x\n- Images: axial <b>T1</b> (IXI), 1 mm,\n  skull shown. Others are"
        " outside. It was tried.\n- Canvas: y\n\n- Images: those it was trained on do not lie"
        " here.\n"
    )
    card.write_text(said)
    page = unescape(idle.get("/").text)
    assert (
        "knows axial <b>T1</b> (IXI), 1 mm, skull shown. Others are outside. ·" in page
        and "<b>T1" not in idle.get("/").text
    )
    assert "Others are outside. It was tried.<" in unescape(idle.get("/runs").text)
    card.write_text("- Images: those it was trained on do not lie here.\n")
    assert idle.get("/runs.json").json()[0]["knows"] == "images like those of blobs"


def test_a_bundled_model_is_served_by_its_name(tmp_path):
    runs = served_files.opened([Path("brain-t1")])
    client = known(TestClient(build(runs, tmp_path / "out", token=TOKEN), base_url=HOME))
    page = client.get("/").text
    assert (
        "brain-t1" in page
        and "mid-axial slice of T1-weighted scans" in page
        and "any folder of healthy images" not in page
    )
    assert post(client, run="brain-t1").status_code == 201


def test_two_runs_of_one_name_are_told_apart(run_folder, tmp_path):
    other = shutil.copytree(run_folder, tmp_path / "b" / "tiny")
    assert list(served_files.opened([run_folder, other])) == [f"{tmp_path.name}/tiny", "b/tiny"]
    with pytest.raises(Fault, match="twice"):
        served_files.opened([run_folder, run_folder])
