"""Detection against network calls, on validation patients of a trained run: fewer steps, first and
second order.

    python benchmarks/speed/cost_curve.py RUN DATA [--steps 2 3 5 10 25] [--limit 5] [--seeds 0]
    [--out FILE]

RUN is a trained guided, thor, ddim or ddpm run, DATA its manifest with masks; only its split "val"
is looked at. Every row has the run's own weights; what differs is `restorer.walk.calls` and
`restorer.walk.order`. Planes that hold nothing to detect cost as much as others, so seconds are of
a case.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from paired import Load, Report, arguments

from pseudohealthy.evaluation.sweep import Sweep
from pseudohealthy.workflows.sweep import sweep

METRICS = (
    "voxel_average_precision_pooled",
    "voxel_auroc_pooled",
    "plane_auroc",
    "dice_oracle_pooled",
)


def figures(result: Sweep, place: tuple[int, ...]) -> dict[str, object]:
    """Detection of one setting, with the interval over patients of the first metric."""
    found: dict[str, object] = {}
    for metric in METRICS:
        record = result.value(place, metric)
        if record is not None:
            found[metric] = record.value
            if metric == METRICS[0]:
                found["ci95"] = [round(v, 3) for v in record.ci95] if record.ci95 else None
    return found


def main() -> None:
    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("run", type=Path)
        parser.add_argument("data", type=Path)
        parser.add_argument("--steps", type=int, nargs="+", default=[2, 3, 5, 10, 25])
        parser.add_argument("--orders", type=int, nargs="+", default=[1, 2])
        parser.add_argument("--limit", type=int, default=5)
        parser.add_argument(
            "--over", nargs="+", default=[], help="other settings, each with one value"
        )

    given = arguments(__doc__, more=more)
    report = Report("cost", given.out)
    steps, orders = (",".join(map(str, values)) for values in (given.steps, given.orders))
    over = [f"restorer.walk.calls={steps}", f"restorer.walk.order={orders}", *given.over]
    with Load() as load:
        result = sweep(given.run, given.data, over, device="cpu", limit=given.limit, resamples=500)
    for place in sorted(result.records, key=lambda p: (result.network_calls[p], p)):
        report.add(
            f"{result.run}: {' '.join(result.settings(place))}",
            float(result.network_calls[place]),
            "calls",
            load.foreign,
            seconds=result.seconds[place],
            **figures(result, place),
        )


if __name__ == "__main__":
    main()
