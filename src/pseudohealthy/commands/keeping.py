"""What the program keeps for later: cache."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Arg
from pseudohealthy.counts import many


@dataclass(kw_only=True)
class Cache(Command):
    """Show how much room the images kept for training take, or clear them; a training makes them
    again."""

    clear: bool = False
    """remove them"""
    cache: Annotated[Path | None, Arg(metavar="DIR")] = None
    """the folder given to train --cache, if it was; default $XDG_CACHE_HOME/pseudohealthy/planes"""

    def run(self) -> int:
        from pseudohealthy.report.terminal import columns, text
        from pseudohealthy.training import plane_cache

        folder = self.cache or plane_cache.home()
        found = plane_cache.clear(folder) if self.clear else plane_cache.entries(folder)
        told = {**plane_cache.described(folder, found), "cleared": self.clear}
        size = f"{told['bytes'] / 1e6:,.2f} MB"
        if self.clear:
            self.show(told, f"{folder}: {len(found)} removed, {size} freed")
            return 0
        rows = [
            (
                one.name,
                many(one.planes, "plane"),
                f"{one.bytes / 1e6:,.2f} MB",
                time.strftime("used %Y-%m-%d", time.localtime(one.used)),
            )
            for one in found
        ]
        first = f"{folder}: {len(found)} kept, {size}"
        table = columns(rows, right=(1, 2))
        self.show(told, text(first, table, "clear them with --clear") if found else first)
        return 0
