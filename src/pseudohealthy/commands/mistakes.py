"""What people mistype, and the line that puts it right: near names, swapped and missing words."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pseudohealthy.commands import kinds
from pseudohealthy.commands.words import Word, flags_of, synopsis, words_of
from pseudohealthy.errors import USAGE, Fault

if TYPE_CHECKING:
    from pseudohealthy.commands.base import Command
    from pseudohealthy.commands.reading import Given

# What only an output holds: such a folder is no input that slipped into --out.
WRITTEN = (
    "findings.json",
    "metrics.json",
    "comparison.json",
    "sweep.json",
    "run.json",
    "recipe.toml",
    "jobs",
)
# What a word processor makes of one or two hyphens: hyphens, dashes, minus, their wide forms.
DASHES = "-‐‑‒–—―−﹘﹣－"
SOURCES = ("data", "input", "source")  # kinds that have to exist and have no names


def fault(message: str, cure: str) -> Fault:
    return Fault("USAGE", message, cure, exit=USAGE)


def near(text: str, names: Iterable[str]) -> str:
    """The name that was meant, or "": the same but for dashes and capitals, begun, or alike."""
    plain = {name.strip("-").lower(): name for name in names}
    wanted = text.lower().replace("_", "-")
    while wanted and not wanted[0].isalnum():
        wanted = wanted[1:]
    begun = [name for name in plain if wanted and name.startswith(wanted)]
    if len(wanted) < 2:  # -o
        return joined((plain[name] for name in begun), "or") if begun else ""
    best = [wanted] if wanted in plain else begun or difflib.get_close_matches(wanted, plain, n=1)
    return plain[best[0]] if best else ""


def joined(names: Iterable[str], last: str = "and") -> str:
    """a, b and c"""
    *most, end = names
    return f"{', '.join(most)} {last} {end}" if most else end


def listed(word: Word) -> str:
    """What a word may be, or where that is listed, for the end of a sentence; else empty."""
    if word.arg.kind in ("recipe", "dataset"):
        where = "recipes" if word.arg.kind == "recipe" else "prepare --help"
        return f" (pseudohealthy {where} lists each {word.metavar})"
    if not word.choices or "|" in word.metavar:
        return ""
    return f", where {word.metavar} is {joined(word.choices, 'or')}"


# -- names that are not there ----------------------------------------------------------------------
def unknown_command(text: str, commands: Iterable[str], flags: Iterable[str]) -> Fault:
    """No command of that name."""
    names = list(commands)
    if text.lstrip("-") != text:
        if found := near(text, ["--help", "--version"]):
            return fault(f"there is no flag {text}", f"did you mean {found}?")
        bare = text.partition("=")[0]
        if bare in flags:
            return fault(
                f"{bare} stands before the command",
                "write: pseudohealthy COMMAND, then its words and flags",
            )
        return fault(f"there is no flag {text}", "pseudohealthy --help lists commands and flags")
    if kinds.is_one("run", text):
        return fault(
            f"'{text}' is a run, not a command",
            f"write: pseudohealthy detect {shlex.quote(text)} INPUT... --out DIR",
        )
    if found := near(text, names):
        return fault(f"there is no command '{text}'", f"did you mean {found}?")
    return fault(f"there is no command '{text}'", f"the commands are {joined(names)}")


def unknown_flag(name: str, text: str, commands: Mapping[str, type[Command]]) -> Fault:
    """No flag of that name in this command: another's, or one of its own with a slip in it."""
    cls = commands[name]
    others = [other for other, its in commands.items() if text in flags_of(its)]
    if others:
        return fault(
            f"{text} belongs to {joined(others)}, not to {name}",
            f"pseudohealthy {name} --help lists its flags",
        )
    own = flags_of(cls)
    bare = text.removeprefix("--no-")
    if bare != text and f"--{bare}" in own and own[f"--{bare}"].of is bool:
        cure = f"--{bare} is off where it is not given: leave it out"
        return fault(f"there is no flag {text}", cure)
    if text == "--version":
        return fault("--version stands alone", "write: pseudohealthy --version")
    if found := near(text, [*own, "--help"]):
        exact = found.strip("-") == text.replace("_", "-").strip(DASHES)
        slip = " (a flag begins with two hyphens)" if exact else ""
        return fault(f"{name} has no flag {text}", f"did you mean {found}?{slip}")
    return fault(f"{name} has no flag {text}", f"pseudohealthy {name} --help lists its flags")


def no_choice(word: Word, text: str) -> Fault:
    """A value that is none of those there are."""
    found = near(text, word.choices)
    hint = f"did you mean {found}? " if found else ""
    return fault(f"{word.name} is '{text}'", f"{hint}it is one of {joined(word.choices, 'or')}")


def no_equals(word: Word, text: str, following: Sequence[str]) -> Fault:
    """A setting without "=": perhaps its value stands behind a space."""
    whole = "." in text or not word.metavar.startswith("SECTION")
    value = following[0] if following and not following[0].startswith("-") else "VALUE"
    line = f"{word.name} {text}={shlex.quote(value)}" if whole else f"{word.name} {word.metavar}"
    code = "RECIPE" if word.metavar.startswith("SECTION") else "USAGE"
    cure = f"write {line}, as {word.metavar} without spaces"
    return Fault(code, f"'{text}' of {word.name} has no '='", cure, exit=USAGE)


def too_many(name: str, cls: type[Command], text: str) -> Fault:
    """A word more than the command takes; perhaps a flag without its dashes."""
    flag = f"--{text.lower()}"
    if flag in flags_of(cls):
        return fault(f"'{text}' is one word too many", f"did you mean {flag}?")
    return fault(f"'{text}' is one word too many", f"write: {' or '.join(synopsis(name, cls))}")


def lacking(name: str, cls: type[Command], given: Given) -> None:
    """Fault USAGE where words that have to be given are not; every one of them is named."""
    missing = cls.lacks(given)
    words = [word for word in words_of(cls) if word.field in missing]
    if words:
        lines = [spelled(name, cls, given)] if given else synopsis(name, cls)
        cure = f"write: {' or '.join(lines)}" + "".join(map(listed, words))
        raise fault(f"{name} needs {joined(word.needed for word in words)}", cure)


# -- the right words in the wrong places -----------------------------------------------------------
def swapped(name: str, cls: type[Command], given: Given) -> None:
    """Fault USAGE where a word got what another one wants, with the line as it was meant."""
    words = [word for word in words_of(cls) if word.arg.kind and word.field in given]
    for word in words:
        if word.arg.kind in kinds.NOUNS:
            _taken_by_another(name, cls, word, words, given)
            _of_another_kind(name, word, given)
    _no_input(name, words, given)
    _input_and_output(name, cls, words, given)


def _taken_by_another(
    name: str, cls: type[Command], word: Word, words: list[Word], given: Given
) -> None:
    kind = word.arg.kind
    wrong = [text for text in given[word.field] if not kinds.is_one(kind, text)]
    for other in words:
        if not wrong or other.arg.kind in (kind, "out"):
            continue
        right = [text for text in given[other.field] if kinds.is_one(kind, text)]
        if right and not kinds.is_one(other.arg.kind, right[0]):
            meant = exchanged(given, (word.field, wrong[0]), (other.field, right[0]))
            line = spelled(name, cls, meant)
            raise fault(
                f"'{right[0]}' is the {kinds.NOUNS[kind]}, and stands in the place of {other.name}",
                f"write: {line}",
            )


def _of_another_kind(name: str, word: Word, given: Given) -> None:
    """A recipe where a run is wanted, or a trained model where a recipe is."""
    text, kind = given[word.field][0], word.arg.kind
    if kinds.is_one(kind, text):
        return
    if kind == "run" and text in kinds.names("recipe") and not Path(text).exists():
        raise fault(
            f"'{text}' is a recipe, and {name} needs a run",
            f"train it first: pseudohealthy train {text} --data DIR --out RUN",
        )
    if kind == "recipe" and kinds.is_one("run", text):
        cure = "pseudohealthy recipes lists them; --resume RUN goes on with a run of yours"
        raise fault(f"'{text}' is a run, and {name} needs a RECIPE", cure)


def _no_input(name: str, words: list[Word], given: Given) -> None:
    """A run among what is to be looked at."""
    for word in words:
        if word.arg.kind != "input":
            continue
        runs = [text for text in given[word.field] if (Path(text) / "recipe.toml").is_file()]
        if runs:
            raise fault(
                f"'{runs[0]}' is a run, not an {word.name}",
                f"{name} takes one RUN, then scans or folders of scans",
            )


def _input_and_output(name: str, cls: type[Command], words: list[Word], given: Given) -> None:
    """An input that does not exist beside an output that does, and holds what could be one."""
    out = next((word for word in words if word.arg.kind == "out"), None)
    source = next((word for word in words if word.arg.kind in SOURCES), None)
    if out is None or source is None or len(given[source.field]) > 1:
        return
    one, other = given[source.field][0], given[out.field][0]
    if re.search("://|#", one) or Path(one).exists():
        return
    if could_be_input(Path(other)):
        line = spelled(name, cls, exchanged(given, (out.field, other), (source.field, one)))
        raise fault(
            f"'{one}' does not exist, and {out.name} '{other}' does: they look swapped",
            f"write: {line}",
        )


def could_be_input(path: Path) -> bool:
    """A file, or a folder that holds something and is no output of ours."""
    if path.is_file():
        return True
    if not path.is_dir() or any((path / name).exists() for name in WRITTEN):
        return False
    return any(path.iterdir())


def exchanged(given: Given, one: tuple[str, str], other: tuple[str, str]) -> Given:
    """What was typed, with two texts in each other's place."""
    swaps = {one: other[1], other: one[1]}
    found = {}
    for field, texts in given.items():
        found[field] = [swaps.get((field, text), text) for text in texts]
    return found


def spelled(name: str, cls: type[Command], given: Given) -> str:
    """The line that says this: what was given, and a name for what is still missing."""
    parts = ["pseudohealthy", name]
    for word in words_of(cls):
        texts = [shlex.quote(text) for text in given.get(word.field, [])]
        if not texts and word.field not in cls.lacks(given):
            continue
        flag = [] if word.arg.positional else [word.name]
        parts += [*flag, *(texts if word.of is not bool else [])] if texts else [word.usage]
    return " ".join(parts)
