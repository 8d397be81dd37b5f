"""The whole strict protocol on so many voxels: seconds and memory.

    python benchmarks/speed/curves.py [--voxels 100000000] [--cases 40] [--out FILE]

Cases of 5e6 / 2 voxels at 1e8, a patient each, random float32 maps with a few lesions in place;
every figure of the
protocol: rankings with 2,000 patient resamples, per-case thresholds, lesions, AUPRO. In a process
of its own; "memory" is its peak, scores and labels included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource

import numpy as np
from paired import Load, Report, arguments


def measure(voxels: int, count: int) -> tuple[float, float, float, float, int]:
    """(seconds, foreign load, peak megabytes, of it before the protocol began, number of
    figures)."""
    from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
    from pseudohealthy.evaluation.protocols import Setting, strict
    from pseudohealthy.evaluation.records import CaseResult, Place
    from pseudohealthy.metrics.thresholds import Threshold

    rng, cases = np.random.default_rng(0), []
    shape = (max(1, round(voxels / count / 256**2)), 256, 256)
    for index in range(count):
        inside = np.ones(shape, dtype=bool)
        truth = np.zeros(shape, dtype=bool)
        for _ in range(index % 4):
            at = [int(rng.integers(0, max(1, side - 20))) for side in shape]
            truth[at[0] : at[0] + 4, at[1] : at[1] + 20, at[2] : at[2] + 20] = True
        values = rng.standard_normal(shape, dtype=np.float32) + 2 * truth
        cases.append(
            CaseResult(
                case_id=f"case{index}",
                patient_id=f"patient{index}",
                label=ANOMALOUS if index % 4 else HEALTHY,
                score=float(values.max()),
                map=values[inside],
                truth=truth[inside],
                method="ours",
                voxel_ml=0.001,
                place=Place(inside, inside),
            )
        )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    with Load() as load:
        found = strict(cases, Setting(thresholds=Threshold(3.0, "given")))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return load.seconds, load.foreign, peak, before, len(found.records)


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--voxels", type=int, nargs="+", default=[10_000_000, 100_000_000])
        parser.add_argument("--cases", type=int, default=40)

    given = arguments(__doc__, more=more)
    report = Report("curves", given.out)
    for voxels in given.voxels:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, foreign, peak, before, figures = pool.apply(measure, (voxels, given.cases))
        report.add(
            f"strict protocol, {voxels:.0e} voxels, {given.cases} cases",
            seconds,
            "s",
            foreign,
            peak_mb=peak,
            before_mb=before,
            figures=figures,
        )


if __name__ == "__main__":
    main()
