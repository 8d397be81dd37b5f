"""Ctrl-C and SIGTERM leave the rows so far, one line and exit 130, whenever they come."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pseudohealthy.detection import worker
from pseudohealthy.signals import PAUSE, Stop
from pseudohealthy.workflows.detect import detect, write_results

pytestmark = pytest.mark.usefixtures("unpainted")

MANY = 300  # pictures: far more than are done before the signal comes


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for number in range(MANY):
        Image.fromarray(rng.integers(0, 255, (48, 48)).astype(np.uint8)).save(
            folder / f"{number:03d}.png"
        )
    return folder


def process(*words: object, more: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """The program, its imports included."""
    line = [sys.executable, *more, "-m", "pseudohealthy", *map(str, words)]
    return subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def stopped(
    child, out: Path, *, pattern: str, seconds: float, signals: list[int]
) -> tuple[int, str]:
    """Exit code and last words of a process that is sent signals `seconds` after a file of this
    pattern is there."""
    end = time.monotonic() + 120
    while (
        pattern and not list(out.glob(pattern)) and child.poll() is None and time.monotonic() < end
    ):
        time.sleep(0.02)
    time.sleep(seconds)
    for number in signals:
        child.send_signal(number)
        time.sleep(0.1)
    try:
        _, said = child.communicate(timeout=120)
    finally:
        child.kill()
    return child.returncode, said


def words(run: Path, inputs: Path, out: Path, *more: str) -> list:
    return [
        "detect",
        run,
        inputs,
        "--out",
        out,
        "--device",
        "cpu",
        "--batch",
        "1",
        "--kinds",
        "json",
        *more,
    ]


def rows(out: Path) -> list[str]:
    with open(out / "findings.csv", newline="", encoding="utf-8") as file:
        return [row["case_id"] for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "pattern, signals",
    [
        ("*/case.json", [signal.SIGINT]),
        ("*/case.json", [signal.SIGTERM]),
        ("*/case.json", [signal.SIGINT, signal.SIGINT, signal.SIGTERM]),
        pytest.param("*", [signal.SIGTERM], id="while the first inputs are read"),
    ],
)
def test_rows_so_far_one_line_and_exit_130(tiny_run, inputs, tmp_path, pattern, signals, program):
    out = tmp_path / "out"
    child = program(*words(tiny_run, inputs, out))
    code, said = stopped(child, out, pattern=pattern, seconds=0.05, signals=signals)
    assert code == 130, said
    done = sorted(path.parent.name for path in out.glob("*/case.json"))
    assert sorted(rows(out)) == done and len(done) < MANY
    assert said.count("error[") == 1 and "Traceback" not in said
    assert (
        f"error[INTERRUPTED]: stopped; {len(done)} of {MANY} cases are done" in said
        and "--resume goes on" in said
    )
    assert json.loads((out / "findings.json").read_text())["not_done"] == MANY - len(done)
    assert (out / "report.html").is_file() and not list(out.rglob(".tmp*"))


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(0.5, marks=pytest.mark.slow), 1.5, pytest.param(3.0, marks=pytest.mark.slow)],
)
def test_while_the_program_loads_it_ends_with_a_word_and_leaves_nothing(
    tiny_run, inputs, tmp_path, seconds
):
    out = tmp_path / "out"
    child = process(*words(tiny_run, inputs, out))
    code, said = stopped(child, out, pattern="", seconds=seconds, signals=[signal.SIGTERM])
    assert code == 130 and said.count("error[INTERRUPTED]") == 1 and "Traceback" not in said
    assert not out.exists() or (out / "findings.csv").is_file()


@pytest.mark.slow
def test_ranks_of_torchrun_leave_the_rows_of_all(tiny_run, inputs, tmp_path):
    out = tmp_path / "out"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    child = process(*words(tiny_run, inputs, out), more=torchrun)
    _, said = stopped(child, out, pattern="*/case.json", seconds=1, signals=[signal.SIGTERM])
    assert "error[INTERRUPTED]: stopped; " in said and said.count("error[INTERRUPTED]") == 1
    assert sorted(rows(out)) == sorted(path.parent.name for path in out.glob("*/case.json"))


def test_after_an_interruption_resume_does_the_rest(tiny_run, pictures, tmp_path, monkeypatch):
    from pseudohealthy.detection import finding

    save, out, names = finding.Finding.save, tmp_path / "out", []

    def once(self, *given):
        if len(names) == 3:
            names.append("")
            raise KeyboardInterrupt
        names.append(self.case_id)
        return save(self, *given)

    monkeypatch.setattr(finding.Finding, "save", once)
    with pytest.raises(KeyboardInterrupt, match="3 of 52 cases are done"):
        detect(tiny_run, [pictures], out, batch=1, kinds=["json"], device="cpu")
    assert len(rows(out)) == 3
    found = detect(tiny_run, [pictures], out, kinds=["json"], device="cpu", resume_finished=True)
    assert found.exit == 0 and len({*names} - {""}) == 52 == len(names) - 1, "none was done twice"


def test_an_interruption_that_a_library_swallowed_ends_the_batch(
    tiny_run, pictures, tmp_path, monkeypatch
):
    from pseudohealthy import io

    read = io.read

    def swallowing(source, **how):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("half a library") from None
        return read(source, **how)

    monkeypatch.setattr(io, "read", swallowing)
    with pytest.raises(KeyboardInterrupt, match="0 of 52"):
        detect(tiny_run, [pictures], tmp_path / "out", kinds=["json"], device="cpu")
    assert rows(tmp_path / "out") == []


def test_rows_that_are_being_written_are_written_to_their_end(
    tiny_run, pictures, tmp_path, monkeypatch
):
    write = write_results

    def bothered(*given):
        signal.raise_signal(signal.SIGINT)
        write(*given)

    monkeypatch.setattr("pseudohealthy.workflows.detect.write_results", bothered)
    found = detect(tiny_run, [pictures], tmp_path / "out", kinds=["json"], device="cpu")
    assert len(rows(tmp_path / "out")) == len(found.rows) == 52


def test_a_rank_that_is_gone_costs_no_row(tiny_run, pictures, tmp_path, monkeypatch):
    """Its finished cases are found in their folders, and its end is told."""
    from pseudohealthy.detection import interrupted
    from pseudohealthy.errors import Fault
    from pseudohealthy.processes import World

    out = tmp_path / "out"
    found = detect(tiny_run, [pictures], out, kinds=["json"], device="cpu")
    kept = worker.Detections(out)
    kept.rows = found.rows[::2]
    world = World(0, 2, torch.device("cpu"))

    def gone(part):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(World, "gather", lambda self, part: gone(part))
    monkeypatch.setattr(interrupted, "GRACE", 0.0)
    result, fault = interrupted.gathered(world, kept, None)
    assert isinstance(fault, Fault) and (fault.code, fault.exit) == ("ENGINE", 7)
    from pseudohealthy import io

    request = json.loads((out / found.rows[0]["case_id"] / "case.json").read_text())[
        "request_sha256"
    ]
    sources, _ = io.discover([pictures])
    interrupted.add_finished(sources, worker.Job(out, request), result, world)
    assert sorted(row["case_id"] for row in result.rows) == sorted(
        row["case_id"] for row in found.rows
    )


def test_a_signal_that_met_an_import_is_not_left_to_whoever_comes_after(monkeypatch):
    """The program has ended its work by then, and its exit code would be the signal's."""
    from pseudohealthy import signals

    after = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: after.append(number))
    try:
        stop = Stop()
        with pytest.raises(KeyboardInterrupt), stop:
            with monkeypatch.context() as patch:
                patch.setattr(signals, "importing", lambda frame: True)
                signal.raise_signal(signal.SIGTERM)
            stop.check()
        time.sleep(2 * signals.AGAIN)
        assert after == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_while_python_itself_ends_changes_nothing(tmp_path):
    """As torch's libraries do, something of the end runs Python code, and a signal meets it."""
    (tmp_path / "late.py").write_text(
        "import atexit, signal, sys\natexit.register(lambda: [signal.raise_signal(getattr(signal,"
        " name)) for name in ('SIGINT', 'SIGTERM')])\nfrom pseudohealthy import __main__ as"
        " program\ncode = int(sys.argv.pop())\ndef main():\n    if code == 130:"
        " signal.raise_signal(signal.SIGINT)\n    return code\ndef caught():\n    try: return"
        " main()\n    except KeyboardInterrupt: return 130\nprogram.main = caught\nprogram.run()\n"
    )
    for code in (0, 130):
        end = subprocess.run(
            [sys.executable, tmp_path / "late.py", str(code)], capture_output=True, text=True
        )
        assert (end.returncode, end.stderr) == (code, "")


def test_imports_are_never_interrupted_and_twice_in_a_row_is_once(monkeypatch, tmp_path):
    stop = Stop()
    with stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # within PAUSE: the same wish
        with pytest.raises(KeyboardInterrupt):
            stop.check()
        stop.last -= PAUSE
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    (tmp_path / "slowly_imported.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.1)\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with stop, pytest.raises(KeyboardInterrupt):
        import slowly_imported

        assert slowly_imported.whole and stop.seen
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
