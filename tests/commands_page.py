"""docs/commands.md: every command and flag, as the program itself reads them. python
tests/commands_page.py > docs/commands.md"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pseudohealthy.cli import COMMANDS
from pseudohealthy.commands import helping
from pseudohealthy.commands.base import Command
from pseudohealthy.commands.words import Word, synopsis, words_of

PAGE = """# Commands

Every command with everything it takes. This page is written by `make commands`, from the words
that the program itself reads, and a test holds the two equal. `pseudohealthy COMMAND --help` says
the same.

Flags stand after the command, as `--flag VALUE` or `--flag=VALUE`. A flag that is given twice with
different values is refused, but for those that take several. `--` ends the flags: what follows is
taken as it stands.
"""


def page(commands: Mapping[str, type[Command]]) -> str:
    """The whole of docs/commands.md."""
    common = words_of(Command)
    lines = [
        PAGE,
        "## In every command",
        "",
        *rows(common),
        "",
        "`pseudohealthy --version` and `--help` stand alone.",
        "",
    ]
    for name, cls in commands.items():
        lines += [
            f"## {name}",
            "",
            escaped(helping.about(cls)),
            "",
            "```",
            *synopsis(name, cls),
            "```",
            "",
        ]
        if own := helping.parts(cls)[0]:
            lines += [*rows(own), ""]
    return "\n".join(lines)


def rows(words: Iterable[Word]) -> list[str]:
    """A table of words."""
    cells = ((escaped(helping.heading(word)), escaped(helping.sentence(word))) for word in words)
    lines = (f"| <code>{name}</code> | {said} |" for name, said in cells)
    return ["| word | what it does |", "|---|---|", *lines]


def escaped(text: str) -> str:
    """Text in which nothing is a mark of the page."""
    return text.replace("<", "&lt;").replace("|", "&#124;").replace("*", "\\*")


if __name__ == "__main__":
    print(page(COMMANDS), end="")
