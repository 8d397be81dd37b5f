"""A training killed at a random step and resumed is the unbroken one, bit for bit: weights,
average, optimiser, history."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudohealthy.runs import checkpoint
from pseudohealthy.runs.run import Run
from pseudohealthy.workflows.train import resume, train

STEPS, EVERY = 30, 4
KILLER = """
import os, signal, sys
from pseudohealthy.training import loop
step, after, follow = int(sys.argv.pop(1)), sys.argv.pop(1) == "after", loop.Trainer.follow
def killed(self):
    if self.step == step and after:
        follow(self)
    if self.step == step:
        os.kill(os.getpid(), signal.SIGKILL)
    follow(self)
loop.Trainer.follow = killed
from pseudohealthy.__main__ import run
run()
"""


@pytest.fixture(scope="module")
def whole(pictures, tiny, tmp_path_factory) -> tuple[Run, Path]:
    """The unbroken run, and its recipe as a file."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = tiny(
        f"training.steps={STEPS}",
        f"training.validate={EVERY}",
        "restorer.network.block.dropout=0.1",
        "training.augment=affine",
        "training.decay=cosine",
    )
    (folder / "recipe.toml").write_text(recipe.toml())
    return train(recipe, pictures, folder / "run", device="cpu"), folder / "recipe.toml"


def start(*words: object) -> int:
    """The program in a process that kills itself; its exit code."""
    line = [sys.executable, "-c", KILLER, *map(str, words), "--device", "cpu"]
    path = os.pathsep.join(sys.path)
    return subprocess.run(
        line, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}, timeout=500
    ).returncode


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_killed_at_a_random_step_and_once_more_after_resuming(whole, pictures, tmp_path, seed):
    unbroken, recipe = whole
    rng, out = np.random.default_rng(seed), tmp_path / "run"
    first, second = sorted(rng.choice(np.arange(EVERY, STEPS), 2, replace=False).tolist())
    # The optimiser has moved, the average has not; or both have.
    when = ("before", "after")[seed % 2]
    code = start(first, when, "train", recipe, "--data", pictures, "--out", out)
    assert code == -signal.SIGKILL
    saved = checkpoint.load(out / "resume.safetensors")[1]["step"]
    assert saved == first // EVERY * EVERY, (
        "the last whole state is kept, work since then is done again"
    )
    assert start(second, when, "train", "--resume", out) == -signal.SIGKILL
    resumed = resume(out, device="cpu")
    for name in ("resume", "last", "best_model", "best_model_loss"):
        a, b = (
            checkpoint.load(run.folder / f"{name}.safetensors")[0] for run in (unbroken, resumed)
        )
        assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), name
        parts = {key.split(".")[0] for key in a}
        assert name != "resume" or {"model", "average", "optimiser"} <= parts
    a, b = (
        [
            {k: v for k, v in entry.items() if "seconds" not in k}
            for entry in run.read_json("training_history.json")
        ]
        for run in (unbroken, resumed)
    )
    # The mean training loss of the first entry after a resume is over the steps since then only, as
    # it must be
    assert a == b
    assert unbroken.read_json("threshold.json") == resumed.read_json("threshold.json")
    print(f"killed at steps {first} and {second} of {STEPS}: equal bit for bit")
