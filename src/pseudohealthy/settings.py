"""A signature is a configuration: settings, types and ranges are those of the constructor that
takes them.

    def __init__(self, *, draws: Annotated[int, Range(1, 1000)] = 1): ...

From this one declaration a recipe, a flag and a Python call are checked, and the range is shown
where settings are listed. A parameter whose type is a dataclass is a table of settings, and its
default gives the method's own defaults; so is one that the class names in ``nested``, as
{"network": UNet}.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import tomllib
import types
import typing
from collections.abc import Callable, Hashable, Iterable
from typing import Annotated, Any, Literal

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.marks import Mark, shown, words

# What other programs call a setting of ours
SYNONYMS = {
    "lr": "rate",
    "learning_rate": "rate",
    "batch_size": "batch",
    "timesteps": "levels",
    "image_size": "size",
    "optimizer_steps": "steps",
    "iterations": "steps",
    "samples": "draws",
    "ema_decay": "ema",
    "grad_clip": "clip",
    "depth": "start_levels",
    "depths": "start_levels",
    "steps": "calls",
    "patch": "side",  # of version 0.1
}


# -- what may be set -------------------------------------------------------------------------------


def settable(cls: Any, hidden: Iterable[str] = ()) -> dict[str, inspect.Parameter]:
    """Keyword parameters a recipe may set: all but those the canvas or the restorer dictates
    (``dictated``).

    Args:
        hidden: further names that may not be set, by what holds the class as a table.
    """
    dictated = {"self", *getattr(cls, "dictated", ()), *hidden}
    parameters = inspect.signature(cls.__init__).parameters
    return {key: parameter for key, parameter in parameters.items() if key not in dictated}


def tables(cls: Any) -> dict[str, Any]:
    """The settings that are tables, and the class whose signature each table is."""
    typed = {key: hint for key, hint in hints(cls.__init__).items() if is_table(hint)}
    return typed | getattr(cls, "nested", {})


def hidden_in(cls: Any, table: str) -> set[str]:
    """Settings of a table that this class dictates: ``dictated = ("walk.draws",)``."""
    return {
        key.removeprefix(f"{table}.")
        for key in getattr(cls, "dictated", ())
        if key.startswith(f"{table}.")
    }


def default_of(cls: Any, key: str) -> dict[str, Any]:
    """What a table holds where nothing is set, as far as it differs from the table's own
    signature."""
    default = inspect.signature(cls.__init__).parameters[key].default
    return dict(fields_of(default) if dataclasses.is_dataclass(default) else default)


def fields_of(thing: Any) -> dict[str, Any]:
    """The fields of a dataclass, tables within it as they are."""
    return {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)}


def is_table(hint: Any) -> bool:
    """Whether settings of this type stand in a table of their own."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


@functools.lru_cache(maxsize=256)
def hints(init: Hashable) -> dict[str, Any]:
    """The annotations of a constructor, with what they say beyond the type."""
    return typing.get_type_hints(init, include_extras=True)


# -- checking --------------------------------------------------------------------------------------


def build(cls: Any, settings: dict[str, Any], where: str, **given: Any) -> Any:
    """``cls(**settings, **given)`` after a check of names, types and ranges against the signature.

    Raises Fault RECIPE (exit 2), also for settings that the constructor finds to contradict one
    another.
    """
    values, known = check(cls, settings, where), hints(cls.__init__)
    for key, value in values.items():
        if is_table(known.get(key)):
            values[key] = filled(cls.__init__, key, value, f"{where}.{key}")
    try:
        return cls(**values, **given)
    except ValueError as error:
        named = str(error).partition(" = ")[0].partition(".")[0] in settable(cls)
        raise contradiction(error, f"{where}." if named else f"[{where}] ") from None


def check(
    cls: Any, settings: dict[str, Any], where: str, hidden: Iterable[str] = ()
) -> dict[str, Any]:
    """The settings in the signature's types: lists become tuples, whole numbers become floats.

    Raises Fault RECIPE (exit 2) for an unknown name, a wrong type or a value out of range.
    """
    parameters, nested = settable(cls, hidden), tables(cls)
    result = {}
    for key, value in settings.items():
        if key not in parameters:
            below = (
                f"{table}.{name}"
                for table in nested.keys() & parameters.keys()
                for name in settable(nested[table])
            )
            raise unknown_key(key, [*parameters, *sorted(below)], f"{where}.")
        if key not in nested:
            result[key] = coerce(value, hints(cls.__init__).get(key, Any), f"{where}.{key}")
        elif isinstance(value, dict):
            result[key] = check(nested[key], value, f"{where}.{key}", hidden_in(cls, key))
        else:
            raise refusal(f"{where}.{key}", value, f"a table [{where}.{key}]")
    return result


def complete(
    cls: Any, settings: dict[str, Any], where: str, hidden: Iterable[str] = ()
) -> dict[str, Any]:
    """`check` plus the signature's defaults, tables included."""
    found, nested = check(cls, settings, where, hidden), tables(cls)
    result = {}
    for key, parameter in settable(cls, hidden).items():
        if key in nested:
            dictated = hidden_in(cls, key)
            own = {
                name: value for name, value in default_of(cls, key).items() if name not in dictated
            }
            result[key] = complete(
                nested[key], own | found.get(key, {}), f"{where}.{key}", dictated
            )
        elif key in found or parameter.default is not inspect.Parameter.empty:
            result[key] = found.get(key, parameter.default)
    return result


def checked(init: Any) -> Any:
    """A constructor that refuses settings out of their ranges by name, for calls from Python.

    A table may be given as a dict of what differs from the default. Positional arguments are
    objects, not settings, and are passed on.
    """

    @functools.wraps(init)
    def within(self: Any, *args: Any, **given: Any) -> None:
        known, name = hints(init), type(self).__name__
        asked = type(self).__init__ is within  # else a subclass hands on what it has decided itself
        for key, value in given.items():
            if not is_table(known.get(key)):
                given[key] = coerce(value, known.get(key, object), f"{name}.{key}")
                continue
            hidden = hidden_in(type(self), key) if asked else ()
            given[key] = table_of(init, key, value, f"{name}.{key}", hidden)
        init(self, *args, **given)

    return within


def table_of(init: Any, key: str, value: Any, where: str, hidden: Iterable[str]) -> Any:
    """The table `key` of a constructor, given as a dict or whole. Fault RECIPE (exit 2) where it
    says what the method decides itself."""
    if isinstance(value, dict):
        return filled(init, key, value, where, hidden)
    value = coerce(value, hints(init)[key], where)
    default = inspect.signature(init).parameters[key].default
    for setting in hidden:
        if getattr(value, setting) != getattr(default, setting):
            what = (
                f"{where}.{setting} = {shown(getattr(value, setting))}: '{key}' has no such setting"
                " here"
            )
            raise Fault("RECIPE", what, "leave it out: the method itself says it", exit=USAGE)
    return value


def filled(
    init: Any, key: str, settings: dict[str, Any], where: str, hidden: Iterable[str] = ()
) -> Any:
    """The table `key` of a constructor: its default, with these settings in the place of the
    default's."""
    cls, default = hints(init)[key], inspect.signature(init).parameters[key].default
    values = check(cls, settings, where, hidden)
    try:
        return dataclasses.replace(default, **values)
    except ValueError as error:
        raise contradiction(error, f"{where}.") from None


def contradiction(error: ValueError, where: str) -> Fault:
    """The fault of settings that contradict one another, from an error that says "what was found:
    what to do"."""
    found, _, cure = str(error).partition(": ")
    return Fault("RECIPE", f"{where}{found}", cure or "correct the recipe", exit=USAGE)


def check_fields(thing: Any, name: Callable[[str], str]) -> None:
    """Bring the fields of a dataclass to their types, frozen or not; Fault RECIPE (exit 2) under
    ``name(field)`` otherwise."""
    kind: Any = type(thing)
    for key, hint in hints(kind).items():
        if key in kind.__dataclass_fields__:
            object.__setattr__(thing, key, coerce(getattr(thing, key), hint, name(key)))


def coerce(value: Any, hint: Any, where: str) -> Any:
    """The value in the type that `hint` annotates. Fault RECIPE (exit 2) where it has another, or
    is out of range."""
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
    # Of those of several tables, the first.
    last = {name.rpartition(".")[2]: name for name in reversed(known)}
    own = [name for name in known if "." not in name]
    near = (
        [SYNONYMS[key]] if SYNONYMS.get(key) in last else difflib.get_close_matches(key, own, n=1)
    )
    # In other tables only what is much like it.
    near = near or difflib.get_close_matches(key, last, n=1, cutoff=0.7)
    cure = f"did you mean '{last[near[0]]}'?" if near else f"known keys: {', '.join(own) or 'none'}"
    if key in known:  # dots within quotes
        cure = f"write {key} without quotes"
    return Fault("RECIPE", f"the recipe key {where + key!r} is unknown", cure, exit=USAGE)


def refusal(where: str, value: Any, wanted: str, why: str = "cannot be used") -> Fault:
    """The fault of a value that a setting does not take."""
    return Fault("RECIPE", f"{where} = {shown(value)} {why}", f"give {wanted}", exit=USAGE)


# -- telling ---------------------------------------------------------------------------------------


def ranges(cls: Any, where: str, hidden: Iterable[str] = ()) -> dict[str, str]:
    """What every setting takes, in words, by its name as in ``--set``."""
    found: dict[str, str] = {}
    nested = tables(cls)
    for key in settable(cls, hidden):
        if key in nested:
            found |= ranges(nested[key], f"{where}.{key}", hidden_in(cls, key))
        else:
            found[f"{where}.{key}"] = words(hints(cls.__init__).get(key, Any))
    return found


def literal(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text
