"""All of them, one after the other, each a process of its own.

python benchmarks/speed [--out FILE.jsonl] [--only forward sweep]

About twelve minutes on two cores that do nothing else. `cost_curve.py` needs a trained run and is
not among them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch
from paired import arguments

HERE = Path(__file__).parent
ALL = (
    "startup",
    "forward",
    "restorers",
    "sweep",
    "ct_series",
    "readers",
    "maps",
    "curves",
    "ranks",
)


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", nargs="+", default=list(ALL), choices=ALL)

    given = arguments(__doc__, more=more)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads,"
        f" {torch.backends.cpu.get_cpu_capability()}"
    )
    failed = []
    for name in given.only:
        begun = time.perf_counter()
        out = ["--out", str(given.out)] if given.out else []
        if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *out]).returncode:
            failed.append(name)
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
