"""The local web app: serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pseudohealthy.commands.base import Command
from pseudohealthy.errors import USAGE, Fault


@dataclass(kw_only=True)
class Serve(Command):
    """A page in the browser: send scans to RUN..., watch the queue, look at findings. For this machine only, unless told."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    port: int = 8765
    """0 takes a free one"""
    listen: Annotated[str, tyro.conf.arg(metavar="ADDRESS")] = "127.0.0.1"
    """another address of this machine, such as 0.0.0.0 for all; who reaches it needs the token"""
    out: Path = Path("serve-out")
    """folder for results and history"""
    most_gb: float = 2.0
    """GiB of one upload"""
    queue: int = 20
    """jobs that may wait"""

    def run(self) -> int:
        from pseudohealthy.serve.server import serve

        if not self.runs:
            raise Fault("USAGE", "serve needs a RUN", "name one or more folders that `train` wrote", exit=USAGE)
        serve(self.runs, self.out, port=self.port, listen=self.listen, most_gb=self.most_gb, queue=self.queue,
              device=self.device, announce=self.announce)  # fmt: skip
        return 0

    def announce(self, address: str) -> None:
        """The address, token included, whether or not --quiet."""
        self.show({"address": address, "out": str(self.out)})
        print(
            "" if self.json else f"serving {len(self.runs)} run(s) at {address} (Ctrl-C ends it)\n", end="", flush=True
        )
