"""A recipe is a restorer's signature written down: canvas, restorer, training and anomaly map of one experiment.

Every section of the TOML file is the keyword signature of one class, so that recipe key = ``--set`` flag = saved setting.
Unknown keys and wrong types are refused by name.
"""

from __future__ import annotations

import difflib
import inspect
import json
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pseudohealthy.errors import USAGE, Fault

FOLDER = Path(__file__).parent / "recipes"
SECTIONS = ("canvas", "restorer", "training", "map")


@dataclass
class Recipe:
    """One experiment: ``canvas`` (Canvas), ``restorer`` (name + its signature), ``training`` (Budget), ``map`` (AnomalyMap)."""

    name: str
    summary: str = ""
    source: str = ""
    canvas: dict[str, Any] = field(default_factory=dict)
    restorer: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    map: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str | Path) -> Recipe:
        """By name (``mnist-splotch-small``) or by path to a TOML file. Fault RECIPE (exit 2) when it is neither or invalid."""
        path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
        if not path.is_file():
            near = difflib.get_close_matches(str(name), names(), n=1)
            hint = (
                f"did you mean '{near[0]}'?"
                if near
                else "`pseudohealthy recipes` lists the names; a path must end in .toml"
            )
            raise Fault("RECIPE", f"there is no recipe '{name}'", hint, exit=USAGE)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise Fault(
                "RECIPE", f"{path.name} cannot be read as text: {error}", "save it in UTF-8", exit=USAGE
            ) from None
        return cls.parse(text, path.stem if path.parent == FOLDER else None)

    @classmethod
    def parse(cls, text: str, name: str | None = None) -> Recipe:
        """From TOML text; ``name`` overrides the one in the text."""
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also of numbers beyond all measure
            said = "".join(c if c.isprintable() else "?" for c in str(error))[:200]
            raise Fault("RECIPE", f"the recipe is not valid TOML: {said}", "correct that line", exit=USAGE) from None
        known = {"name", "summary", "source", *SECTIONS}
        for key in content:
            if key not in known:
                raise unknown_key(key, known, "")
        for section in SECTIONS:
            if not isinstance(content.get(section, {}), dict):
                raise Fault("RECIPE", f"'{section}' is not a table", f"write [{section}] above its keys", exit=USAGE)
        for key in ("name", "summary", "source"):
            if not isinstance(content.get(key, ""), str):
                raise wrong_type(key, content[key], "text in quotes")
        content["name"] = name or content.get("name", "custom")
        return cls(**content)

    def set(self, assignments: typing.Iterable[str]) -> Recipe:
        """Apply ``section.key=value`` texts (TOML values; bare words are strings); returns self."""
        for text in assignments:
            key, equals, value = text.partition("=")
            section, *path = key.strip().split(".")
            if not equals or section not in SECTIONS or not path:
                raise Fault(
                    "RECIPE",
                    f"'{text}' is not a setting",
                    f"write SECTION.KEY=VALUE with SECTION one of {', '.join(SECTIONS)}",
                    exit=USAGE,
                )
            table = getattr(self, section)
            for part in path[:-1]:
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    raise unknown_key(key.strip(), (), "")
            table[path[-1]] = literal(value.strip())
        return self

    # Each of these builds one noun from its section; all defaults come from its signature.
    def make_canvas(self):
        from pseudohealthy.canvas import Canvas
        from pseudohealthy.preprocessing import expanded

        return build(Canvas, expanded(self.canvas), "canvas")

    def make_restorer(self):
        """The untrained restorer; the canvas gives it ``size`` and ``channels``."""
        from pseudohealthy.restorers import restorer_class

        settings = dict(self.restorer)
        cls = restorer_class(settings.pop("name", None))
        canvas = self.make_canvas()
        try:
            return build(cls, settings, "restorer", size=canvas.size, channels=canvas.channels)
        except ValueError as error:  # settings that contradict one another
            raise Fault("RECIPE", f"[restorer] {error}", "correct the recipe", exit=USAGE) from None

    def make_budget(self):
        from pseudohealthy.training.budget import Budget

        return build(Budget, self.training, "training")

    def make_map(self):
        from pseudohealthy.maps import AnomalyMap

        return build(AnomalyMap, self.map, "map")

    def resolved(self) -> Recipe:
        """The same recipe with every default written out, checked against the signatures."""
        from pseudohealthy.canvas import Canvas
        from pseudohealthy.maps import AnomalyMap
        from pseudohealthy.preprocessing import expanded
        from pseudohealthy.restorers import restorer_class
        from pseudohealthy.training.budget import Budget

        cls = restorer_class(self.restorer.get("name"))
        own = {k: v for k, v in self.restorer.items() if k != "name"}
        return Recipe(
            name=self.name,
            summary=self.summary,
            source=self.source,
            canvas=complete(Canvas, expanded(self.canvas), "canvas"),
            restorer={"name": self.restorer["name"], **complete(cls, own, "restorer")},
            training=complete(Budget, self.training, "training"),
            map=complete(AnomalyMap, self.map, "map"),
        )

    def toml(self) -> str:
        """The recipe as TOML text that `parse` reads back to an equal recipe."""
        lines = [f"{key} = {toml_value(getattr(self, key))}" for key in ("name", "summary", "source")]
        for section in SECTIONS:
            lines += toml_table(section, getattr(self, section))
        return "\n".join(lines) + "\n"


def names() -> list[str]:
    """The built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def build(cls, settings: dict[str, Any], where: str, **given):
    """``cls(**settings, **given)`` after checking names and types against the signature."""
    return cls(**check(cls, settings, where), **given)


def check(cls, settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Settings with TOML's types brought to the signature's (lists to tuples, ints to floats); Fault RECIPE otherwise."""
    parameters = settable(cls)
    hints = typing.get_type_hints(cls.__init__)
    nested = getattr(cls, "nested", {})
    result = {}
    for key, value in settings.items():
        if key not in parameters:
            raise unknown_key(key, parameters, f"{where}.")
        if key in nested:
            if not isinstance(value, dict):
                raise wrong_type(f"{where}.{key}", value, f"a table [{where}.{key}]")
            result[key] = check(nested[key], value, f"{where}.{key}")
        else:
            result[key] = coerce(value, hints.get(key, Any), f"{where}.{key}")
    return result


def complete(cls, settings: dict[str, Any], where: str) -> dict[str, Any]:
    """`check` plus the signature's defaults, nested tables included."""
    checked = check(cls, settings, where)
    nested = getattr(cls, "nested", {})
    result = {}
    for key, parameter in settable(cls).items():
        if key in nested:
            result[key] = complete(nested[key], checked.get(key, {}), f"{where}.{key}")
        elif key in checked or parameter.default is not inspect.Parameter.empty:
            result[key] = checked.get(key, parameter.default)
    return result


def settable(cls) -> dict[str, inspect.Parameter]:
    """Keyword parameters a recipe may set: all but those the canvas or the restorer dictates (``dictated``)."""
    dictated = getattr(cls, "dictated", ())
    parameters = inspect.signature(cls.__init__).parameters
    return {k: p for k, p in parameters.items() if k not in ("self", *dictated)}


def coerce(value: Any, hint: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is typing.Literal:
        if value not in args:
            raise wrong_type(where, value, " | ".join(map(str, args)))
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            value = [value]
        inner = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(inner) != len(value):
            raise wrong_type(where, value, f"{len(inner)} values")
        return tuple(coerce(v, h, where) for v, h in zip(value, inner, strict=True))
    if origin in (typing.Union, getattr(__import__("types"), "UnionType", None)):
        for option in args:
            try:
                return coerce(value, option, where)
            except Fault:
                continue
        raise wrong_type(where, value, str(hint))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and (not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)):
        raise wrong_type(where, value, hint.__name__)
    return value


def unknown_key(key: str, known: typing.Iterable[str], where: str) -> Fault:
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known) or 'none'}"
    return Fault("RECIPE", f"the recipe key {where + key!r} is unknown", hint, exit=USAGE)


def wrong_type(where: str, value: Any, wanted: str) -> Fault:
    return Fault("RECIPE", f"the recipe key '{where}' is {value!r}", f"give {wanted}", exit=USAGE)


def literal(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (ValueError, RecursionError):
        return text


def toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML's basic strings, but for DEL
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return repr(value)


def toml_table(name: str, table: dict[str, Any]) -> list[str]:
    plain = {k: v for k, v in table.items() if not isinstance(v, dict) and v is not None}  # TOML has no null: absent
    lines = ["", f"[{name}]", *(f"{k} = {toml_value(v)}" for k, v in plain.items())]
    for key, inner in table.items():
        if isinstance(inner, dict):
            lines += toml_table(f"{name}.{key}", inner)
    return lines
