"""What `--help` prints, at most 80 columns wide."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING

from pseudohealthy.commands import kinds
from pseudohealthy.commands.base import Command
from pseudohealthy.commands.mistakes import joined
from pseudohealthy.commands.words import Word, synopsis, words_of

WIDEST, NARROWEST = 80, 40  # columns
ABOUT = "Find disease in medical images by restoring each scan to its healthy twin."
ONLY = "Research use only."
MORE = (
    "`pseudohealthy COMMAND --help` says what a command takes. Words are completed after "
    '`eval "$(pseudohealthy completion bash)"`.'
)
ALONE = {"--help": "this text; after a command, what that one takes", "--version": "the version"}


def width() -> int:
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))


def program(commands: Mapping[str, type[Command]]) -> str:
    """What `pseudohealthy --help` prints: every command with its first sentence."""
    rows = {name: first(cls) for name, cls in commands.items()}
    lines = ["usage: pseudohealthy COMMAND ...", "", *wrapped(f"{ABOUT} {ONLY}"), ""]
    lines += ["commands:", *table(rows)]
    lines += ["", "alone:", *table(ALONE), ""]
    lines += wrapped(MORE)
    return "\n".join(lines)


def of(name: str, cls: type[Command]) -> str:
    """What `pseudohealthy COMMAND --help` prints."""
    own, common = parts(cls)
    lines = [*usage(name, cls), "", *wrapped(about(cls)), ""]
    loose = [word for word in own if word.arg.positional]
    flags = [word for word in own if not word.arg.positional]
    for title, words in (("words", loose), ("flags", flags), ("in every command", common)):
        if words:
            lines += [f"{title}:", *table({heading(word): sentence(word) for word in words}), ""]
    return "\n".join(lines).rstrip()


def usage(name: str, cls: type[Command]) -> list[str]:
    """The synopsis, each way on lines of its own."""
    lines: list[str] = []
    for way in synopsis(name, cls):
        begin = "       " if lines else "usage: "
        lines += wrapped(f"{way} [flags]", begin, " " * 11)
    return lines


def parts(cls: type[Command]) -> tuple[list[Word], list[Word]]:
    """The words of a command, and those of every command."""
    common = {word.field for word in words_of(Command)}
    words = words_of(cls)
    return [w for w in words if w.field not in common], [w for w in words if w.field in common]


def about(cls: type[Command]) -> str:
    return " ".join((cls.__doc__ or "").split())


def first(cls: type[Command]) -> str:
    """The first sentence about a command, without its stop."""
    return re.split(r"(?<!\.)\. ", about(cls))[0].rstrip(".")


def heading(word: Word) -> str:
    """A word with its other names: ``--calls N, --levels N``."""
    return ", ".join([word.usage, *(f"--{alias} {word.metavar}" for alias in word.arg.aliases)])


def sentence(word: Word) -> str:
    """What a word means, what it may be, and what holds without it."""
    listed = word.choices and "|" not in word.metavar
    names = word.choices if listed else tuple(kinds.names(word.arg.kind))
    said = [word.help]
    if word.arg.kind == "recipe":
        said.append(f"`pseudohealthy recipes` lists all {len(names)}, such as {joined(names[:3])}")
    elif word.arg.kind == "run":
        if word.arg.positional:
            said.append(f"a run folder, or a model that comes along: {joined(names, 'or')}")
    elif names:
        said.append(f"{'one or more' if word.many else 'one'} of {', '.join(names)}")
    return "; ".join(filter(None, said)) + without(word)


def without(word: Word) -> str:
    """What holds where the word is not given, in brackets."""
    if word.default is MISSING:
        return " (required)" if not word.arg.positional else ""
    if word.default in (None, False, "", (), 0):
        return ""
    shown = " ".join(word.default) if isinstance(word.default, tuple) else word.default
    return f" (default: {shown})"


def wrapped(text: str, begin: str = "", then: str = "") -> list[str]:
    lines = textwrap.TextWrapper(width(), initial_indent=begin, subsequent_indent=then)
    lines.break_long_words = lines.break_on_hyphens = False
    return lines.wrap(text)


def table(rows: Mapping[str, str]) -> list[str]:
    """Names at the left, what they mean beside them, or below where a name is long."""
    most, lines = width(), []
    column = min(max(map(len, rows)), 22) + 4
    for name, text in rows.items():
        body = textwrap.wrap(text, most - column, break_on_hyphens=False) or [""]
        if len(name) + 4 > column:
            lines += wrapped(name, "  ", "      ")
        else:
            lines.append(f"  {name:{column - 2}}{body.pop(0)}".rstrip())
        lines += [" " * column + line for line in body]
    return lines
