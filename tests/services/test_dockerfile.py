"""The image that Dockerfile describes, built without Docker: its files, then its commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
# Seconds for all steps; how fast pip fetches some 80 packages is not ours to test.
PATIENCE = 240
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")


def instructions(word: str) -> list[str]:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(word).strip() for line in lines if line.startswith(f"{word} ")]


def test_the_commands_of_the_dockerfile_make_a_program_that_detects(tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    for *sources, target in map(str.split, instructions("COPY")):
        for name in sources:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, app / target, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / name, app / target)
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    steps = instructions("RUN")
    assert len(steps) == 4
    until = time.monotonic() + PATIENCE
    for step in steps:
        try:
            done = subprocess.run(
                step,
                shell=True,
                cwd=app,
                env=keep,
                capture_output=True,
                text=True,
                timeout=until - time.monotonic(),
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"not done within {PATIENCE} s: {step}")
        assert done.returncode == 0, f"{step}\n{done.stderr}"
    (entry,) = instructions("ENTRYPOINT")
    program = json.loads(entry)[0].replace("/app", str(app))
    example = next((ROOT / "src/pseudohealthy/models/brain-t1/examples").rglob("*.png"))
    line = [program, "detect", "brain-t1", example, "--out", tmp_path / "found", "--quiet"]
    done = subprocess.run(line, cwd=tmp_path, env=keep, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found" / "findings.csv").is_file()
