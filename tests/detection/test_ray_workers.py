"""`detect --engine ray`: the rows and outputs of the plain engine, whatever happens to the
workers."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy.detection import ray_workers, worker
from pseudohealthy.detection.finding import Finding
from pseudohealthy.errors import Fault
from pseudohealthy.io import Source
from pseudohealthy.workflows.detect import detect

pytestmark = pytest.mark.usefixtures("unpainted")


@pytest.fixture
def ray():
    """Tests that need a cluster skip, and say so, without the extra."""
    return pytest.importorskip("ray", reason="ray (extra `ray`) is not installed")


def make(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        Image.fromarray(picture(np.random.default_rng(seed))[0]).save(folder / f"{seed:03d}.png")
    return folder


def table(out: Path) -> list[dict[str, str]]:
    """findings.csv without the time it took."""
    with open(out / "findings.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def outputs(out: Path) -> dict[str, bytes | dict]:
    """Every file of the cases; of case.json everything but the time it took."""
    found: dict[str, bytes | dict] = {}
    for path in sorted(out.glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        found[name] = path.read_bytes()
        if path.name == "case.json":
            found[name] = {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
    return found


class Kill(BaseException):
    """Raised inside a worker, it is lost, as by a signal: no guard for exceptions sees it."""


class Rehearsal:
    """What `engines.work` uses of ray, in this process: workers die when they raise `Kill`."""

    class exceptions:
        class RayError(Exception):
            actor_init_failed = False

        class RayTaskError(RayError):
            cause: Exception | None = None

    def __init__(self):
        self.hired, self.most, self.done = 0, 0, []

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": 2.0}}]

    def remote(self, made):
        kind = SimpleNamespace(remote=lambda *given: self._hire(made, given))
        return SimpleNamespace(options=lambda **how: kind)

    def _hire(self, made, given):
        self.hired += 1
        worker: list = []

        def do(*task):
            def work():
                if not worker:
                    worker.append(made(*given))
                return worker[0].do(*task)

            return work

        return SimpleNamespace(do=SimpleNamespace(remote=do))

    def wait(self, running, timeout):
        self.most = max(self.most, len(running))
        return [running[-1]], running[:-1]

    def get(self, work):
        try:
            part, stop = work()
        except Kill:
            raise self.exceptions.RayError from None
        except Exception as error:
            wrapped = self.exceptions.RayTaskError()
            wrapped.cause = error
            raise wrapped from None
        self.done += [row["case_id"] for row in part.rows]
        return part, stop


@pytest.fixture
def rehearsed(monkeypatch):
    """Detect with engine ray but without a cluster; the function takes what a worker does before
    its task."""
    stage = Rehearsal()
    monkeypatch.setattr(ray_workers, "require_ray", lambda: stage)
    monkeypatch.setattr(ray_workers, "cluster", lambda workers: contextlib.nullcontext(stage))
    monkeypatch.setattr(ray_workers, "TASKS_EACH", 1)

    def run(before, *given, **how) -> worker.Detections:
        class Acting(ray_workers.Worker):
            def do(self, sources, again):
                before(self, [source.case_id for source in sources])
                return super().do(sources, again)

        monkeypatch.setattr(ray_workers, "Worker", Acting)
        return detect(*given, engine="ray", workers=2, device="cpu", kinds=["json"], batch=1, **how)

    run.stage = stage
    return run


def test_what_a_lost_worker_had_in_hand_is_given_to_another_and_nothing_is_done_twice(
    rehearsed, tiny_run, tmp_path, monkeypatch, capsys
):
    """Lost after its second case: the two stay as they are, the others of its task follow, in input
    order."""
    saved, save = [], Finding.save

    def killed(self, *given):
        if len(saved) == 2:
            saved.append("")
            raise Kill
        saved.append(self.case_id)
        return save(self, *given)

    monkeypatch.setattr(Finding, "save", killed)
    found = rehearsed(lambda *_: None, tiny_run, [make(tmp_path / "in", 9)], tmp_path / "out")
    assert found.exit == 0 and [row["case_id"] for row in found.rows] == [
        f"{k:03d}" for k in range(9)
    ]
    assert sorted(filter(None, saved)) == [f"{k:03d}" for k in range(9)], "each saved once"
    assert rehearsed.stage.hired == 3 and rehearsed.stage.most <= 2, "one task in hand per worker"
    assert capsys.readouterr().err.count("a worker was lost") == 1


def test_an_input_that_loses_its_workers_is_a_failed_row(rehearsed, tiny_run, tmp_path):
    def poisoned(_, names):
        if "003" in names:
            raise Kill

    found = rehearsed(poisoned, tiny_run, [make(tmp_path / "in", 8)], tmp_path / "out")
    assert found.exit == 4 and [row["case_id"] for row in found.rows] == [
        f"{k:03d}" for k in range(8)
    ]
    assert [row["case_id"] for row in found.rows if row["status"] == "failed"] == ["003"]
    assert (
        "WORKER_LOST" in found.rows[3]["warnings"]
        and rehearsed.stage.hired == 2 + ray_workers.TRIES
    )


@pytest.mark.parametrize(
    "what, code, number", [("always", "ENGINE", 7), ("bug", "INTERNAL", 1), ("full", "OUTPUT", 6)]
)
def test_what_is_not_the_inputs_ends_the_command(
    rehearsed, tiny_run, tmp_path, monkeypatch, what, code, number
):
    def happens(_, names):
        if what == "always":
            raise Kill
        if what == "bug" and names:
            raise ZeroDivisionError

    def full(self, *given):
        raise Fault("OUTPUT", "cannot write", exit=6)

    if what == "full":
        monkeypatch.setattr(Finding, "save", full)
    with pytest.raises(Fault) as caught:
        rehearsed(happens, tiny_run, [make(tmp_path / "in", 4)], tmp_path / "out")
    assert (caught.value.code, caught.value.exit) == (code, number)
    assert (tmp_path / "out" / "findings.csv").is_file()


@pytest.mark.services
def test_rows_and_outputs_are_those_of_the_plain_engine_bit_for_bit(ray, tiny_run, tmp_path):
    inputs = make(tmp_path / "in", 6)
    (inputs / "broken.png").write_bytes(b"no picture")
    how = {"kinds": ["volumes", "json"], "batch": 1, "device": "cpu"}
    plain = detect(tiny_run, [inputs], tmp_path / "plain", **how)
    found = detect(tiny_run, [inputs], tmp_path / "ray", engine="ray", workers=2, **how)
    assert found.exit == plain.exit == 4 and not ray.is_initialized()
    assert table(tmp_path / "ray") == table(tmp_path / "plain")
    assert (
        outputs(tmp_path / "ray") == outputs(tmp_path / "plain")
        and len(outputs(tmp_path / "ray")) == 24
    )
    again = detect(tiny_run, [inputs], tmp_path / "ray", resume_finished=True, **how)
    assert table(tmp_path / "ray") == table(tmp_path / "plain") and len(again.faults) == 1, (
        "one request for both"
    )


@pytest.mark.services
@pytest.mark.slow
def test_a_worker_killed_midway_loses_nothing_and_nothing_is_done_twice(ray, tiny_run, tmp_path):
    count = 60
    inputs, out = make(tmp_path / "in", count), tmp_path / "out"
    line = [
        sys.executable,
        "-m",
        "pseudohealthy",
        "detect",
        tiny_run,
        inputs,
        "--out",
        out,
        "--device",
        "cpu",
        "--kinds",
        "json",
        "--batch",
        "1",
        "--engine",
        "ray",
        "--workers",
        "2",
    ]
    process = subprocess.Popen(
        list(map(str, line)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def workers() -> list[psutil.Process]:
        found = psutil.Process(process.pid).children(recursive=True)
        return [child for child in found if child.name().startswith("ray::Worker")]

    def done() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("*/case.json")}

    while process.poll() is None and len(done()) < count // 4:
        time.sleep(0.01)
    before, victims = done(), workers()
    assert victims, "a worker at work"
    victims[0].kill()
    _, said = process.communicate(timeout=500)
    assert process.returncode == 0, said[-2000:]
    assert "a worker was lost" in said and len(before) < count
    assert [row["case_id"] for row in table(out)] == [f"{k:03d}" for k in range(count)]
    assert {row["status"] for row in table(out)} == {"ok"}
    after = done()
    assert len(after) == count and all(after[path] == when for path, when in before.items())
    assert list(out.rglob(".tmp-*")) == []


def test_without_ray_it_is_said_before_anything_is_written(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [make(tmp_path / "in", 1)], tmp_path / "out", device="cpu", engine="ray")
    assert (caught.value.code, caught.value.exit) == ("EXTRA", 2) and "pseudohealthy[ray]" in str(
        caught.value
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "how", [{"engine": "spark"}, {"workers": 2}, {"engine": "ray", "workers": 0}]
)
def test_what_makes_no_sense_is_refused(tiny_run, tmp_path, how):
    with pytest.raises(Fault) as caught:
        detect(tiny_run, [make(tmp_path / "in", 1)], tmp_path / "out", device="cpu", **how)
    assert (caught.value.code, caught.value.exit) == ("USAGE", 2) and not (
        tmp_path / "out"
    ).exists()


def test_tasks_hold_every_input_once_in_order_and_few_enough_for_all_workers():
    sources = [Source(str(k), "raster", (Path(f"{k}.png"),)) for k in range(1000)]
    for workers in (1, 2, 7, 200):
        made = list(ray_workers.tasks(sources, workers))
        assert [source.case_id for task in made for source in task] == [str(k) for k in range(1000)]
        assert max(map(len, made)) <= ray_workers.CHUNK and len(made) >= min(workers, 1000)
        assert all(source.paths[0].is_absolute() for task in made for source in task)


@pytest.mark.parametrize(
    "nodes, workers, gpu, expected",
    [
        ([(2, 0)], None, False, (1, 2, 0)),
        ([(2, 0)], 2, False, (2, 1, 0)),
        ([(2, 0)], 9, False, (2, 1, 0)),
        ([(16, 0)] * 4, None, False, (16, 4, 0)),
        ([(10, 0)] * 2, 3, False, (3, 5, 0)),
        ([(10, 0)] * 4, 1, False, (1, 10, 0)),
        ([(16, 4), (16, 4), (8, 0)], None, True, (8, 4, 1)),
        ([(16, 4), (8, 2)], None, True, (4, 4, 1)),
    ],
)
def test_workers_fit_on_the_nodes(nodes, workers, gpu, expected):
    told = [{"Alive": True, "Resources": {"CPU": c, "GPU": g}} for c, g in nodes]
    told.append({"Alive": False, "Resources": {"CPU": 1.0}})
    assert ray_workers.room(told, workers, gpu) == expected


def test_a_cluster_without_what_is_asked_for_is_said():
    with pytest.raises(Fault) as caught:
        ray_workers.room([{"Alive": True, "Resources": {"CPU": 8.0}}], None, True)
    assert (caught.value.code, caught.value.exit) == ("ENGINE", 7)
