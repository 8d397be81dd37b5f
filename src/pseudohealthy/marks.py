"""What a setting takes: an annotation says its type, its range and how both are told."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pseudohealthy.counts import many


class Mark:
    """Something an annotation says of a value beyond its type."""

    def holds(self, value: Any) -> bool:
        """Whether the value, of the annotated type already, may be taken."""
        raise NotImplementedError  # abstract

    def words(self, kind: str) -> str:
        """What may be given, in words; `kind` says the type."""
        raise NotImplementedError  # abstract


@dataclass(frozen=True)
class Range(Mark):
    """Numbers from `low` to `high`.

    Args:
        open: which of the two ends do not belong to it.
        step: only every so many numbers from `low` on, such as odd ones.
        also: further values, such as 0 for none.
    """

    low: float
    high: float
    open: Literal["", "low", "high", "both"] = ""
    step: int = 0
    also: tuple[float, ...] = ()

    def holds(self, value: Any) -> bool:
        if value in self.also:
            return True
        above = value > self.low or (value == self.low and self.open not in ("low", "both"))
        below = value < self.high or (value == self.high and self.open not in ("high", "both"))
        return above and below and not (self.step and (value - self.low) % self.step)

    def words(self, kind: str) -> str:
        if self.step == 2:
            kind = "an odd number" if self.low % 2 else "an even number"
        elif self.step:
            kind = f"a multiple of {self.step}"
        low = ("above " if self.open in ("low", "both") else "from ") + plain(self.low)
        high = ("below " if self.open in ("high", "both") else "to ") + plain(self.high)
        joint = " and " if self.open == "both" else ", up " if self.open == "low" else " "
        joint = " and " if self.open == "high" else joint
        return "".join(f"{plain(value)}, or " for value in self.also) + f"{kind} {low}{joint}{high}"


@dataclass(frozen=True, init=False)
class Choice(Mark):
    """One of a few values, where a table elsewhere says which (else `Literal` says it)."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any):
        object.__setattr__(self, "values", values)

    def holds(self, value: Any) -> bool:
        return value in self.values

    def words(self, kind: str) -> str:
        return either(self.values)


@dataclass(frozen=True)
class Length(Mark):
    """How many values a list has: from `low` to `high`, or one of `also`."""

    low: int
    high: int
    also: tuple[int, ...] = ()

    def holds(self, value: Any) -> bool:
        return self.low <= len(value) <= self.high or len(value) in self.also

    def words(self, kind: str) -> str:
        many = f"{self.low} to {self.high}" if self.low < self.high else str(self.low)
        return "".join(f"{count or 'no'} or " for count in self.also) + f"{many} values, {kind}"


@dataclass(frozen=True)
class Aside(Mark):
    """Takes whatever the marks before it take; a rule about the value, said beside its range."""

    says: str

    def holds(self, value: Any) -> bool:
        return True

    def words(self, kind: str) -> str:
        return f"{kind}; {self.says}"


@dataclass(frozen=True)
class Text(Mark):
    """Free text: what it says."""

    says: str

    def holds(self, value: Any) -> bool:
        return len(value) <= 4096 and value.isprintable()

    def words(self, kind: str) -> str:
        return self.says


class File(Text):
    """The path of a file or folder that a training starts from; "" for none. It is read then
    only."""


def plain(value: float) -> str:
    """A number as one types it."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def either(values: Iterable[Any]) -> str:
    """a, b or c."""
    *most, last = (f"{value}" for value in values)
    return f"{', '.join(most)} or {last}" if most else last


def shown(value: Any) -> str:
    """A value in a message; a number of thousands of digits has no decimal form."""
    try:
        return repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:
        return "a number of thousands of digits"


def words(hint: Any) -> str:
    """What a setting takes, in words, from its annotation."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        text = words(args[0])
        for mark in (mark for mark in args[1:] if isinstance(mark, Mark)):
            text = mark.words(text)
        return text
    if origin is Literal:
        return either(args)
    if origin is tuple:
        inner = words(args[0])
        return (
            f"each {inner}" if args[-1] is Ellipsis else f"{many(len(args), 'value')}, each {inner}"
        )
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(arg) for arg in args if arg is not type(None))
    simple = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text in quotes",
        dict: "a table",
    }
    return simple.get(hint, getattr(hint, "__name__", str(hint)))
