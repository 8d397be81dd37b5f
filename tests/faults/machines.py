"""R: too little memory, lost files, other machines."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from unittest import mock

import numpy as np

from faults.material import cut, png, volume
from faults.scoring import Trial, fails, row, works
from faults.stage import Stage, rows_of


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
