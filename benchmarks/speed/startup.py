"""Seconds until the program answers, and what importing costs. Each is a process of its own.

python benchmarks/speed/startup.py [--out FILE]
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from paired import Report, arguments, paired

# What a person waits without noticing; tests/test_budget.py holds seconds of the processor to much
# the same.
# ms, of an import beyond Python's own start.
BUDGETS = {"pseudohealthy --help": 500, "import pseudohealthy": 150}
LINES = {
    "python -c pass": ["-c", "pass"],
    "import pseudohealthy": ["-c", "import pseudohealthy"],
    "pseudohealthy --help": ["-m", "pseudohealthy", "--help"],
    "pseudohealthy detect --help": ["-m", "pseudohealthy", "detect", "--help"],
    "pseudohealthy recipes": ["-m", "pseudohealthy", "recipes"],
    "import torch": ["-c", "import torch"],
    "import pseudohealthy.detection.detector": ["-c", "import pseudohealthy.detection.detector"],
}


def process(line: list[str]) -> None:
    subprocess.run([sys.executable, *line], capture_output=True, check=True)


def main() -> None:
    report = Report("startup", arguments(__doc__).out)
    times, foreign = paired({name: partial(process, line) for name, line in LINES.items()}, 5)
    for name, seconds in times.items():
        over = times["python -c pass"] if name.startswith("import") else 0.0
        told = (
            {}
            if name not in BUDGETS
            else {
                "budget": BUDGETS[name],
                "kept": "yes" if 1000 * (seconds - over) < BUDGETS[name] else "NO",
            }
        )
        report.add(name, 1000 * seconds, "ms", foreign, **told)


if __name__ == "__main__":
    main()
