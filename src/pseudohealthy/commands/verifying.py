"""Is it still what it was: verify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Arg


@dataclass(kw_only=True)
class Verify(Command):
    """Compare a RUN, or what detect wrote, with the hashes recorded in it, and restore one case of
    it again."""

    folder: Annotated[Path, Arg(positional=True, metavar="RUN|OUT", kind="verified")]
    """a run, or the output folder of detect"""
    data: Annotated[Path | None, Arg(metavar="DIR", kind="data")] = None
    """the data of the run (default: where they lay in training); of what detect wrote: its
    inputs"""
    of: Annotated[Path | None, Arg(flag="run", metavar="RUN", kind="run")] = None
    """the run that wrote what detect wrote; with it and --data one case is detected again"""

    def run(self) -> int:
        from pseudohealthy.workflows.verify import verify

        found = verify(self.folder, data=self.data, run=self.of, device=self.device)
        self.show(found.as_dict(), found.text(), asked=True)
        return found.exit
