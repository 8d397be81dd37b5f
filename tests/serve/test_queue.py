"""The queue of the app outlives its workers, and says what became of each job."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app_client import HOME, known, started
from starlette.testclient import TestClient

from pseudohealthy.serve import jobs as queue
from pseudohealthy.serve.jobs import Job, Jobs


def settled(jobs: Jobs, job: Job, limit: float = 60) -> Job:
    end = time.monotonic() + limit
    while not (job.ended and not jobs.current) and time.monotonic() < end:
        time.sleep(0.02)
    assert job.ended, job.status
    return job


TELL = "tell = lambda **facts: print(json.dumps(facts), flush=True)\n"


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
        return real([words[0], "-c", found + TELL + codes[place.name]], **how)

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
        "said = 'error[TRUNCATED] case=a: half a file; copy it again'\n"
        "print(said, file=sys.stderr); tell(error=said); sys.exit(3)"
    )
    assert settled(jobs, job).reason == "error[TRUNCATED] case=a: half a file; copy it again"
    assert (jobs.place(job) / "log.txt").read_text().startswith("error[TRUNCATED]")


def test_progress_is_what_the_worker_tells(line):
    jobs, job = line(
        "tell(doing='reading', done=8, total=8, seconds_left=0)\n"
        "print('{\"doing\": \"detec')\nprint('[3]\\nnull')\n"
        "tell(doing='detecting', done='all', total=9, seconds_left=20)\n"
        "tell(doing='detecting', done=3, total=9, seconds_left=20.4); time.sleep(30)"
    )
    end = time.monotonic() + 20
    while not job.total and time.monotonic() < end:
        time.sleep(0.02)
    assert (job.done, job.total, job.left) == (3, 9, "20 s")
    jobs.cancel(job)
    settled(jobs, job)


def test_a_line_of_the_log_moves_nothing(line):
    """What a file is called can stand in the log."""
    jobs, job = line(
        WELL
        + "for said in ('detecting: 3/9, about 20 s left', 'beside the inputs: x', 'error[A]: b'):"
        " print(said, file=sys.stderr)"
    )
    assert settled(jobs, job).status == "done"
    assert (job.total, job.beside, job.reason) == (0, "", "")
    assert (jobs.place(job) / "log.txt").read_text().count("\n") == 3


def worker(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pseudohealthy.serve.worker", *words]
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as app:
        try:
            return subprocess.run(line, stdin=app.stdout, capture_output=True, text=True)
        finally:
            app.kill()


def test_the_worker_tells_facts_alone_on_standard_output():
    assert worker("recipes").stdout == ""
    done = worker("recipes", "nowhere")
    assert json.loads(done.stdout) == {"error": done.stderr.strip()} and done.returncode == 2


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
        " 'w')); tell(beside='tables, texts and sidecars (2)');"
        " tell(error='error[TRUNCATED] case=half: half a file'); sys.exit(4)"
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
