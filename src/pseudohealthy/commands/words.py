"""Every word that a command takes, read off its fields: one table for all that reads them.

A field is declared once: its type says what is read, its default what holds without it, the
sentence below it what it means, and `Arg` what a type cannot say. Nothing heavy is imported here,
since `pseudohealthy --help` must answer at once.
"""

from __future__ import annotations

import ast
import itertools
import sys
import types
import typing
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from pseudohealthy.formats import told


@dataclass(frozen=True, kw_only=True)
class Arg:
    """What stands in ``Annotated`` beside the type of a field.

    Args:
        metavar: how help calls the value, such as DIR.
        flag: another name than that of the field, without dashes.
        aliases: further names, without dashes.
        positional: the value stands without a flag.
        kind: what the value is: "run", "recipe", "dataset", "system", "shell", "data", "input" or
            "out". Completion offers it, and swapped words are told apart by it.
        least, most: bounds of a number, both allowed.
        above: a number has to be greater than this.
        choices: the only values, where a table elsewhere says which (else `Literal` says it).
        each: several values, every one behind a flag of its own.
    """

    metavar: str = ""
    flag: str = ""
    aliases: tuple[str, ...] = ()
    positional: bool = False
    kind: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple[str, ...] = ()
    each: bool = False


@dataclass(frozen=True)
class Word:
    """One flag, or one word without a flag, of a command.

    Args:
        field: the attribute of the command that it fills.
        of: bool, int, float, str or Path.
        default: what holds without it; `MISSING` where it has to be given.
        help: one sentence.
        choices: the only values, where there are such.
        many: takes several values.
        arg: what its field says besides.
    """

    field: str
    of: type
    default: Any
    help: str
    choices: tuple[str, ...]
    many: bool
    arg: Arg

    @property
    def name(self) -> str:
        """As it is typed: ``--out``; for a word without a flag as help calls it: ``RUN``."""
        if self.arg.positional:
            return self.metavar
        return "--" + (self.arg.flag or self.field.replace("_", "-"))

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names of a flag, the proper one first."""
        if self.arg.positional:
            return ()
        return self.name, *(f"--{alias}" for alias in self.arg.aliases)

    @property
    def metavar(self) -> str:
        """What stands for the value, without the dots of several."""
        if self.of is bool:
            return ""
        listed = "|".join(self.choices)
        usual = {int: "N", float: "X", str: "TEXT", Path: "PATH"}[self.of]
        if self.arg.metavar or not listed:
            return self.arg.metavar or usual
        return listed if len(listed) <= 30 else "WORD"

    @property
    def pairs(self) -> bool:
        """Whether its values are KEY=VALUE."""
        return "KEY=" in self.metavar

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def needed(self) -> str:
        """How a message calls it when it is missing: ``--out``, or ``a RUN``."""
        if not self.arg.positional:
            return self.name
        return ("an " if self.name[0] in "AEIO" else "a ") + self.name

    @property
    def once(self) -> str:
        """As it is written with one value: ``--out DIR``."""
        return self.metavar if self.arg.positional else f"{self.name} {self.metavar}".rstrip()

    @property
    def usage(self) -> str:
        """As a synopsis shows it: ``RUN``, ``INPUT...``, ``--out DIR``."""
        return self.once + ("..." if self.many else "")


_known: dict[type, tuple[Word, ...]] = {}  # asked for again and again while one line is read


def words_of(cls: type) -> tuple[Word, ...]:
    """The words of a command: those without a flag, then its own flags, then every command's."""
    if cls not in _known:
        _known[cls] = _read_off(cls)
    return _known[cls]


def _read_off(cls: type) -> tuple[Word, ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    said = {name: text.replace("{formats}", told("zip")) for name, text in sentences(cls).items()}
    inherited = {f.name for base in cls.__mro__[1:] if base is not object for f in fields(base)}
    found = [_word(f.name, hints[f.name], _default(f), said.get(f.name, "")) for f in fields(cls)]
    return tuple(sorted(found, key=lambda word: (not word.arg.positional, word.field in inherited)))


def flags_of(cls: type) -> dict[str, Word]:
    """The flags of a command by every spelling."""
    return {spelling: word for word in words_of(cls) for spelling in word.spellings}


def synopsis(name: str, cls: Any) -> list[str]:
    """How a command is written, one line a way: ``pseudohealthy detect RUN INPUT... --out DIR``."""
    words = [word for word in words_of(cls) if word.arg.positional or word.required]
    derived = " ".join(word.usage if word.required else f"[{word.usage}]" for word in words)
    return [f"pseudohealthy {name} {line}".rstrip() for line in cls.ways or (derived,)]


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _word(field: str, hint: Any, default: Any, said: str) -> Word:
    arg = Arg()
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras = typing.get_args(hint)
        arg = next((extra for extra in extras if isinstance(extra, Arg)), arg)
    hint = _without_none(hint)
    many = typing.get_origin(hint) is tuple
    hint = _without_none(typing.get_args(hint)[0]) if many else hint
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else arg.choices
    return Word(field, str if choices else hint, default, said, tuple(choices), many, arg)


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    return next(option for option in typing.get_args(hint) if option is not type(None))


# -- the sentences below the fields ----------------------------------------------------------------
def sentences(cls: type) -> dict[str, str]:
    """By field, the text that stands below it in the class or in one it inherits from."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        body = _classes(base.__module__).get(base.__name__, [])
        for statement, below in itertools.pairwise(body):
            if (
                isinstance(statement, ast.AnnAssign)
                and isinstance(statement.target, ast.Name)
                and (text := _text(below))
            ):
                found[statement.target.id] = text
    return found


@lru_cache
def _classes(module: str) -> dict[str, list[ast.stmt]]:
    """Bodies of the classes of a module of ours; nothing where its source is not at hand."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if not module.startswith("pseudohealthy") or not path or not Path(path).is_file():
        return {}
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}


def _text(statement: ast.stmt) -> str:
    """The text of a statement that is nothing but a text."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
        return ""
    return " ".join(value.value.split())
