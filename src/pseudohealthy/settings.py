"""A signature is a configuration: the settings, their types and their ranges are those of the constructor that takes them.

    def __init__(self, *, draws: Annotated[int, Range(1, 1000)] = 1): ...

From this one declaration a recipe, a flag and a Python call are checked, and the range is shown where settings are listed.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import tomllib
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault

# What other programs call a setting of ours
SYNONYMS = {
    "lr": "rate", "learning_rate": "rate", "batch_size": "batch", "timesteps": "levels", "image_size": "size",
    "optimizer_steps": "steps", "iterations": "steps", "samples": "draws", "ema_decay": "ema", "grad_clip": "clip",
}  # fmt: skip


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
    """The path of a file or folder that a training starts from; "" for none. It is read then only."""


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


# -- checking ------------------------------------------------------------------------------------------------------


def build(cls: Any, settings: dict[str, Any], where: str, **given: Any) -> Any:
    """``cls(**settings, **given)`` after a check of names, types and ranges against the signature.

    Raises Fault RECIPE (exit 2), also for settings that the constructor finds to contradict one another.
    """
    checked_settings = check(cls, settings, where)
    try:
        return cls(**checked_settings, **given)
    except ValueError as error:
        found, _, cure = str(error).partition(": ")
        named = found.partition(" = ")[0] in settable(cls)
        found = f"{where}.{found}" if named else f"[{where}] {found}"
        raise Fault("RECIPE", found, cure or "correct the recipe", exit=USAGE) from None


def check(cls: Any, settings: dict[str, Any], where: str) -> dict[str, Any]:
    """The settings in the signature's types: lists become tuples, whole numbers become floats.

    Raises Fault RECIPE (exit 2) for an unknown name, a wrong type or a value out of range.
    """
    parameters, nested = settable(cls), getattr(cls, "nested", {})
    result = {}
    for key, value in settings.items():
        if key not in parameters:
            raise unknown_key(key, parameters, f"{where}.")
        if key not in nested:
            result[key] = coerce(value, hints(cls.__init__).get(key, Any), f"{where}.{key}")
        elif isinstance(value, dict):
            result[key] = check(nested[key], value, f"{where}.{key}")
        else:
            raise refusal(f"{where}.{key}", value, f"a table [{where}.{key}]")
    return result


def complete(cls: Any, settings: dict[str, Any], where: str) -> dict[str, Any]:
    """`check` plus the signature's defaults, nested tables included."""
    found, nested = check(cls, settings, where), getattr(cls, "nested", {})
    result = {}
    for key, parameter in settable(cls).items():
        if key in nested:
            result[key] = complete(nested[key], found.get(key, {}), f"{where}.{key}")
        elif key in found or parameter.default is not inspect.Parameter.empty:
            result[key] = found.get(key, parameter.default)
    return result


def settable(cls: Any) -> dict[str, inspect.Parameter]:
    """Keyword parameters a recipe may set: all but those the canvas or the restorer dictates (``dictated``)."""
    dictated = getattr(cls, "dictated", ())
    parameters = inspect.signature(cls.__init__).parameters
    return {k: p for k, p in parameters.items() if k not in ("self", *dictated)}


@functools.lru_cache(maxsize=256)
def hints(init: Hashable) -> dict[str, Any]:
    """The annotations of a constructor, with what they say beyond the type."""
    return typing.get_type_hints(init, include_extras=True)


def checked(init: Any) -> Any:
    """A constructor that refuses settings out of their ranges by name, for calls from Python.

    Positional arguments are objects, not settings, and are passed on.
    """

    @functools.wraps(init)
    def within(self: Any, *args: Any, **given: Any) -> None:
        known, name = hints(init), type(self).__name__
        init(self, *args, **{k: coerce(v, known.get(k, Any), f"{name}.{k}") for k, v in given.items()})

    return within


def check_fields(
    thing: Any, name: Callable[[str], str], code: str = "RECIPE", only: Callable[[Any], bool] | None = None
) -> None:
    """Bring the fields of a dataclass to their types, frozen or not; Fault (exit 2) under ``name(field)`` otherwise.

    Args:
        only: which annotations are looked at; by default all.
    """
    kind: Any = type(thing)
    for key, hint in hints(kind).items():
        if key in kind.__dataclass_fields__ and (only is None or only(hint)):
            try:
                object.__setattr__(thing, key, coerce(getattr(thing, key), hint, name(key)))
            except Fault as fault:
                raise Fault(code, fault.message, fault.cure, exit=USAGE) from None


def coerce(value: Any, hint: Any, where: str) -> Any:
    """The value in the type that `hint` annotates. Fault RECIPE (exit 2) where it has another, or is out of range."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return marked(value, hint, where)
    if origin is Literal:
        return chosen(value, hint, where)
    if origin is tuple:
        return listed(value, hint, where)
    if origin in (typing.Union, types.UnionType):
        return first_of(value, args, hint, where)
    if hint in (int, float):
        return number(value, hint, where)
    if isinstance(hint, type) and hint is not object and not isinstance(value, hint):
        raise refusal(where, value, words(hint))
    return value


def marked(value: Any, hint: Any, where: str) -> Any:
    """A value whose annotation says more than its type."""
    kind, *marks = typing.get_args(hint)
    try:
        value = coerce(value, kind, where)
    except Fault as fault:
        if where in fault.message and "out of range" in fault.message:  # of one value of a list
            raise
        raise refusal(where, value, words(hint)) from None
    if not all(mark.holds(value) for mark in marks if isinstance(mark, Mark)):
        raise refusal(where, value, words(hint), "is out of range")
    return value


def chosen(value: Any, hint: Any, where: str) -> Any:
    for option in typing.get_args(hint):
        if type(option) is type(value) and option == value:
            return value
    raise refusal(where, value, words(hint))


def listed(value: Any, hint: Any, where: str) -> tuple[Any, ...]:
    """A tuple; one value stands for a list of one."""
    args = typing.get_args(hint)
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    inner = [args[0]] * len(values) if len(args) == 2 and args[1] is Ellipsis else list(args)
    if len(inner) != len(values):
        raise refusal(where, value, f"{many(len(inner), 'value')}")
    return tuple(coerce(v, h, where) for v, h in zip(values, inner, strict=True))


def first_of(value: Any, options: Iterable[Any], hint: Any, where: str) -> Any:
    fault: Fault | None = None
    for option in options:
        try:
            return coerce(value, option, where)
        except Fault as found:
            fault = fault or found
    raise fault or refusal(where, value, words(hint))


def number(value: Any, kind: type, where: str) -> Any:
    """An int or a float. NaN is no number; a whole number is a float as well."""
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise refusal(where, value, words(kind))
    try:
        found = kind(value)
    except OverflowError:
        raise refusal(where, value, words(kind), "is out of range") from None
    if isinstance(found, float) and math.isnan(found):
        raise refusal(where, value, words(kind))
    return found


def unknown_key(key: str, known: Iterable[str], where: str) -> Fault:
    """The fault of a key that is not there, with the one that was probably meant."""
    known = list(known)
    near = [SYNONYMS[key]] if SYNONYMS.get(key) in known else difflib.get_close_matches(key, known, n=1)
    cure = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known) or 'none'}"
    return Fault("RECIPE", f"the recipe key {where + key!r} is unknown", cure, exit=USAGE)


def refusal(where: str, value: Any, wanted: str, why: str = "cannot be used") -> Fault:
    """The fault of a value that a setting does not take."""
    return Fault("RECIPE", f"{where} = {shown(value)} {why}", f"give {wanted}", exit=USAGE)


# -- telling -------------------------------------------------------------------------------------------------------


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
        return f"each {inner}" if args[-1] is Ellipsis else f"{many(len(args), 'value')}, each {inner}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(words(arg) for arg in args if arg is not type(None))
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text in quotes", dict: "a table"}
    return simple.get(hint, getattr(hint, "__name__", str(hint)))


def undeclared(cls: Any, where: str) -> Iterator[str]:
    """Settings whose annotation says no range and needs one: numbers, texts and lists without a mark."""
    for key in settable(cls):
        if key in getattr(cls, "nested", {}):
            yield from undeclared(cls.nested[key], f"{where}.{key}")
        elif not declared(hints(cls.__init__).get(key, Any)):
            yield f"{where}.{key}"


def declared(hint: Any) -> bool:
    """Whether every value of the annotated type may be taken, or a mark says which."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inside = typing.get_origin(args[0]) is not tuple or declared(args[0])
        return inside and any(isinstance(mark, Mark) for mark in args[1:])
    if origin in (tuple, typing.Union, types.UnionType):
        return all(declared(arg) for arg in args if arg not in (Ellipsis, type(None)))
    return hint is bool or origin is Literal


def ranges(cls: Any, where: str) -> dict[str, str]:
    """What every setting takes, in words, by its name as in ``--set``."""
    found: dict[str, str] = {}
    for key in settable(cls):
        if key in getattr(cls, "nested", {}):
            found |= ranges(cls.nested[key], f"{where}.{key}")
        else:
            found[f"{where}.{key}"] = words(hints(cls.__init__).get(key, Any))
    return found


def literal(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text
