"""Seconds and peak memory of the exact voxel metrics: one sort for every threshold.

    python benchmarks/curves.py [--voxels 1000000 10000000 100000000] [--prevalence 0.02]

AUROC, average precision, FPR at 95 % TPR and the best Dice of so many float32 scores, in a process of its own. "memory"
is its peak beyond what it held before the scores were made: scores and labels are 5 bytes a voxel of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np

from pseudohealthy.evaluation.curves import curve


def megabytes() -> float:
    """Peak resident memory of this process (Linux counts in kilobytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def measure(voxels: int, prevalence: float) -> tuple[float, float, float]:
    """(seconds, megabytes, AUROC) of random scores; made in pieces, so that making them takes no more memory."""
    rng = np.random.default_rng(0)
    before = megabytes()
    scores, labels = np.empty(voxels, np.float32), np.empty(voxels, bool)
    for start in range(0, voxels, 1_000_000):
        here = slice(start, min(voxels, start + 1_000_000))
        size = here.stop - here.start
        labels[here] = rng.random(size, dtype=np.float32) < prevalence
        scores[here] = rng.standard_normal(size, dtype=np.float32) + labels[here]
    begun = time.perf_counter()
    found = curve(scores, labels)
    area, _ = found.auroc, (found.average_precision, found.fpr_at_tpr(), found.best_dice())
    return time.perf_counter() - begun, megabytes() - before, area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--prevalence", type=float, default=0.02)
    given = parser.parse_args()
    print(f"numpy {np.__version__}, one thread, prevalence {given.prevalence:g}")
    print(f"{'voxels':>12} {'seconds':>9} {'memory MB':>10} {'AUROC':>7}")
    for voxels in given.voxels:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, memory, area = pool.apply(measure, (voxels, given.prevalence))
        print(f"{voxels:12,} {seconds:9.2f} {memory:10.0f} {area:7.4f}")


if __name__ == "__main__":
    main()
