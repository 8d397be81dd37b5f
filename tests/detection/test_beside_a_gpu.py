"""Beside a GPU a thread reads and writes while the network computes; what is written is the
same."""

from __future__ import annotations

import csv
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blobs import picture
from pseudohealthy.detection import worker
from pseudohealthy.errors import Fault
from pseudohealthy.workflows.detect import detect

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("unpainted")]


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "findings.csv", newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


@pytest.fixture
def inputs(tmp_path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(5):
        Image.fromarray(picture(np.random.default_rng(seed))[0]).save(folder / f"{seed}.png")
    (folder / "3-broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def threads(monkeypatch) -> set[str]:
    """The branch of a GPU; the names of the threads that wrote findings."""
    seen: set[str] = set()
    store = worker.store

    def watched(*given: object) -> None:
        seen.add(threading.current_thread().name)
        store(*given)

    monkeypatch.setattr(worker, "OVERLAP", ("cpu", "cuda"))
    monkeypatch.setattr(worker, "store", watched)
    return seen


def test_rows_and_files_are_those_without_a_thread(
    inputs, threads, monkeypatch, tiny_run, tmp_path
):
    how = {"kinds": ["volumes", "json"], "batch": 1, "precision": "fp32"}
    found = detect(tiny_run, [inputs], tmp_path / "beside", **how)
    assert found.exit == 4 and threads and threading.main_thread().name not in threads
    monkeypatch.setattr(worker, "OVERLAP", ())
    detect(tiny_run, [inputs], tmp_path / "plain", device="cpu", **how)
    ours, theirs = rows(tmp_path / "beside"), rows(tmp_path / "plain")
    assert [row["case_id"] for row in ours] == [row["case_id"] for row in theirs] and len(ours) == 6
    for one, other in zip(ours, theirs, strict=True):
        assert one["status"] == other["status"]
        assert float(one["score"] or 0) == pytest.approx(float(other["score"] or 0), abs=1e-3)
    names = [
        {path.relative_to(out) for path in out.rglob("*")}
        for out in (tmp_path / "beside", tmp_path / "plain")
    ]
    assert names[0] == names[1]


def test_a_fault_of_the_thread_ends_the_command(inputs, threads, monkeypatch, tiny_run, tmp_path):
    def full(*_: object) -> None:
        raise Fault("OUTPUT", "the disk is full", "make room", exit=6)

    monkeypatch.setattr(worker, "store", full)
    with pytest.raises(Fault, match="the disk is full"):
        detect(tiny_run, [inputs], tmp_path / "out", kinds=["json"], batch=1)
