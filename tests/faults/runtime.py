"""R: kills, full disks, two at once, lost files, other machines."""

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

from faults.material import cut, png, volume
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


@row("R8", "GPU out of memory", "a smaller batch, said; else exit 7")
def r8(stage: Stage) -> Iterator[Trial]:
    import torch

    from pseudohealthy.detection.detector import Detector

    image, restore, limit = png(stage.folder / "a.png"), Detector.apply, 2
    png(stage.folder / "b.png", 1), png(stage.folder / "c.png", 2), png(stage.folder / "d.png", 3)

    def small(self: Detector, *more: object) -> object:
        if self.batch > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return restore(self, *more)  # type: ignore[arg-type]

    with mock.patch.object(Detector, "apply", small):
        done = stage.detect(stage.folder, run=stage.tiny)
    yield works(
        done,
        "batch",
        **{"four results": [r["status"] for r in rows_of(done).values()].count("ok") == 4},
    )
    limit = 0
    with mock.patch.object(Detector, "apply", small):
        yield fails(stage.detect(image, run=stage.tiny), "OUT_OF_MEMORY", exit=7)


@row(
    "R9",
    "not enough memory (address space of 3 GB against a volume that needs more)",
    "exit 7 within a minute, no hang",
    quick=False,
    adapted="a limit of the address space instead of a control group",
)
def r9(stage: Stage) -> Iterator[Trial]:
    import nibabel as nib

    path = stage.folder / "large.nii"
    header = nib.Nifti1Header()
    header.set_data_shape((700, 700, 700))
    header.set_data_dtype(np.float32)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with open(path, "wb") as file:  # sparse: 1.4 GB that take no room
        file.write(header.binaryblock + bytes(4))
        file.truncate(352 + 4 * 700**3)
    done = stage.process(
        "detect",
        stage.ct,
        path,
        "--out",
        stage.out(),
        "--device",
        "cpu",
        limit={resource.RLIMIT_AS: 3 * 2**30},
    )
    trial = fails(done, "OUT_OF_MEMORY", exit=7)
    trial.exact = {"within a minute": done.seconds < 60}
    yield trial


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


@row(
    "R11",
    "a file disappears between the check and the reading",
    "named error, the others are read",
    adapted="no retries: the file fails by name at once, the others are read",
)
def r11(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.workflows import detect as workflow

    for number in range(2):
        png(stage.folder / "in" / f"{number}.png", number)
    prepare = workflow.prepare_folder

    def vanish(*words: object, **more: object) -> object:
        (stage.folder / "in" / "1.png").unlink()
        return prepare(*words, **more)  # type: ignore[arg-type]

    with mock.patch.object(workflow, "prepare_folder", vanish):
        done = stage.detect(stage.folder / "in", run=stage.tiny)
    yield fails(
        done,
        "UNREADABLE",
        "1.png",
        exit=4,
        **{"the other is read": rows_of(done).get("0", {}).get("status") == "ok"},
    )


@row("R12", "one bad case among 100", "99 written, a row for the bad one, exit 4", quick=False)
def r12(stage: Stage) -> Iterator[Trial]:
    for number in range(100):
        png(stage.folder / "in" / f"{number}.png", number)
    cut(stage.folder / "in" / "50.png")
    out = stage.out()
    done = stage.detect(stage.folder / "in", run=stage.tiny, out=out)
    states = {k: r["status"] for k, r in rows_of(done).items()}
    yield fails(
        done,
        "TRUNCATED",
        exit=4,
        **{
            "100 rows": len(states) == 100,
            "one failed": states.get("50") == "failed",
            "99 written": len(list(out.glob("*/case.json"))) == 99,
        },
    )


@row("R13", "no network", "identical behaviour", quick=False)
def r13(stage: Stage) -> Iterator[Trial]:
    image = png(stage.folder / "a.png")
    cutoff = (
        "import socket\ndef refuse(*a, **k): raise OSError(101, 'Network is"
        " unreachable')\nsocket.socket.connect = refuse; socket.getaddrinfo = refuse;"
        " socket.create_connection = refuse"
    )
    words = ("detect", stage.tiny, image, "--device", "cpu", "--json", "--kinds", "json", "--out")
    right = stage.process(*words, stage.out())
    done = stage.process(*words, stage.out(), prelude=cutoff)
    scores = [rows_of(d).get("a", {}).get("score") for d in (right, done)]
    yield works(done, **{"same score": scores[0] is not None and scores[0] == scores[1]})


@row("R14", "other batch size and order of cases", "every case's result identical")
def r14(stage: Stage) -> Iterator[Trial]:
    paths = [png(stage.folder / f"{number}.png", number) for number in range(5)]
    first = rows_of(stage.detect(*paths, run=stage.tiny))
    for options, inputs in ((("--batch", "1"), paths), (("--batch", "3"), paths[::-1])):
        done = stage.detect(*inputs, run=stage.tiny, options=options)
        other = rows_of(done)
        apart = max(
            (abs(other[k]["score"] - first[k]["score"]) for k in first if k in other), default=1.0
        )
        yield works(done, **{"within 1e-6 of the score": len(other) == 5 and apart <= 1e-6})


@row(
    "R15",
    "CPU against GPU",
    "map difference within the stated tolerance (1e-3)",
    quick=False,
    adapted=(
        "without a GPU: one thread against two, and the default against the highest matmul"
        " precision"
    ),
)
def r15(stage: Stage) -> Iterator[Trial]:
    import torch
    from PIL import Image

    image, maps = png(stage.folder / "a.png", bright=True), []
    kinds = "cuda" if torch.cuda.is_available() else "cpu"
    for device, threads in (("cpu", 1), (kinds, 2)):
        torch.set_num_threads(threads)
        out = stage.out()
        done = stage.run(
            "detect",
            stage.tiny,
            image,
            "--out",
            out,
            "--device",
            device,
            "--kinds",
            "volumes",
            "--json",
        )
        maps.append(np.asarray(Image.open(out / "a" / "anomaly_map.tiff")))
    torch.set_num_threads(1)
    yield works(done, **{"within 1e-3": bool(np.abs(maps[0] - maps[1]).max() <= 1e-3)})


@row(
    "R16",
    "decimal comma, other time zone, umask 077, no HOME",
    "same numbers and files",
    quick=False,
)
def r16(stage: Stage) -> Iterator[Trial]:
    image = volume(stage.folder / "a.nii.gz")
    foreign: dict[str, str | None] = {
        "LC_ALL": "de_DE.UTF-8",
        "LANG": "de_DE.UTF-8",
        "TZ": "Asia/Kolkata",
        "HOME": None,
    }
    tables = []
    for environment, prelude in (({}, ""), (foreign, "import os; os.umask(0o077)")):
        out = stage.out()
        words = ("detect", stage.ct, image, "--out", out, "--device", "cpu")
        done = stage.process(*words, environment=environment, prelude=prelude)  # type: ignore[arg-type]
        text = (
            (out / "findings.csv").read_text().splitlines()
            if (out / "findings.csv").is_file()
            else []
        )
        tables.append(
            ([line.rsplit(",", 1)[0] for line in text], sorted(p.name for p in out.rglob("*")))
        )
    yield works(done, **{"same table and files": tables[0] == tables[1] and len(tables[0][0]) == 2})
