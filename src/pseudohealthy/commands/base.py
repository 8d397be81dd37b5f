"""What every command takes and how it prints."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pseudohealthy import progress
from pseudohealthy.commands.words import Arg, words_of
from pseudohealthy.errors import USAGE, Fault

COMMANDS: dict[str, type[Command]] = {}  # by name, in the order of the help; `cli` fills it
DEVICE = re.compile(r"auto|cpu|(cuda|mps)(:\d+)?")


@dataclass(kw_only=True)
class Command:
    """What every command takes."""

    ways: ClassVar[tuple[str, ...]] = ()  # how it is written, where required words do not say it
    shares: ClassVar[bool] = (
        False  # whether the processes of torchrun share its work; else the first one does it
    )

    device: Annotated[str, Arg(metavar="auto|cpu|cuda")] = "auto"
    """where to compute; auto takes a GPU where there is one"""
    quiet: bool = False
    """say nothing but results and errors"""
    debug: bool = False
    """show the traceback of an error"""
    json: bool = False
    """print the result as JSON on standard output"""
    plugin: Annotated[tuple[str, ...], Arg(metavar="FILE.py", each=True)] = ()
    """a Python file that adds methods, data sets, protocols, metrics or formats; it is run"""

    @classmethod
    def lacks(cls, given: Collection[str]) -> list[str]:
        """Fields that have to be given and are not among those `given`."""
        return [word.field for word in words_of(cls) if word.required and word.field not in given]

    def start(self) -> int:
        """Run, print, and give the exit code. Fault DEVICE (exit 2) before anything is loaded."""
        progress.quiet, progress.debug = self.quiet, self.debug
        if not DEVICE.fullmatch(self.device):
            message = f"'{self.device}' is not a device"
            raise Fault("DEVICE", message, "use auto, cpu or cuda", exit=USAGE)
        if (
            not self.shares
            and os.environ.get("RANK", "0") != "0"
            and os.environ.get("WORLD_SIZE", "1") != "1"
        ):
            return 0
        return self.run()

    def run(self) -> int:
        raise NotImplementedError  # abstract

    def show(self, result: Any, text: str | None = None, *, asked: bool = False) -> None:
        """The result as JSON, or as text for people.

        Args:
            asked: the text is all that the command is for, so that ``--quiet`` leaves it.
        """
        if self.json:
            from pseudohealthy.io.atomic import plain

            print(json.dumps(plain(result), indent=2))
        elif text is not None and (asked or not self.quiet):
            print(text)
