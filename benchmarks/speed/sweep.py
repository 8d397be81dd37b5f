"""A grid of 5 x 5 settings against one setting: what sharing restorations, encodings, weights and
cases saves.

    python benchmarks/speed/sweep.py [--cases 2] [--out FILE]

Two grids. Gradient scale x noise level as in Wolleb et al. 2022, Figs 4 to 6, every level walked,
against its deepest and its middle setting; gradient scale x smoothing of the map, against one
setting. The classifier and the U-Net are those of wolleb-brats-small with one channel, untrained.
"naive" is 25 sweeps of one setting each (the mean of three, times 25).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import made
from paired import Load, Report, arguments

from pseudohealthy import progress
from pseudohealthy.workflows.sweep import sweep

SCALES = "restorer.guidance.scale=1,3,10,30,100"
DEPTHS = "restorer.walk.start_levels=5,10,15,20,25"


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--cases", type=int, default=2)

    given = arguments(__doc__, more=more)
    progress.quiet = True
    report = Report("sweep", given.out)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = made.heads(folder / "data", given.cases, shape=(8, 64, 64))
        run = made.untrained(
            "wolleb-brats-small",
            folder / "run",
            "canvas.channels=1",
            "restorer.walk.calls=0",
            "restorer.walk.start_levels=25",
        )

        def seconds(over: Sequence[str]) -> tuple[float, float]:
            with Load() as load:
                sweep(run, data, over, device="cpu", resamples=2000)
            return load.seconds, load.foreign

        seconds(["restorer.walk.start_levels=5"])  # warm-up
        one = {
            depth: seconds(["restorer.guidance.scale=10", f"restorer.walk.start_levels={depth}"])
            for depth in (5, 15, 25)
        }
        grid, foreign = seconds([SCALES, DEPTHS])
        naive = 25 * sum(spent for spent, _ in one.values()) / 3
        report.add(
            "one setting, deepest (25 levels each way)",
            one[25][0],
            "s",
            one[25][1],
            middle=one[15][0],
        )
        report.add(
            "scale x noise level, 5 x 5",
            grid / one[25][0],
            "x one",
            foreign,
            seconds=grid,
            x_middle=grid / one[15][0],
            naive=naive,
            x_naive=naive / grid,
        )
        maps, foreign = seconds([SCALES, "map.smooth=0,1,2,3,4"])
        report.add(
            "scale x smoothing of the map, 5 x 5", maps / one[25][0], "x one", foreign, seconds=maps
        )


if __name__ == "__main__":
    main()
