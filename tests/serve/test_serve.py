"""The app answers its own pages on this machine only, takes uploads without trusting them, and
outlives its workers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

from starlette.testclient import TestClient

from pseudohealthy.errors import Fault
from pseudohealthy.runs.run import Run
from pseudohealthy.serve import jobs as queue
from pseudohealthy.serve import served_files, uploads
from pseudohealthy.serve.access import ALWAYS, Guard
from pseudohealthy.serve.app import build
from pseudohealthy.serve.jobs import Job, Jobs
from pseudohealthy.serve.server import bound, serve

TOKEN = "the-token"
HOME = "http://127.0.0.1:8765"
OURS = {"Origin": HOME}


def started(folder: Path, out: Path, **options) -> Guard:
    return build({"tiny": Run.open(folder)}, out, token=TOKEN, **{"most": 10**6, **options})


@pytest.fixture
def idle(run_folder: Path, tmp_path: Path) -> TestClient:
    """An app whose queue does not move, so that what is sent waits."""
    return known(TestClient(started(run_folder, tmp_path / "out", queue=3), base_url=HOME))


def known(client: TestClient) -> TestClient:
    client.cookies.set("pseudohealthy", TOKEN)
    return client


def post(client: TestClient, *names: str, data: bytes = b"x", run: str = "tiny", **headers: str):
    files = [("files", (name, data)) for name in names or ("a.png",)]
    return client.post("/jobs", data={"run": run}, files=files, headers={**OURS, **headers})


def jobs_of(client: TestClient) -> list[str]:
    return re.findall(r'data-post="/jobs/([0-9a-f]{32})', client.get("/queue").text)


def placed(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_the_page_says_what_the_table_of_formats_says(idle, monkeypatch):
    from pseudohealthy.formats import FORMATS, Format

    assert "NIfTI, DICOM, PNG, JPEG, TIFF, .npy, idx or zip files" in idle.get("/").text
    monkeypatch.setitem(FORMATS, "fake", Format("Fake", (".fake",), "made_up:load"))
    assert ".npy, idx, Fake or zip files" in idle.get("/").text


# -- who is answered -------------------------------------------------------------------------------
def test_the_token_opens_the_page_and_becomes_a_cookie_that_pages_elsewhere_cannot_use(
    run_folder, tmp_path
):
    client = TestClient(started(run_folder, tmp_path / "out"), base_url=HOME)
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    first = client.get(f"/?token={TOKEN}")
    assert first.status_code == 200
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(first.headers["set-cookie"].split("; "))
    assert client.get("/").status_code == 200  # by the cookie
    assert "set-cookie" not in client.get("/").headers
    assert (
        TestClient(client.app, base_url=HOME)
        .get("/", headers={"Authorization": f"Bearer {TOKEN}"})
        .status_code
        == 200
    )


@pytest.mark.parametrize(
    "path", ["/", "/queue", "/runs", "/jobs/x/report.html", "/zip/x", "/nothing", "/runs/0/a.png"]
)
def test_nothing_is_answered_without_the_token(idle, path):
    assert TestClient(idle.app, base_url=HOME).get(path).status_code == 403


@pytest.mark.parametrize(
    "host, code",
    [
        ("127.0.0.1:8765", 200),
        ("localhost:8765", 200),
        ("LOCALHOST", 200),
        ("[::1]:9", 200),
        ("evil.com", 421),
        ("", 421),
        ("127.0.0.1.evil.com", 421),
        ("127.0.0.1@evil.com", 421),
        ("192.168.0.7:8765", 421),
        ("127.0.0.1:8765:1", 421),
        ("0.0.0.0:8765", 421),
    ],
)
def test_only_names_of_this_machine_are_answered(idle, host, code):
    assert idle.get("/", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    "host, code", [("192.168.0.7:8765", 200), ("localhost", 200), ("evil.com", 421)]
)
def test_listening_everywhere_answers_addresses_but_no_foreign_names(
    run_folder, tmp_path, host, code
):
    client = known(
        TestClient(started(run_folder, tmp_path / "out", listen="0.0.0.0"), base_url=HOME)
    )
    assert client.get("/", headers={"Host": host}).status_code == code


@pytest.mark.parametrize(
    "headers, code",
    [
        ({"Origin": HOME}, 201),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 201),
        ({}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.com"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": "file://"}, 403),
        ({"Origin": HOME, "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://evil.com", "Sec-Fetch-Site": "same-origin"}, 403),
    ],
)
def test_a_post_must_come_from_our_own_page(idle, headers, code):
    answer = idle.post(
        "/jobs", data={"run": "tiny"}, files=[("files", ("a.png", b"x"))], headers=headers
    )
    assert answer.status_code == code


def test_a_post_without_the_token_is_refused_before_its_body_is_read(idle):
    def never():
        raise AssertionError("read")
        yield b""

    stranger = TestClient(idle.app, base_url=HOME)
    assert stranger.post("/jobs", content=never(), headers=OURS).status_code == 403


@pytest.mark.parametrize(
    "path, code", [("/", 200), ("/queue", 200), ("/nothing", 404), ("/jobs", 405)]
)
def test_every_answer_forbids_frames_sniffing_referrers_and_caches(idle, path, code):
    answer = idle.get(path)
    assert answer.status_code == code
    assert ALWAYS.items() <= {k.title(): v for k, v in answer.headers.items()}.items()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    refused = TestClient(idle.app, base_url=HOME).get(path)
    assert refused.status_code == 403 and refused.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH"])
def test_no_other_method_is_answered(idle, method):
    assert idle.request(method, "/", headers=OURS).status_code == 405


# -- what is taken ---------------------------------------------------------------------------------
def test_an_upload_becomes_a_job_under_a_random_name(idle, tmp_path):
    id = post(idle, "../../evil/scan 1.png", "..\\..\\b.png", "/etc/passwd", data=b"bytes").json()[
        "id"
    ]
    sent = tmp_path / "out" / "jobs" / id / "upload"
    assert placed(sent) == ["b.png", "etc/passwd", "evil/scan_1.png"]
    assert (sent / "b.png").read_bytes() == b"bytes"
    assert re.fullmatch("[0-9a-f]{32}", id)
    assert {p.name for p in tmp_path.iterdir()} == {"tiny", "out"}


@pytest.mark.parametrize(
    "name, kept",
    [
        ("a.nii.gz", "a.nii.gz"),
        ("../../x", "x"),
        ("C:\\scans\\x.dcm", "x.dcm"),
        ("-rf", "rf"),
        ("a b<script>.png", "a_b_script_.png"),
        (".DS_Store", ""),
        ("._a.nii", ""),
        ("..", ""),
        ("Thumbs.db", ""),
        ("", "file"),
        ("a\x00b.png", "a_b.png"),
        ("con.png", "_con.png"),
        ("äé.png", "äé.png"),
        ("x" * 300 + ".nii.gz", "x" * 113 + ".nii.gz"),
    ],
)
def test_only_a_safe_base_name_is_kept(name, kept):
    assert uploads.base_name(name) == kept


@pytest.mark.parametrize(
    "sent, kept",
    [
        (["a/s.png", "b/s.png"], ["a/s.png", "b/s.png"]),
        (["a/IM1.dcm", "a/IM2.dcm", "b/IM1.dcm"], ["a/IM1.dcm", "a/IM2.dcm", "b/IM1.dcm"]),
        (["s.png", "s.png", "S.PNG"], ["2-s.png", "3-S.PNG", "s.png"]),
        (["s.png", "2-s.png", "s.png"], ["2-s.png", "3-s.png", "s.png"]),
        (["2-s.png", "s.png", "s.png"], ["2-s.png", "3-s.png", "s.png"]),
        (["a/s.png", "A/S.png"], ["2-A/S.png", "a/s.png"]),
        (["a", "a/s.png", "a/b"], ["2-a/s.png", "3-a/b", "a"]),
        (["a/b/s.png", "a/b"], ["2-a/b", "a/b/s.png"]),
        (["/".join("abcdefghijkl") + "/s.png"], ["e/f/g/h/i/j/k/l/s.png"]),
        (["../con/../a b/<s>.png"], ["_con/a_b/_s_.png"]),
        (["a/.git/x.png", "__MACOSX/a.png", "a/.DS_Store", "a.png"], ["a.png"]),
    ],
)
def test_files_keep_their_folders_and_do_not_overwrite_each_other(idle, tmp_path, sent, kept):
    id = post(idle, *sent).json()["id"]
    assert placed(tmp_path / "out" / "jobs" / id / "upload") == sorted(kept)


def test_a_declared_size_beyond_the_cap_is_refused_unread(idle):
    def never():
        raise AssertionError("read")
        yield b""

    answer = idle.post("/jobs", content=never(), headers={**OURS, "Content-Length": str(2**40)})
    assert answer.status_code == 413


def test_an_undeclared_body_is_cut_off_at_the_cap_and_nothing_stays(idle, tmp_path):
    sent = 0

    def endless():
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        while sent < 10**8:
            sent += 65536
            yield b"\0" * 65536

    answer = idle.post(
        "/jobs",
        content=endless(),
        headers={**OURS, "Content-Type": "multipart/form-data; boundary=b"},
    )
    assert answer.status_code == 413
    assert list((tmp_path / "out" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    "body, kind, code",
    [
        (b"x", "image/png", 415),
        (b"x", "multipart/form-data", 415),
        (b"nonsense", "multipart/form-data; boundary=b", 400),
        (
            b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nhalf',
            "multipart/form-data; boundary=b",
            400,
        ),
        (
            b'--b\r\nContent-Disposition: form-data; name="run"\r\n\r\n'
            + b"x" * 999
            + b"\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            400,
        ),
        (
            b"--b\r\nX: " + b"y" * 50_000 + b"\r\n\r\nx\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
            400,
        ),
    ],
)
def test_damaged_bodies_are_refused_and_leave_nothing(idle, tmp_path, body, kind, code):
    assert (
        idle.post("/jobs", content=body, headers={**OURS, "Content-Type": kind}).status_code == code
    )
    assert list((tmp_path / "out" / "jobs").iterdir()) == []


def test_compressed_bodies_unknown_runs_and_empty_uploads_are_refused(idle):
    assert post(idle, **{"Content-Encoding": "gzip"}).status_code == 415
    assert post(idle, run="../tiny").status_code == 400
    assert post(idle, ".DS_Store").status_code == 400


def test_a_full_queue_says_429_and_has_room_again_after_a_cancel(idle):
    ids = [post(idle).json()["id"] for _ in range(3)]
    assert post(idle).status_code == 429
    assert idle.post(f"/jobs/{ids[1]}/cancel", headers=OURS).status_code == 204
    assert post(idle).status_code == 201


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


# -- what is given ---------------------------------------------------------------------------------
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


# -- the queue -------------------------------------------------------------------------------------
def settled(jobs: Jobs, job: Job, limit: float = 60) -> Job:
    end = time.monotonic() + limit
    while not (job.ended and not jobs.current) and time.monotonic() < end:
        time.sleep(0.02)
    assert job.ended, job.status
    return job


@pytest.fixture
def line(run_folder, tmp_path, monkeypatch) -> Iterator[Callable[..., tuple[Jobs, Job]]]:
    """Send a job whose worker is this Python code instead of `detect`."""
    made = []

    def send(code: str, jobs: Jobs | None = None) -> tuple[Jobs, Job]:
        if jobs is None:
            jobs = Jobs(tmp_path / "out" / "jobs", {"tiny": run_folder})
            jobs.start()
            made.append(jobs)
        (tmp_path / "fake" / "pseudohealthy").mkdir(parents=True, exist_ok=True)
        with jobs.room() as job:
            (jobs.place(job) / "upload" / "a.png").write_bytes(b"x")
            job.name, job.run = "a.png", "tiny"
            codes[job.id] = code
            jobs.add(job)
        return jobs, job

    codes: dict[str, str] = {}
    real = queue.subprocess.Popen

    def popen(words, **how):
        place = Path(how["env"]["TMPDIR"]).parent
        found = f"import os, sys, time, json; found = {str(place / 'found')!r}\n"
        return real([words[0], "-c", found + codes[place.name]], **how)

    monkeypatch.setattr(queue.subprocess, "Popen", popen)
    yield send
    for jobs in made:
        jobs.close()


WELL = """
os.makedirs(found)
json.dump({"findings": [{"case_id": "a", "score": 1.0}]}, open(found + "/findings.json", "w"))
"""


def test_a_killed_worker_fails_its_job_alone(line):
    jobs, first = line("import signal; os.kill(os.getpid(), signal.SIGKILL)")
    _, second = line(WELL, jobs)
    assert settled(jobs, first).status == "failed"
    assert "SIGKILL" in first.reason and first.reason.count("\n") == 0
    assert settled(jobs, second).status == "done"


def test_a_failed_job_says_the_workers_own_line(line):
    jobs, job = line(
        "print('error[TRUNCATED] case=a: half a file; copy it again', file=sys.stderr); sys.exit(3)"
    )
    assert settled(jobs, job).reason == "error[TRUNCATED] case=a: half a file; copy it again"
    assert (jobs.place(job) / "log.txt").read_text().startswith("error[TRUNCATED]")


def test_progress_is_what_detect_says(line):
    jobs, job = line(
        "print('detecting: 3/9, about 20 s left', file=sys.stderr, flush=True); time.sleep(30)"
    )
    end = time.monotonic() + 20
    while not job.total and time.monotonic() < end:
        time.sleep(0.02)
    assert (job.done, job.total, job.left) == (3, 9, "20 s")
    jobs.cancel(job)
    settled(jobs, job)


def test_cancel_ends_a_worker_at_once_and_the_next_job_begins(line):
    jobs, first = line(WELL + "time.sleep(60)")
    _, second = line(WELL, jobs)
    while first.status != "running" or jobs.child is None:
        time.sleep(0.01)
    begun = time.monotonic()
    jobs.cancel(first)
    assert settled(jobs, second).status == "done"
    assert time.monotonic() - begun < 50, "the first would have slept 60 s"
    assert first.status == "cancelled"
    assert {p.name for p in jobs.place(first).iterdir()} == {"job.json", "log.txt"}


def test_what_was_sent_is_deleted_when_the_job_ends(line):
    jobs, job = line(WELL)
    settled(jobs, job)
    assert {p.name for p in jobs.place(job).iterdir()} == {"job.json", "log.txt", "found"}


def test_history_and_what_waited_survive_a_restart_and_what_ran_has_failed(
    line, run_folder, tmp_path
):
    jobs, done = line(WELL)
    settled(jobs, done)
    _, running = line("time.sleep(60)", jobs)
    while running.status != "running":
        time.sleep(0.01)
    _, waiting = line(WELL, jobs)
    kept = (jobs.place(running) / "job.json").read_bytes()
    jobs.close()
    assert running.status == "failed"
    (jobs.place(running) / "job.json").write_bytes(kept)  # as kill -9 leaves it
    half = tmp_path / "out" / "jobs" / ("f" * 32)
    half.mkdir()  # an upload that never ended
    again = Jobs(tmp_path / "out" / "jobs", {"tiny": run_folder})
    assert {job.id: job.status for job in again.all()} == {
        done.id: "done",
        running.id: "failed",
        waiting.id: "waiting",
    }
    assert "INTERRUPTED" in again.known[running.id].reason
    assert again.known[done.id].findings[0]["case_id"] == "a"
    assert not half.exists() and list(again.waiting) == [waiting.id]
    gone = Jobs(tmp_path / "out" / "jobs", {})  # the run is not served any more
    assert gone.known[waiting.id].status == "failed" and not gone.waiting


def test_removing_a_job_deletes_its_folder(line):
    jobs, job = line(WELL)
    settled(jobs, job)
    jobs.remove(job)
    assert not jobs.place(job).exists() and jobs.all() == []


def test_files_that_are_no_scans_are_no_cases(line):
    rows = [
        {"case_id": "a", "score": 1.0, "status": "ok"},
        {"case_id": "readme.txt", "status": "skipped"},
    ]
    jobs, job = line(
        f"os.makedirs(found); json.dump({{'findings': {rows}}}, open(found + '/findings.json',"
        " 'w'))"
    )
    settled(jobs, job)
    assert job.count == 1 and job.findings[0]["case_id"] == "a"


def test_scans_that_the_run_is_not_meant_for_are_told_in_the_row_of_several(line, run_folder):
    rows = [
        {"case_id": "good", "score": 1.0, "status": "ok", "warnings": ""},
        {"case_id": "hand", "score": 9.0, "status": "warn", "warnings": "OUT_OF_DOMAIN: unlike"},
    ]
    jobs, job = line(
        f"os.makedirs(found); json.dump({{'findings': {rows}}}, open(found + '/findings.json',"
        " 'w'))"
    )
    told = (
        "OUT_OF_DOMAIN: 1 of 2 scans is unlike what the run was trained on; do not trust its map"
        " and score (hand)"
    )
    assert settled(jobs, job).foreign == told
    page = (
        known(TestClient(started(run_folder, jobs.folder.parent), base_url=HOME)).get("/queue").text
    )
    assert told in page, "after a restart, too"


def test_what_was_refused_stands_in_the_row_with_its_reason(line, run_folder):
    rows = [
        {"case_id": "good", "score": 1.0, "status": "ok"},
        {"case_id": "half", "status": "failed", "warnings": "TRUNCATED: half a file"},
        {"case_id": "notes.mha", "status": "skipped", "warnings": "an ITK volume"},
        *(
            {"case_id": f"x{n}.gif", "status": "skipped", "warnings": "of another format"}
            for n in range(30)
        ),
    ]
    jobs, job = line(
        f"os.makedirs(found); json.dump({{'findings': {rows}}}, open(found + '/findings.json',"
        " 'w'));print('beside the inputs: tables, texts and sidecars (2)',"
        " file=sys.stderr);print('error[TRUNCATED] case=half: half a file', file=sys.stderr);"
        " sys.exit(4)"
    )
    assert settled(jobs, job).status == "partly" and job.count == 2
    assert job.refused[:2] == ["half: TRUNCATED: half a file", "notes.mha: an ITK volume"]
    assert len(job.refused) == queue.NAMED + 1 and job.refused[-1].startswith("and 12 more")
    page = (
        known(TestClient(started(run_folder, jobs.folder.parent), base_url=HOME)).get("/queue").text
    )
    for text in (
        "half: TRUNCATED",
        "notes.mha: an ITK volume",
        "tables, texts and sidecars (2)",
        "18 more</summary>",
    ):
        assert text in page
    assert "error[TRUNCATED]" not in page, "once is enough"


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
