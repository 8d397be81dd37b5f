"""What every command takes and how it prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from pseudohealthy import progress

Device = Annotated[str, tyro.conf.arg(help="auto, cpu or cuda", metavar="auto|cpu|cuda")]


@dataclass(kw_only=True)
class Command:
    """What every command takes."""

    device: Device = "auto"
    quiet: bool = False
    """say nothing but results and errors"""
    debug: bool = False
    """show the traceback of an error"""
    json: bool = False
    """print the result as JSON on standard output"""

    def start(self) -> int:
        """Run, print, and give the exit code."""
        progress.quiet, progress.debug = self.quiet, self.debug
        return self.run()

    def run(self) -> int:
        raise NotImplementedError  # abstract

    def show(self, result: Any, text: str | None = None) -> None:
        """The result as JSON, or as text for people."""
        if self.json:
            from pseudohealthy.io.atomic import _plain

            print(json.dumps(_plain(result), indent=2))
        elif text is not None and not self.quiet:
            print(text)
