"""Is it still what it was: verify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pseudohealthy.commands.base import Command


@dataclass(kw_only=True)
class Verify(Command):
    """Compare a RUN, or what detect wrote, with the hashes recorded in it, and restore one case of it again."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|OUT")]
    data: Path | None = None
    """the data of the run (default: where they lay in training); of what detect wrote: its inputs"""
    of: Annotated[Path | None, tyro.conf.arg(name="run", metavar="RUN")] = None
    """the run that wrote what detect wrote; with it and --data one case is detected again"""

    def run(self) -> int:
        from pseudohealthy.verify import verify

        found = verify(self.folder, data=self.data, run=self.of, device=self.device)
        self.show(found.as_dict(), found.text())
        return found.exit
