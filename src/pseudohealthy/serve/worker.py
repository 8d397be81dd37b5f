"""The process of one job: ``python -m pseudohealthy.serve.worker detect ...`` is the command line,
with progress every second, and ends at once when the app does: nothing computes on for nobody.

Its standard output holds what the queue reads, one JSON object a line: ``{"doing": "detecting",
"done": 3, "total": 8, "seconds_left": 40.0}``, ``{"beside": "tables, texts and sidecars (2)"}``,
``{"error": "error[TRUNCATED] case=a: ..."}``. What the command prints there goes nowhere; what it
says to people is on standard error, as ever.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from pseudohealthy import progress
from pseudohealthy.__main__ import main
from pseudohealthy.errors import INTERRUPTED


def until_the_app_ends() -> None:
    """Standard input is a pipe that only the app holds: its end is the app's end, even by kill
    -9."""
    os.read(0, 1)
    os._exit(INTERRUPTED)


def tell_on_standard_output() -> None:
    """Keep the pipe of standard output for facts, and let nothing else write to it."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)

    def line(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=pipe, flush=True)

    progress.sink = line


if __name__ == "__main__":
    tell_on_standard_output()
    threading.Thread(target=until_the_app_ends, daemon=True).start()
    progress.every = 1.0
    sys.exit(main(sys.argv[1:]))
