"""``python -m faults [ROW ...]``: stage the fault table, print it, end with its total."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import torch

from faults.stage import Stage, play, table


def chosen(words: list[str]) -> list[str]:
    """Rows by id or by letter; all without words."""
    rows = table()
    return [name for name in rows if not words or name in words or name[0] in words]


def main(words: list[str]) -> int:
    """Prints id, expected, got, score; ``--write FILE`` also writes the page of the
    documentation."""
    page = Path(words.pop(words.index("--write") + 1)) if "--write" in words else None
    names = chosen([word for word in words if not word.startswith("--")])
    rows = table()
    results = []
    begun = time.monotonic()
    torch.set_num_threads(1)  # as in the processes it starts: with more, sums are rounded otherwise
    print(f"{'id':4} {'score':>5} {'s':>5}  expected -> got")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        stage = Stage(Path(folder)).build()
        for name in names:
            result = play(rows[name], stage)
            results.append(result)
            line = (
                f"{name:4} {result.score:5} {result.seconds:5.1f}  {rows[name].expected} ->"
                f" {result.got}"
            )
            print(" ".join(line.splitlines()), flush=True)
    if page is not None:
        from faults.page import write

        write(page, results)
    print(f"{len(results)} rows in {time.monotonic() - begun:.0f} s")
    print(f"total {sum(result.score for result in results)}/{2 * len(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
