"""Many inputs, killed and resumed: one row each, nothing lost, nothing done twice, memory flat."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest
from PIL import Image

from pseudohealthy import io
from pseudohealthy.detection import rows as rows_of_detect
from pseudohealthy.detection import worker
from pseudohealthy.detection.finding import Finding
from pseudohealthy.errors import BAD_OUTPUT, Fault
from pseudohealthy.workflows.detect import MOST_SHOWN, detect, write_results

pytestmark = pytest.mark.usefixtures("unpainted")

BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "archive_scale.py"


def archive_scale() -> ModuleType:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("archive_scale", BENCHMARK)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_thirty_inputs_killed_and_resumed(tiny_run, tmp_path, monkeypatch, program):
    benchmark = archive_scale()
    # Without python -m pseudohealthy.
    started = SimpleNamespace(Popen=lambda line, **_: program(*line[3:]))
    monkeypatch.setattr(benchmark, "subprocess", started)
    monkeypatch.setattr(os, "killpg", os.kill)
    found = benchmark.measure(30, tmp_path, ["json"], 1, tiny_run, [])
    assert found["wrong"] == []
    first, second = found["legs"]
    assert (
        first["exit"] == -9 and 0 < first["cases"] < 30 and first["cases"] + second["cases"] == 30
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_inputs_killed_twice_in_flat_memory(tiny_run):
    line = [sys.executable, BENCHMARK, "1000", "--run", tiny_run, "--kills", "2", "--json"]
    done = subprocess.run(
        list(map(str, line)),
        capture_output=True,
        text=True,
        timeout=3500,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    grown = [leg["mb_per_1000"] for leg in found["legs"] if leg["mb_per_1000"] is not None]
    assert grown and max(grown) < 20, "MB per 1,000 cases"


def test_what_failed_holds_on_to_nothing(tiny_run, tmp_path, monkeypatch):
    """A fault's traceback would keep every array that the reader had in hand."""
    (tmp_path / "a.png").write_bytes(b"no picture")
    Image.new("L", (20, 20), 7).save(tmp_path / "b.png")
    found = detect(
        tiny_run, [tmp_path / "a.png", tmp_path / "b.png"], tmp_path / "out", device="cpu"
    )
    assert len(found.faults) == 2
    assert all(
        fault.__traceback__ is fault.__context__ is fault.__cause__ is None
        for fault in found.faults
    )


def test_half_written_files_of_a_killed_process_are_gone_after_the_resumption(
    tiny_run, pictures, tmp_path
):
    detect(tiny_run, [pictures / "test" / "bad"], tmp_path / "out", kinds=["json"], device="cpu")
    case = next(path for path in (tmp_path / "out").iterdir() if path.is_dir())
    (case / "case.json").unlink()
    for name in (".tmp-123-0a1b2c3d.json", ".tmp-of-mine"):
        (case / name).write_text("half")
    found = detect(
        tiny_run,
        [pictures / "test" / "bad"],
        tmp_path / "out",
        kinds=["json"],
        device="cpu",
        resume_finished=True,
    )
    assert found.exit == 0 and sorted(p.name for p in case.iterdir()) == [
        ".tmp-of-mine",
        "case.json",
    ]


def test_the_report_shows_the_most_urgent_rows_and_the_table_has_all(tmp_path):
    rows = [
        rows_of_detect.blank(f"c{i}") | {"score": float(i), "status": "ok"}
        for i in range(MOST_SHOWN + 9)
    ]
    rows.append(rows_of_detect.blank("broken") | {"status": "failed", "warnings": "TRUNCATED"})
    write_results(rows_of_detect.Detections(tmp_path, rows), {"run": "r"}, ())
    page = (tmp_path / "report.html").read_text()
    assert page.count("<tr class=") == MOST_SHOWN and ">broken<" in page and ">c9<" not in page
    assert (
        f"the first {MOST_SHOWN:,} of {len(rows):,} rows are shown" in page
        and "the table beside this page has all" in page
    )
    assert len((tmp_path / "findings.csv").read_text().splitlines()) == len(rows) + 1


def test_finding_many_series_takes_time_in_proportion(tmp_path, monkeypatch):
    """300 files that begin like DICOM: comparing each with all of them would hash 90,000 paths."""
    for number in range(300):
        (tmp_path / f"{number}.dcm").write_bytes(bytes(128) + b"DICM")
    hashed, real = [0], Path.__hash__

    def counted(self: Path) -> int:
        hashed[0] += 1
        return real(self)

    monkeypatch.setattr(Path, "__hash__", counted)
    with pytest.raises(Fault, match="NO_INPUT"):
        io.discover([tmp_path])
    assert hashed[0] < 10 * 300


@pytest.mark.slow
def test_a_share_whose_process_is_killed_is_taken_up_by_torchrun(tiny_run, tmp_path):
    """As in docs/scale.md: --max-restarts begins all shares anew, --resume keeps what is
    finished."""
    contents = archive_scale().make_inputs(tmp_path / "in", 60)
    out = tmp_path / "out"
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--max-restarts",
        "2",
        "-m",
        "pseudohealthy",
        "detect",
        tiny_run,
        tmp_path / "in",
        "--out",
        out,
        "--device",
        "cpu",
        "--kinds",
        "json",
        "--batch",
        "1",
        "--resume",
    ]
    process = subprocess.Popen(
        list(map(str, line)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while process.poll() is None and len(list(out.glob("*/case.json"))) < 15:
        time.sleep(0.02)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/case.json")}
    psutil.Process(process.pid).children()[-1].kill()
    said, errors = process.communicate(timeout=500)
    assert process.returncode == 0 and said.count("inputs:") == 1, errors[-2000:]
    assert len(before) < 60 and archive_scale().check_rows(out, contents) == []
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.slow
def test_reading_and_writing_beside_the_network_change_nothing(
    tiny_run, pictures, tmp_path, monkeypatch
):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    inputs, threads = [tmp_path / "broken.png", pictures / "test"], set()
    store = worker.store
    found = {}
    for name, devices in (("plain", ()), ("beside", ("cpu",))):
        monkeypatch.setattr(worker, "OVERLAP", devices)
        monkeypatch.setattr(
            worker, "store", lambda *given: (threads.add(threading.get_ident()), store(*given))
        )
        found[name] = detect(
            tiny_run, inputs, tmp_path / name, kinds=["json", "panel"], device="cpu", batch=2
        )
    rows = {
        name: [{k: v for k, v in row.items() if k != "seconds"} for row in result.rows]
        for name, result in found.items()
    }
    assert rows["plain"] == rows["beside"] and len(rows["plain"]) > 5
    assert len(threads) == 2, "both ways were taken"
    files = [
        sorted(p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*.png"))
        for name in found
    ]
    assert files[0] == files[1] and files[0]


def test_a_disk_that_fills_beside_the_network_ends_the_run_and_keeps_what_is_written(
    tiny_run, pictures, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker, "OVERLAP", ("cpu",))
    save, saved = Finding.save, []

    def full(finding, *given):
        if len(saved) == 3:
            raise Fault("OUTPUT", "no space left", "free some", exit=BAD_OUTPUT)
        saved.append(finding.case_id)
        return save(finding, *given)

    monkeypatch.setattr(Finding, "save", full)
    with pytest.raises(Fault, match="no space left"):
        detect(
            tiny_run, [pictures / "test"], tmp_path / "out", kinds=["json"], device="cpu", batch=1
        )
    rows = (tmp_path / "out" / "findings.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == sorted(saved) and len(saved) == 3
