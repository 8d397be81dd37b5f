"""R: kills, full disks, two at once, a loss that is no number."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from faults.material import png
from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage, rows_of

WIDE = "restorer.network.width=32"


def train(stage: Stage, out: Path, steps: int, *settings: str) -> tuple:
    return (
        "train",
        stage.root / "tiny.toml",
        "--data",
        stage.pictures,
        "--out",
        out,
        "--device",
        "cpu",
        "--steps",
        steps,
        "--set",
        "training.validate=2",
        *settings,
    )


def resumes(stage: Stage, run: Path) -> Done:
    return stage.run(
        "train", "--resume", run, "--data", stage.pictures, "--device", "cpu", hang=180
    )


def same(one: Path, other: Path, name: str = "resume.safetensors") -> bool:
    import torch

    from pseudohealthy.runs import checkpoint

    a, b = (checkpoint.load(folder / name)[0] for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def after(path: Path, seconds: float, how: int):
    """Wait until a file is there, then a moment, then send a signal."""

    def act(child: subprocess.Popen) -> None:
        end = time.monotonic() + 100
        while not path.is_file() and child.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(seconds)
        child.send_signal(how)

    return act


@row(
    "R1",
    "kill -9 while a checkpoint is written (200 kills)",
    "always a loadable checkpoint; resume works",
    quick=False,
    adapted="a forked process saves in a loop and is killed, instead of 200 starts of the program",
)
def r1(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.errors import Fault
    from pseudohealthy.runs import checkpoint

    # A forked child saves in a loop and is killed at a random moment: 200 kills in seconds instead
    # of an hour of starts.
    folder = stage.folder / "run"
    shutil.copytree(stage.tiny, folder)
    path, rng, broken = folder / "resume.safetensors", np.random.default_rng(0), 0
    tensors, state, _ = checkpoint.load(path)
    for _ in range(200):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    checkpoint.save(path, tensors, state)
            finally:
                os._exit(0)
        time.sleep(float(rng.uniform(0.0, 0.03)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        try:
            checkpoint.load(path)
        except Fault:
            broken += 1
    done = stage.run(
        "train", "--resume", folder, "--data", stage.pictures, "--steps", 14, "--device", "cpu"
    )
    yield Trial(
        done,
        (0,),
        facts={"resumed": json.loads((folder / "run.json").read_text()).get("step") == 14},
        exact={"no half file left": not list(folder.glob(".tmp-*"))},
        harms={f"{broken} broken": broken > 0},
    )


@row(
    "R2",
    "kill -9 at a random step, then resume",
    "weights, averages and optimiser bit for bit as uninterrupted",
    quick=False,
)
def r2(stage: Stage) -> Iterator[Trial]:
    whole, killed = stage.folder / "whole", stage.folder / "killed"
    assert stage.run(*train(stage, whole, 40, WIDE), hang=600).exit == 0
    first = stage.process(
        *train(stage, killed, 40, WIDE),
        act=after(killed / "resume.safetensors", 0.1, signal.SIGKILL),
    )
    early = json.loads((killed / "run.json").read_text())["status"] == "running"
    yield works(
        resumes(stage, killed),
        **{"killed on the way": first.exit == -9 and early, "bit for bit": same(whole, killed)},
    )


@row("R3", "SIGTERM and SIGINT", "state saved, exit 130, 'train --resume'", quick=False)
def r3(stage: Stage) -> Iterator[Trial]:
    for how in (signal.SIGTERM, signal.SIGINT):
        run = stage.folder / how.name
        done = stage.process(
            *train(stage, run, 4000, WIDE), act=after(run / "resume.safetensors", 0.05, how)
        )
        state = json.loads((run / "run.json").read_text())["status"]
        yield fails(
            done, "INTERRUPTED", "train --resume", exit=130, **{"saved": state == "interrupted"}
        )


@row(
    "R4",
    "disk full (RLIMIT_FSIZE) during checkpoint and detect",
    "exit 6, earlier files intact, none of length 0",
    quick=False,
)
def r4(stage: Stage) -> Iterator[Trial]:
    run = stage.folder / "run"
    shutil.copytree(stage.tiny, run)
    before = {path.name: path.read_bytes() for path in run.glob("*.safetensors")}
    limit = {resource.RLIMIT_FSIZE: min(map(len, before.values())) // 2}
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    words = ("train", "--resume", run, "--data", stage.pictures, "--steps", 20, "--device", "cpu")
    done = stage.process(*words, limit=limit, prelude=ignore)
    lost = any(
        not (run / name).is_file() or (run / name).read_bytes() != data
        for name, data in before.items()
    )
    empty = [
        p
        for p in run.rglob("*")
        if p.is_file() and (not p.stat().st_size or p.name.startswith(".tmp"))
    ]
    trial = fails(done, "OUTPUT", exit=6, **{"no empty or half file": not empty})
    trial.harms = {"a good checkpoint lost": lost}
    yield trial
    done = resumes(stage, run)
    yield works(done, **{"goes on afterwards": done.exit == 0})
    out = stage.out()
    image = png(stage.folder / "a.png", side=200)
    done = stage.process(
        "detect",
        stage.tiny,
        image,
        "--out",
        out,
        "--device",
        "cpu",
        limit={resource.RLIMIT_FSIZE: 6000},
        prelude=ignore,
    )
    empty = [
        p
        for p in out.rglob("*")
        if p.is_file() and (not p.stat().st_size or p.name.startswith(".tmp"))
    ]
    yield fails(done, "OUTPUT", exit=6, **{"no empty or half output": not empty})


@row(
    "R5",
    "output is a file, not writable, or not empty",
    "exit 6 before any work; --overwrite needed",
)
def r5(stage: Stage) -> Iterator[Trial]:
    image, full = png(stage.folder / "a.png"), stage.folder / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    for out, code in (
        (image, "OUTPUT"),
        (Path("/proc/nowhere/out"), "OUTPUT"),
        (full, "OUTPUT_NOT_EMPTY"),
    ):
        trial = fails(stage.detect(image, run=stage.tiny, out=out), code, exit=6)
        trial.harms = {"a file of others changed": (full / "thesis.txt").read_text() != "mine"}
        yield trial
    done = stage.detect(image, run=stage.tiny, out=full, options=("--overwrite",))
    yield works(done, **{"other files kept": (full / "thesis.txt").read_text() == "mine"})


@row(
    "R6",
    "run again after a crash, in the same OUT",
    "finished cases verified and skipped, half ones redone, nothing stale",
    quick=False,
)
def r6(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.detection.finding import Finding

    for number in range(4):
        png(stage.folder / "in" / f"{number}.png", number)
    out, saved, made = stage.out(), Finding.save, []

    def counted(self: Finding, *words: object) -> object:
        made.append(self.case_id)
        if len(made) == 3 and "crash" not in made:
            made.append("crash")
            raise KeyboardInterrupt
        return saved(self, *words)  # type: ignore[arg-type]

    kinds = ("volumes", "json")
    with mock.patch.object(Finding, "save", counted):
        first = stage.detect(
            stage.folder / "in", run=stage.tiny, out=out, kinds=kinds, options=("--batch", "1")
        )
        made[:] = ["crash"]
        done = stage.detect(
            stage.folder / "in", run=stage.tiny, out=out, kinds=kinds, options=("--resume",)
        )
    again = [name for name in made if name != "crash"]
    yield works(
        done,
        **{
            "crashed": first.exit == 130,
            "four rows": len(rows_of(done)) == 4,
            "two were done": len(again) == 2,
        },
    )


@row("R7", "two processes, one OUT", "the second exits 6", quick=False)
def r7(stage: Stage) -> Iterator[Trial]:
    out, second = stage.folder / "run", []

    def another(child: subprocess.Popen) -> None:
        after(out / "run.json", 0.5, 0)(child)
        second.append(stage.run(*train(stage, out, 2, "--overwrite")))
        child.kill()

    words = train(stage, out, 4000, WIDE)
    stage.process(*words, act=another)
    yield fails(second[0], "OUTPUT_BUSY", exit=6)


@row("R10", "the loss becomes NaN", "stops, keeps the last good checkpoint, exit 1 with the step")
def r10(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.runs import checkpoint
    from pseudohealthy.training import trainer as trainers

    run, forward, calls = stage.folder / "run", trainers.PartLoss.forward, []

    def spoilt(self: object, batch: object) -> object:
        calls.append(1)
        return forward(self, batch) * (np.nan if len(calls) == 5 else 1.0)  # type: ignore[arg-type]

    with mock.patch.object(trainers.PartLoss, "forward", spoilt):
        done = stage.run(*train(stage, run, 8))
    step = checkpoint.load(run / "resume.safetensors")[1]["step"]
    yield fails(
        done, "NONFINITE_LOSS", "step 4", exit=1, **{"the state of step 4 is kept": step == 4}
    )
