"""Colours of pages and plots: tokens.css holds them, for the pages as it is, for plots as a
dictionary."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources


def css() -> str:
    """Return the style sheet that every page begins with."""
    return resources.files(__package__).joinpath("tokens.css").read_text(encoding="utf-8")


@cache
def tokens(group: str) -> dict[str, str]:
    """Return the colours of a group by name, in the order of the file.

    Args:
        group: light (pages and plots), dark (over scans), methods or controls.

    Raises:
        KeyError: for another group.
    """
    block = re.search(rf"^\.{group} {{(.*?)^}}", css(), re.DOTALL | re.MULTILINE)
    if block is None:
        raise KeyError(group)
    return dict(re.findall(r"--([\w-]+): (#\w+);", block[1]))
