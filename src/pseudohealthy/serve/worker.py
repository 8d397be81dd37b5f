"""The process of one job: ``python -m pseudohealthy.serve.worker detect ...`` is the command line,
with progress every second, and ends at once when the app does: nothing computes on for nobody."""

from __future__ import annotations

import os
import sys
import threading

from pseudohealthy import progress
from pseudohealthy.__main__ import main
from pseudohealthy.errors import INTERRUPTED


def until_the_app_ends() -> None:
    """Standard input is a pipe that only the app holds: its end is the app's end, even by kill
    -9."""
    os.read(0, 1)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    threading.Thread(target=until_the_app_ends, daemon=True).start()
    progress.every = 1.0
    sys.exit(main(sys.argv[1:]))
