"""Jobs: what was sent, where it stands and what came of it. One runs at a time, in a process of its
own.

A job is a folder with a random name in ``--out``/jobs: job.json, what was sent (upload/, removed
when the job ends), what `detect` wrote (found/) and what it said (log.txt). There is no other
record, so a restart knows what the last start knew.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pseudohealthy.errors import SOME_FAILED, Fault
from pseudohealthy.io.atomic import write_json
from pseudohealthy.progress import duration, say
from pseudohealthy.registry import GIVEN
from pseudohealthy.report.rows import foreign
from pseudohealthy.runs.run import now

ID = re.compile(r"[0-9a-f]{32}")
WAITING = "waiting"
RUNNING = "running"
DONE = "done"
PARTLY = "partly"
FAILED = "failed"
CANCELLED = "cancelled"
ENDED = (DONE, PARTLY, FAILED, CANCELLED)
SHOWN = 200  # findings listed with a job; its report has all
NAMED = 20  # files that were not looked at, named with a job
LOG = 2**20  # bytes of what a worker says that are kept
FULL = "QUEUE_FULL"
STOPPED = "error[INTERRUPTED]: the app was stopped meanwhile; send it again"


@dataclass
class Job:
    """One thing to detect. name: of what was sent, see `uploads.title`; run: name of a served run;
    findings: rows of findings.json with the page of each; refused: what was sent and not looked at,
    or failed: name and reason; beside: files that are no images, counted; seconds: from start to
    end."""

    id: str
    name: str
    run: str
    files: int = 1
    bytes: int = 0
    status: str = WAITING
    reason: str = ""
    created: str = ""
    started: str = ""
    seconds: float = 0.0
    count: int = 0  # of findings, listed or not
    findings: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    beside: str = ""
    foreign: str = ""  # the warning of scans that the run is not meant for
    done: int = 0  # inputs, while it runs
    total: int = 0
    left: str = ""  # as detect estimates: "45 s", "12 min"
    begun: float = 0.0  # on the clock of this process

    @property
    def ended(self) -> bool:
        return self.status in ENDED


class Jobs:
    """The queue and the history, both in `folder`. runs: folder by name; most: jobs that may
    wait."""

    def __init__(
        self, folder: Path, runs: dict[str, Path], *, most: int = 20, device: str = "auto"
    ):
        self.folder, self.runs, self.most, self.device = folder, runs, most, device
        self.lock = threading.RLock()
        self.news = threading.Condition(self.lock)
        self.known: dict[str, Job] = {}
        self.waiting: deque[str] = deque()
        self.coming = 0  # uploads on their way
        self.child: subprocess.Popen[str] | None = None
        self.current = ""  # id of the job that has the worker
        self.closing = False
        self.thread: threading.Thread | None = None
        self._remember()

    # -- what others ask ---------------------------------------------------------------------------
    def all(self) -> list[Job]:
        """The newest first."""
        with self.lock:
            return sorted(self.known.values(), key=lambda job: (job.created, job.id), reverse=True)

    def get(self, id: str) -> Job | None:
        return self.known.get(id)

    def place(self, job: Job) -> Path:
        return self.folder / job.id

    @contextlib.contextmanager
    def room(self) -> Iterator[Job]:
        """A place in the queue and an empty folder while an upload comes in; Fault QUEUE_FULL where
        none is left. The folder disappears unless the upload becomes a job."""
        with self.lock:
            if len(self.waiting) + self.coming >= self.most:
                raise Fault(FULL, f"{self.most} jobs wait already", "try again when one has ended")
            self.coming += 1
        job = Job(secrets.token_hex(16), "", "")
        try:
            (self.place(job) / "upload").mkdir(parents=True)
            yield job
        finally:
            with self.lock:
                self.coming -= 1
            if job.id not in self.known:
                shutil.rmtree(self.place(job), ignore_errors=True)

    def add(self, job: Job) -> None:
        """Queue a job whose files lie in its folder."""
        # Keeps their order.
        job.created = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with self.lock:
            self._note(job)
            self.known[job.id] = job
            self.waiting.append(job.id)
            self.news.notify_all()

    def cancel(self, job: Job) -> None:
        """Take it out of the queue, or end its worker; nothing happens to a job that has ended."""
        with self.lock:
            if job.ended:
                return
            running = job.status == RUNNING
            job.status, job.reason = CANCELLED, ""
            if running and self.child is not None:
                self.child.kill()  # its thread tidies up
            elif job.id in self.waiting:
                self.waiting.remove(job.id)
                self._tidy(job)

    def remove(self, job: Job) -> None:
        """Forget a job and delete its folder; running ones are cancelled, and stay."""
        with self.lock:
            self.cancel(job)
            if job.id != self.current:
                del self.known[job.id]
                shutil.rmtree(self.place(job), ignore_errors=True)

    # -- the thread that works ---------------------------------------------------------------------
    def start(self) -> None:
        self.thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """End the worker; a job that ran is failed, those that wait are taken up at the next
        start."""
        with self.lock:
            self.closing = True
            if self.child is not None:
                self.child.kill()
            self.news.notify_all()
        if self.thread is not None:
            self.thread.join(10)

    def _work(self) -> None:
        while True:
            with self.lock:
                while not (self.waiting or self.closing):
                    self.news.wait()
                if self.closing:
                    return
                job = self.known[self.waiting.popleft()]
                job.status, job.started, job.begun = RUNNING, now(), time.monotonic()
                self.current = job.id
            try:
                self._run(job)
            except OSError as error:
                self._end(
                    job,
                    FAILED,
                    f"error[OUTPUT]: {error.strerror or type(error).__name__}; free some space and"
                    " send it again",
                )
            except Exception as error:  # the queue outlives whatever one job brings out
                self._end(job, FAILED, f"error[INTERNAL]: {type(error).__name__}; a bug: report it")
            finally:
                with self.lock:
                    # Left behind by an error of ours.
                    if self.child is not None and self.child.poll() is None:
                        self.child.kill()
                        self.child.wait()
                    self.current, self.child = "", None

    def _run(self, job: Job) -> None:
        place = self.place(job)
        with self.lock:
            if job.ended:  # cancelled in between
                return self._tidy(job)
            self._note(job)
            self.child = self._worker(job)
        child, said, size = self.child, list[str](), 0
        assert child.stderr is not None and child.stdout is not None
        listener = threading.Thread(target=hear, args=(job, child.stdout, said), daemon=True)
        listener.start()
        with open(place / "log.txt", "w", encoding="utf-8") as log:
            for line in child.stderr:
                size += len(line)
                if size < LOG and not line.startswith("key: "):
                    log.write(line)
        code = child.wait()
        listener.join()
        error = said[-1] if said else ""
        if child.stdin is not None:
            child.stdin.close()
        if job.status == CANCELLED:
            self._end(job, CANCELLED, "")
        elif code in (0, SOME_FAILED):
            self._end(job, DONE if code == 0 else PARTLY, error)
        elif self.closing:
            self._end(job, FAILED, STOPPED)
        elif code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else -code
            self._end(
                job,
                FAILED,
                f"error[WORKER]: the worker was ended by {name}; often too little memory: "
                "send less at once, or use a machine with more",
            )
        else:
            self._end(
                job, FAILED, error or f"error[WORKER]: the worker ended with {code}; see the log"
            )
        say(f"job {job.id[:8]}: {job.status}")

    def _worker(self, job: Job) -> subprocess.Popen[str]:
        """`detect` on the files of a job. Everything temporary stays in the job's folder, the key
        of DICOM names among it: like the files it names, it goes when the job ends."""
        place = self.place(job).resolve()
        (place / "tmp").mkdir(exist_ok=True)
        sent = sorted((place / "upload").iterdir())
        words = [
            "detect",
            self.runs[job.run].resolve(),
            sent[0] if len(sent) == 1 else place / "upload",
            "--out",
            place / "found",
            "--device",
            self.device,
            "--key",
            place / "tmp" / "key.csv",
            *(f"--plugin={file}" for file in GIVEN),
        ]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "pseudohealthy.serve.worker", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(place / "tmp"), "PYTHONUNBUFFERED": "1"},
        )

    def _end(self, job: Job, status: str, reason: str) -> None:
        with self.lock:
            job.seconds = round(time.monotonic() - job.begun, 1) if job.begun else 0.0
            job.status, job.reason = status, reason
            if status in (DONE, PARTLY):
                self._read_findings(job)
            self._tidy(job)

    def _read_findings(self, job: Job) -> None:
        found = self.place(job) / "found"
        try:
            rows = json.loads((found / "findings.json").read_text("utf-8"))["findings"]
        except (OSError, ValueError, KeyError):
            job.status = FAILED
            job.reason = "error[WORKER]: the worker left no findings.json; see the log"
            return
        keys = (
            "case_id",
            "score",
            "healthy_percentile",
            "healthy_cases",
            "volume_ml_above",
            "n_regions",
            "status",
            "warnings",
        )
        poor = [row for row in rows if row.get("status") in ("skipped", "failed")]
        job.refused = [
            f"{row['case_id']}: {row.get('warnings') or 'failed'}" for row in poor[:NAMED]
        ]
        if len(poor) > NAMED:
            job.refused.append(f"and {len(poor) - NAMED} more, see the report")
        # Files that are no scans are no cases.
        rows = [row for row in rows if row.get("status") != "skipped"]
        job.count, job.foreign = len(rows), foreign(rows)
        job.findings = [{key: row.get(key) for key in keys} for row in rows[:SHOWN]]
        for row in job.findings:
            row["page"] = (found / str(row["case_id"]) / "case.html").is_file()

    def _tidy(self, job: Job) -> None:
        """What was sent is not kept; nor is what a job left unfinished."""
        for name in ("upload", "tmp", *(() if job.status in (DONE, PARTLY) else ("found",))):
            shutil.rmtree(self.place(job) / name, ignore_errors=True)
        self._note(job)

    # -- the record --------------------------------------------------------------------------------
    def _note(self, job: Job) -> None:
        kept = {k: v for k, v in asdict(job).items() if k not in ("done", "total", "left", "begun")}
        with contextlib.suppress(Fault):  # a full disk must not end the queue
            write_json(self.place(job) / "job.json", kept)

    def _remember(self) -> None:
        """The jobs of earlier starts. Those that waited wait again; what ran has failed; unfinished
        uploads go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = {item.name for item in fields(Job)}
        for place in sorted(self.folder.iterdir()):
            if place.is_symlink() or not place.is_dir() or not ID.fullmatch(place.name):
                continue
            try:
                said = json.loads((place / "job.json").read_text("utf-8"))
                job = Job(**{k: v for k, v in said.items() if k in names})
                if job.id != place.name:
                    continue
            except (OSError, ValueError, TypeError, AttributeError):
                shutil.rmtree(place, ignore_errors=True)
                continue
            self.known[job.id] = job
            for packed in place.glob("outputs-*.zip"):  # a download that was cut off
                packed.unlink(missing_ok=True)
            if job.status == WAITING and job.run not in self.runs:
                job.status = FAILED
                job.reason = f"error[RUN]: run '{job.run}' is not served any more; send it again"
            elif job.status == RUNNING:
                job.status, job.reason = FAILED, STOPPED
            else:
                continue
            self._tidy(job)
        self.waiting.extend(j.id for j in reversed(self.all()) if j.status == WAITING)


def hear(job: Job, lines: Iterable[str], said: list[str]) -> None:
    """Take over what a worker tells, see `serve.worker`, its errors into `said`. Lines that are
    none of its, as half a line of a killed one, are passed over."""
    for line in lines:
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        match facts:
            case {
                "doing": "detecting",
                "done": int(done),
                "total": int(total),
                "seconds_left": int(left) | float(left),
            }:
                job.done, job.total, job.left = done, total, duration(left)
            case {"beside": str(beside)}:
                job.beside = beside
            case {"error": str(error)}:
                said.append(error)
