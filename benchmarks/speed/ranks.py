"""Two ranks of one thread against one rank of one thread, in training and in detection, by the
program itself.

    python benchmarks/speed/ranks.py [--out FILE]

Time that grows with the work: the difference of a long and a short command, so that start-up
(seconds of imports in each process) is left out; the same work in all, the same global batch.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import made
from paired import Load, Report, arguments

STEPS, CASES = (5, 45), (4, 36)


def command(ranks: int, *words: object) -> tuple[float, float]:
    """(seconds, foreign load) of a command under torchrun, one thread a rank."""
    line = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(ranks),
    ]
    with Load() as load:
        subprocess.run(
            [*line, "-m", "pseudohealthy", *map(str, words), "--quiet"],
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    return load.seconds, load.foreign


def main() -> None:
    report = Report("ranks", arguments(__doc__).out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = made.heads(folder / "data", 8, shape=(16, 64, 64), split="train")
        shutil.rmtree(data / "train" / "bad")
        several = {
            count: made.heads(folder / f"cases{count}", count, shape=(16, 64, 64))
            for count in CASES
        }
        run = made.untrained(
            "anoddpm-nfbs-small",
            folder / "run",
            "restorer.diffusion.noise=gaussian",
            "canvas.plane=axial",
        )
        for kind, sizes in (("training", STEPS), ("detection", CASES)):
            spent: dict[tuple[int, int], float] = {}
            loads = []
            for size in sizes:
                for ranks in (1, 2):
                    out = folder / f"{kind}{size}-{ranks}"
                    if kind == "training":
                        settings = [
                            f"training.steps={size}",
                            "training.validate=1000",
                            "training.batch=16",
                        ]
                        words = [
                            "train",
                            "anoddpm-nfbs-small",
                            "--data",
                            data,
                            "--set",
                            *settings,
                            "restorer.diffusion.noise=gaussian",
                            "canvas.plane=axial",
                            "--out",
                            out,
                        ]
                    else:
                        words = [
                            "detect",
                            run.folder,
                            several[size] / "val",
                            "--out",
                            out,
                            "--kinds",
                            "json",
                        ]
                    spent[size, ranks], foreign = command(ranks, *words)
                    loads.append(foreign)
            one, two = (spent[sizes[1], ranks] - spent[sizes[0], ranks] for ranks in (1, 2))
            report.add(
                f"{kind}, 2 ranks of one thread",
                one / two,
                "x 1 rank",
                max(loads),
                one=one,
                two=two,
            )


if __name__ == "__main__":
    main()
