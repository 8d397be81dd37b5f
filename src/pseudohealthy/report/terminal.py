"""Tables for people: as wide as the terminal, and elsewhere as wide as they are, so that nothing
that another program reads or a person searches is torn into two lines."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

ENDLESS = 100_000  # characters: wider than any table


def columns(
    rows: Iterable[Sequence[str]], heads: Sequence[str] = (), *, right: Collection[int] = ()
) -> Table:
    """A table without lines, two spaces between its columns.

    Args:
        heads: Of the columns; without any, there is no such line.
        right: Columns that end at their right, such as numbers.
    """
    rows = list(rows)
    table = Table(box=None, show_header=bool(heads), padding=(0, 2, 0, 0), pad_edge=False)
    for index in range(len(heads) or max(map(len, rows), default=0)):
        table.add_column(
            Text(heads[index]) if heads else "",
            justify="right" if index in right else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def text(*parts: RenderableType) -> str:
    """What a console would print of tables and texts, with colours on a terminal alone, and no
    spaces behind the lines. A plain text keeps its own lines."""
    console = Console(width=None if sys.stdout.isatty() else ENDLESS, highlight=False)
    lines: list[str] = []
    for part in parts:
        if isinstance(part, str):
            lines += part.splitlines()
            continue
        with console.capture() as caught:
            console.print(part)
        lines += [line.rstrip() for line in caught.get().splitlines()]
    return "\n".join(lines)
