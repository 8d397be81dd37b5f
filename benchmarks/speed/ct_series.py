"""A CT series as scanners make it, 512 x 512 x 40, from DICOM files to findings on disk with
ct-pddpm-small.

    python benchmarks/speed/ct_series.py [--planes 40] [--side 512] [--out FILE]

The whole command in a process of its own, start-up and every output included; the network is
untrained, which costs the same. "memory" is that process's peak.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import made
import numpy as np
from paired import Load, Report, arguments

from pseudohealthy.anomalies.phantoms import dicom_series, head


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--planes", type=int, default=40)
        parser.add_argument("--side", type=int, default=512)

    given = arguments(__doc__, more=more)
    report = Report("ct_series", given.out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volume, _, _ = head(
            np.random.default_rng(0), shape=(given.planes, given.side, given.side), lesion=0.15
        )
        dicom_series(folder / "series", volume, spacing=(4.0, 0.45, 0.45))
        made.untrained("ct-pddpm-small", folder / "run")
        line = [
            "-m",
            "pseudohealthy",
            "detect",
            folder / "run",
            folder / "series",
            "--out",
            folder / "out",
            "--quiet",
        ]
        with Load() as load:
            subprocess.run([sys.executable, *map(str, line)], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
        report.add(
            f"detect, {given.side} x {given.side} x {given.planes}, all outputs",
            load.seconds,
            "s",
            load.foreign,
            peak_mb=peak,
        )


if __name__ == "__main__":
    main()
