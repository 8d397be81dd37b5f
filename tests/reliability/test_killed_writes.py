"""kill -9 in the middle of a write leaves the old file or the new one, whole, and nothing that
breaks the next command."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudohealthy.io.atomic import write_text
from pseudohealthy.io.output_folder import prepare_folder
from pseudohealthy.runs import checkpoint

SIZE = 2_000_000  # characters of a text: a write takes longer than a kill needs
KILLS = [15, pytest.param(200, marks=pytest.mark.slow)]
POINTS = ["before fsync", "before rename", "after rename"]


def killed(work: Callable[[], object], seconds: float, look: Callable[[], None]) -> None:
    """Do `work` again and again in a child of this process, kill it after `seconds`, and look at
    the file meanwhile."""
    child = os.fork()
    if child == 0:
        try:
            while True:
                work()
        finally:
            os._exit(1)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            look()
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was killed while it wrote, not ended by itself"
    look()


def half_written(folder: Path) -> int:
    """Temporary files of killed writers; they are removed as by the next command, so that the next
    kill is counted alone."""
    left = list(folder.glob(".tmp-*"))
    for path in left:
        path.unlink()
    return len(left)


def is_whole(path: Path) -> None:
    text = path.read_text()
    assert len(text) == SIZE and text == text[0] * SIZE, "a mixture, or half a file"


@pytest.mark.parametrize("kills", KILLS)
def test_a_text_is_always_the_old_or_the_new_one(tmp_path, kills):
    path, rng, hit, seen = tmp_path / "run.json", np.random.default_rng(0), 0, set()
    write_text(path, "0" * SIZE)
    for number in range(kills):
        letter = chr(ord("a") + number % 26)
        killed(
            lambda letter=letter: write_text(path, letter * SIZE),
            rng.uniform(0.001, 0.06),
            lambda: is_whole(path),
        )
        seen.add(path.read_text()[0])
        hit += bool(half_written(tmp_path))
    print(
        f"{kills} kills while a text of {SIZE} bytes was written: {hit} in the middle of a write, 0"
        " files broken"
    )
    assert hit >= kills // 10 and len(seen) > 1, (
        "the kills must hit, and some writes must get through"
    )


@pytest.mark.parametrize("kills", KILLS)
def test_a_checkpoint_is_always_the_old_or_the_new_one(tmp_path, kills):
    path, rng, hit, steps = tmp_path / "resume.safetensors", np.random.default_rng(1), 0, set()
    tensors = {f"layer{i}": torch.full((250, 250), 0.5) for i in range(8)}
    checkpoint.save(path, {k: v * 0 for k, v in tensors.items()}, {"step": 0})

    def is_one_state() -> None:
        found, state, _ = checkpoint.load(path)  # refuses what does not match its own sha256
        assert all(bool((v == state["step"]).all()) for v in found.values()), (
            "tensors and state of different writes"
        )
        steps.add(state["step"])

    for number in range(1, kills + 1):
        new = {k: torch.full_like(v, number) for k, v in tensors.items()}

        def work(new: dict = new, number: int = number) -> None:
            checkpoint.keep(path, tmp_path / "resume-previous.safetensors")
            checkpoint.save(path, new, {"step": number})

        killed(work, rng.uniform(0.001, 0.08), is_one_state)
        checkpoint.load(tmp_path / "resume-previous.safetensors") if number > 5 else None
        hit += bool(half_written(tmp_path))
    print(
        f"{kills} kills while a checkpoint was saved: {hit} in the middle of a write, 0 files"
        " broken"
    )
    assert hit >= kills // 10 and len(steps) > 1


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_point_of_a_write(tmp_path, point):
    path = write_text(tmp_path / "threshold.json", "old")

    def die(real: Callable, after: bool) -> Callable:
        def act(*given: object) -> None:
            if after:
                real(*given)
            os.kill(os.getpid(), signal.SIGKILL)

        return act

    child = os.fork()
    if child == 0:
        try:
            name = "fsync" if point == "before fsync" else "replace"
            setattr(os, name, die(getattr(os, name), point == "after rename"))
            write_text(path, "new")
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert path.read_text() == ("new" if point == "after rename" else "old")
    assert len(list(tmp_path.glob(".tmp-*"))) == (point != "after rename")
    prepare_folder(tmp_path, overwrite=True)  # as every command begins
    assert [p.name for p in tmp_path.iterdir()] == ["threshold.json"], (
        "what the killed writer left is gone"
    )
    assert write_text(path, "next").read_text() == "next"
