"""Measuring in pairs: A B A B in one process, medians, and how busy the machine was with something
else meanwhile."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
clock = time.perf_counter  # or processor seconds, as ``--cpu`` has it


def busy() -> tuple[float, float]:
    """(seconds that all processors worked, seconds of them for this process and its finished
    children)."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, *rest = map(int, words)
    own = sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (user + nice + system + sum(rest)) / TICKS, own


class Load:
    """``with Load() as load``: afterwards `foreign` is the share of all processors that others
    used, `seconds` the time."""

    foreign = seconds = 0.0

    def __enter__(self) -> Load:
        self.begun, self.before = time.perf_counter(), busy()
        return self

    def __exit__(self, *failure: object) -> None:
        self.seconds = time.perf_counter() - self.begun
        everyone, own = (after - before for after, before in zip(busy(), self.before, strict=True))
        self.foreign = max(0.0, everyone - own) / (self.seconds * (os.cpu_count() or 1))


def paired(
    runs: dict[str, Callable[[], object]], rounds: int = 5
) -> tuple[dict[str, float], float]:
    """Median seconds of each, run in turn after one turn to warm up, and the foreign load
    meanwhile."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    with Load() as load:
        for _ in range(rounds):
            for name, run in runs.items():
                begun = clock()
                run()
                spent[name].append(clock() - begun)
    return {name: statistics.median(times) for name, times in spent.items()}, load.foreign


class Report:
    """Rows as they come: printed, and appended to ``--out`` as JSON lines. What a figure needs to
    be read stands in it."""

    def __init__(self, name: str, out: Path | None = None):
        self.name, self.out = name, out

    def add(self, what: str, value: float, unit: str, foreign: float = 0.0, **more: Any) -> None:
        """One figure; foreign above a twentieth is marked, since times under load say little."""
        words = "  ".join(f"{key} {_short(part)}" for key, part in more.items())
        print(
            f"{self.name:10} {what:52} {_short(value):>9} {unit:8} "
            f"others {100 * foreign:3.0f} %{' !' if foreign > 0.05 else '  '} {words}",
            flush=True,
        )
        if self.out is not None:
            row = {
                "benchmark": self.name,
                "what": what,
                "value": value,
                "unit": unit,
                "foreign_load": round(foreign, 3),
            }
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**row, **more}) + "\n")


def _short(value: object) -> str:
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else str(round(value) if isinstance(value, float) else value)
    )


def arguments(
    doc: str | None, *, more: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """``--out FILE.jsonl``, ``--cpu`` and what a benchmark adds."""
    global clock
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, help="append every figure to this file, one JSON object a line"
    )
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="processor seconds instead of seconds, for ratios on a busy "
        "machine; set OMP_NUM_THREADS=1, since threads that wait for each other count as working",
    )
    if more is not None:
        more(parser)
    given = parser.parse_args()
    clock = time.process_time if given.cpu else time.perf_counter
    return given
