"""The local web app: serve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Arg
from pseudohealthy.counts import many


@dataclass(kw_only=True)
class Serve(Command):
    """A page in the browser: send scans to RUN..., watch the queue, look at findings. For this
    machine only, unless told."""

    runs: Annotated[tuple[Path, ...], Arg(positional=True, metavar="RUN", kind="run")]
    """what is served"""
    port: Annotated[int, Arg(least=0, most=65535)] = 8765
    """where it listens; 0 takes a free port"""
    listen: Annotated[str, Arg(metavar="ADDRESS")] = "127.0.0.1"
    """another address of this machine, such as 0.0.0.0 for all; who reaches it needs the token"""
    out: Annotated[Path, Arg(metavar="DIR", kind="out")] = Path("serve-out")
    """folder for results and history"""
    most_gb: Annotated[float, Arg(above=0)] = 2.0
    """GiB of one upload"""
    queue: Annotated[int, Arg(least=1)] = 20
    """jobs that may wait"""

    def run(self) -> int:
        from pseudohealthy.serve.server import serve

        serve(
            self.runs,
            self.out,
            port=self.port,
            listen=self.listen,
            most_gb=self.most_gb,
            queue=self.queue,
            device=self.device,
            announce=self.announce,
        )
        return 0

    def announce(self, address: str) -> None:
        """The address, token included, whether or not --quiet."""
        self.show({"address": address, "out": str(self.out)})
        print(
            ""
            if self.json
            else f"serving {many(len(self.runs), 'run')} at {address} (Ctrl-C ends it)\n",
            end="",
            flush=True,
        )
