"""Where faults are staged: an empty folder for each row, three small runs, and the program in this
process or its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from faults.scoring import TABLE, Done, Result, Row
from pseudohealthy.__main__ import main

HANG = 120.0  # seconds after which a command of seconds counts as hanging
TINY = """
name = "tiny"
[canvas]
size = 16
normalise = "range"
value_range = [0, 255]
foreground = "all"
[restorer]
name = "ddpm"
levels = 50
depths = [15]
steps = 3
network = {width = 8, multipliers = [1, 2], blocks = 1, groups = 4}
[training]
steps = 12
batch = 4
validate = 4
precision = "fp32"
[map]
quantile = 0.95
"""
HEADS = """
name = "heads"
[canvas]
size = 32
normalise = "%s"
foreground = "%s"
%s
[restorer]
name = "intensity"
[training]
batch = 2
"""


class Hang(BaseException):
    """Not an Exception: nothing in the program may catch it."""


class Stage:
    """root: a folder of its own for the session; `folder` is new for every row."""

    def __init__(self, root: Path):
        self.root, self.folder = root, root / "nothing"
        self.pictures, self.runs = root / "pictures", root / "runs"
        self.tiny, self.ct, self.mr = (self.runs / name for name in ("tiny", "ct", "mr"))

    def build(self) -> Stage:
        """Data and runs that every row starts from, made with the program itself."""
        from faults.material import blobs, heads

        blobs(self.pictures)
        heads(self.root / "ct-heads", "CT")
        heads(self.root / "mr-heads", "MR")
        window = 'windows = ["brain"]'
        for run, text, data in (
            (self.tiny, TINY, self.pictures),
            (self.ct, HEADS % ("window", "head-ct", window), self.root / "ct-heads"),
            (self.mr, HEADS % ("percentile", "auto", ""), self.root / "mr-heads"),
        ):
            recipe = self.root / f"{run.name}.toml"
            recipe.write_text(text)
            done = self.run(
                "train",
                recipe,
                "--data",
                data,
                "--out",
                run,
                "--device",
                "cpu",
                "--quiet",
                hang=300,
            )
            assert done.exit == 0, done.err
        return self

    def new(self, name: str) -> Path:
        """An empty folder for a row."""
        self.folder = self.root / "rows" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        return self.folder

    def out(self) -> Path:
        """A name for an output folder that is not there yet."""
        return self.folder / f"out-{time.monotonic_ns()}"

    # -- the program -------------------------------------------------------------------------------
    def run(self, *words: object, hang: float = HANG) -> Done:
        """The command line in this process."""
        from pseudohealthy import progress

        out, err = io.StringIO(), io.StringIO()
        before, _ = memory(), sys.stdout.flush()

        def stop(*_: object) -> None:
            raise Hang

        old = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, hang)
        begun = time.monotonic()
        code: int | None
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main([str(word) for word in words])
        except Hang:
            code = None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
            progress.quiet = progress.debug = False
        seconds = time.monotonic() - begun
        return Done(code, out.getvalue(), err.getvalue(), seconds, peak() - before)

    def process(
        self,
        *words: object,
        hang: float = 2 * HANG,
        limit: Mapping[int, int] | None = None,
        environment: Mapping[str, str | None] | None = None,
        prelude: str = "",
        act: Callable[[subprocess.Popen], None] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """The program as its own process. limit: resource limits; prelude: Python that runs first;
        act: what is done to it meanwhile; environment: variables, None to remove one."""
        code = (
            f"{prelude}\nimport sys\nfrom pseudohealthy.__main__ import run\nsys.argv[0] ="
            " 'pseudohealthy'\nrun()"
        )
        variables = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
            **(environment or {}),
        }

        def limited() -> None:
            for what, size in (limit or {}).items():
                resource.setrlimit(what, (size, size))

        begun = time.monotonic()
        with open(self.folder / "stdout", "w+") as out, open(self.folder / "stderr", "w+") as err:
            child = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, words)],
                stdout=out,
                stderr=err,
                preexec_fn=limited,
                cwd=cwd,
                env={k: v for k, v in variables.items() if v is not None},
            )
            try:
                if act is not None:
                    act(child)
                exit: int | None = child.wait(hang)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                exit = None
            for file in (out, err):
                file.seek(0)
            return Done(exit, out.read(), err.read(), time.monotonic() - begun)

    def detect(
        self,
        *inputs: object,
        run: Path | None = None,
        out: Path | None = None,
        options: tuple = (),
        kinds: tuple[str, ...] = ("json",),
        **how: Any,
    ) -> Done:
        """`detect` of the CT run; rows come as JSON on standard output."""
        words = (
            "detect",
            run or self.ct,
            *inputs,
            "--out",
            out or self.out(),
            "--device",
            "cpu",
            "--json",
        )
        return self.run(*words, "--kinds", *kinds, *options, **how)

    def inspect(self, path: Path) -> Done:
        return self.run("inspect", path, "--json")


def rows_of(done: Done) -> dict[str, dict[str, Any]]:
    """Rows of a `detect --json` or `inspect --json` by case id; empty where it printed none."""
    try:
        said = json.loads(done.out)
    except ValueError:
        return {}
    return {row["case_id"]: row for row in said.get("findings", said.get("inputs", []))}


def only(done: Done) -> dict[str, Any]:
    """The one row that is not a skipped file; empty where there is none."""
    found = [row for row in rows_of(done).values() if row["status"] != "skipped"]
    return found[0] if len(found) == 1 else {}


def memory() -> float:
    """MB in memory now; the peak is counted from here."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    return _status("VmHWM")


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return np.nan


def play(row: Row, stage: Stage) -> Result:
    """Stage one row and score it."""
    begun = time.monotonic()
    stage.new(row.id)
    trials = list(row.act(stage))
    assert trials, f"row {row.id} has no trial"
    worst = min(trials, key=lambda trial: trial.score())
    score = worst.score()
    missed = [word for trial in trials if trial.score() < 2 for word in trial.missed()]
    codes = list(dict.fromkeys(code for trial in trials for code in trial.done.codes))
    exits = dict.fromkeys(
        "hang" if t.done.exit is None else str(t.done.exit) for t in trials if not t.absent
    )
    got = (
        [f"exit {'/'.join(exits)}" + (f" {' '.join(codes[:4])}" if codes else "")] if exits else []
    )
    got += ["but " * bool(got) + ", ".join(dict.fromkeys(missed))] if missed else []
    return Result(row, score, "; ".join(got), time.monotonic() - begun)


def table() -> dict[str, Row]:
    """All rows, in the order of the table."""
    from faults import (  # noqa: F401
        checkpoints,
        dicom_folders,
        dicoms,
        lists,
        machines,
        masks,
        niftis,
        pictures,
        privacy,
        reports,
        runtime,
        saving,
        settings,
        usage,
        volumes,
        web,
    )

    order = {letter: place for place, letter in enumerate("NDPCKRSWVU")}
    return dict(sorted(TABLE.items(), key=lambda item: (order[item[0][0]], int(item[0][1:]))))
