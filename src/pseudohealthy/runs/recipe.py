"""A recipe is a restorer's signature written down: canvas, restorer, training and anomaly map of
one experiment.

Every section of the TOML file is the keyword signature of one class, so that recipe key = ``--set``
flag = saved setting. Unknown keys and wrong types are refused by name.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from pseudohealthy.errors import REFUSED, USAGE, Fault
from pseudohealthy.lazy import lazy
from pseudohealthy.marks import File, shown
from pseudohealthy.preprocessing.published import expanded
from pseudohealthy.registry import load_file
from pseudohealthy.restorers import restorer_class
from pseudohealthy.runs.migration import Path as Names
from pseudohealthy.runs.migration import leaves, migrated, named
from pseudohealthy.settings import (
    build,
    complete,
    hints,
    literal,
    ranges,
    refusal,
    tables,
    unknown_key,
)

FOLDER = Path(__file__).parents[1] / "recipes"
SECTIONS = ("canvas", "restorer", "training", "map")
# Whose signature a section is; the restorer's name says its own
CLASSES = {
    "canvas": "preprocessing.canvas:Canvas",
    "training": "runs.budget:Budget",
    "map": "maps.anomaly_map:AnomalyMap",
}
MOST_PARAMETERS = 2_000_000_000  # 40 GB with gradients, moments and averaged weights
MOST_CALLS = 20_000  # of networks, for one image: the longest published walk makes 1,500


@dataclass
class Recipe:
    """One experiment: ``canvas`` (Canvas), ``restorer`` (name + its signature), ``training``
    (Budget), ``map`` (AnomalyMap)."""

    name: str
    summary: str = ""
    source: str = ""
    canvas: dict[str, Any] = field(default_factory=dict)
    restorer: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    map: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str | Path, *, plugins: bool = False) -> Recipe:
        """By name (``mnist-splotch-small``) or by path to a TOML file. Fault RECIPE (exit 2) when
        it is neither or invalid."""
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
                "RECIPE",
                f"{path.name} cannot be read as text: {error}",
                "save it in UTF-8",
                exit=USAGE,
            ) from None
        named = path.stem if path.parent == FOLDER else None
        return cls.parse(text, named, plugins=path.parent if plugins else None)

    @classmethod
    def parse(cls, text: str, name: str | None = None, *, plugins: Path | None = None) -> Recipe:
        """From TOML text; ``name`` overrides the one in the text; ``plugins``: the folder of the
        plugin that it may name."""
        try:
            content = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # also of numbers beyond all measure
            said = "".join(c if c.isprintable() else "?" for c in str(error))[:200]
            raise Fault(
                "RECIPE", f"the recipe is not valid TOML: {said}", "correct that line", exit=USAGE
            ) from None
        load_plugin(content.pop("plugin", None), plugins)
        known = ("name", "summary", "source", *SECTIONS)
        for key in content:
            if key not in known:
                raise unknown_key(
                    key, [*known, "restorer.network", "restorer.diffusion", "restorer.walk"], ""
                )
        for section in SECTIONS:
            if not isinstance(content.get(section, {}), dict):
                raise Fault(
                    "RECIPE",
                    f"'{section}' is not a table",
                    f"write [{section}] above its keys",
                    exit=USAGE,
                )
        for key in ("name", "summary", "source"):
            if not isinstance(content.get(key, ""), str):
                raise refusal(key, content[key], "text in quotes")
        content["name"] = name or content.get("name", "custom")
        return cls(**content | {"restorer": migrated(content.get("restorer", {}))})

    def set(self, assignments: typing.Iterable[str]) -> Recipe:
        """Apply ``section.key=value`` texts (TOML values; bare words are strings); returns self."""
        assignments, given = list(assignments), dict[Names, Any]()
        if (
            method := method_of(assignments)
        ) and "name" not in self.restorer:  # whose names nothing said before
            self.restorer = migrated(self.restorer | {"name": method})
        for _text, path, value in assigned(assignments, method or str(self.restorer.get("name"))):
            name = ".".join(path)
            if shown(given.setdefault(path, value)) != shown(value):
                found = f"{name} is given twice, as {shown(given[path])} and as {shown(value)}"
                raise Fault("RECIPE", found, "give it once", exit=USAGE)
            table = getattr(self, path[0])
            for depth, part in enumerate(path[1:-1], 2):
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    cure = f"write {'.'.join(path[:depth])}=VALUE: that setting has none below it"
                    raise Fault("RECIPE", f"the recipe key '{name}' is unknown", cure, exit=USAGE)
            # A table that says nothing takes nothing away.
            if value != {} or not isinstance(table.get(path[-1]), dict):
                table[path[-1]] = value
        return self

    def classes(self) -> dict[str, Any]:
        """The class whose signature each section is."""
        return {section: self.class_of(section) for section in SECTIONS}

    def class_of(self, section: str) -> Any:
        if section == "restorer":
            return restorer_class(self.restorer.get("name"))
        return lazy(CLASSES[section])

    def own(self, section: str) -> dict[str, Any]:
        """The settings of a section as its class takes them."""
        settings = dict(getattr(self, section))
        if section == "restorer":
            settings.pop("name", None)
        return expanded(settings) if section == "canvas" else settings

    # Each of these builds one noun from its section; all defaults come from its signature.
    def make_canvas(self):
        return self.made("canvas")

    def make_restorer(self):
        """The untrained restorer; the canvas gives it ``size`` and ``channels``.

        It is made without memory first: one too large for any machine is refused by its number of
        parameters.
        """
        canvas = self.make_canvas()
        with _no_memory():
            limited(self.made("restorer", size=canvas.size, channels=canvas.channels))
        return self.made("restorer", size=canvas.size, channels=canvas.channels)

    def make_budget(self):
        return self.made("training")

    def make_map(self):
        return self.made("map")

    def made(self, section: str, **given: Any) -> Any:
        return build(self.class_of(section), self.own(section), section, **given)

    def resolved(self) -> Recipe:
        """The same recipe with every default written out, checked against the signatures."""
        sections = {
            name: complete(cls, self.own(name), name) for name, cls in self.classes().items()
        }
        sections["restorer"] = {"name": self.restorer["name"], **sections["restorer"]}
        return Recipe(name=self.name, summary=self.summary, source=self.source, **sections)

    def checked(self) -> Recipe:
        """`resolved`, after a check of what no single setting shows: whether they fit one another,
        and what they cost.

        Raises Fault RECIPE (exit 2). No data are read, and no memory is taken for networks.
        """
        found = self.resolved()
        budget, size = found.make_budget(), found.make_canvas().size
        found.make_map().fits(size)
        with _no_memory():
            found.make_restorer().fits(budget.batch)
        return found

    def parameters(self) -> int:
        """The number of parameters of all networks, which are not made for it."""
        with _no_memory():
            return sum(p.numel() for p in self.make_restorer().parameters())

    def require_files(self) -> None:
        """Fault RECIPE (exit 2) where a file or folder that a training starts from is not there."""
        for key, value in files_of(self.class_of("restorer"), self.restorer, "restorer"):
            if value and not there(value):
                found = f"{key} = {shown(value)}: there is no such file or folder"
                raise Fault("RECIPE", found, 'name one that is there, or "" for none', exit=USAGE)

    def takes(self) -> dict[str, str]:
        """What every setting takes, in words, by its name as in ``--set``."""
        return {
            key: text
            for name, cls in self.classes().items()
            for key, text in ranges(cls, name).items()
        }

    def toml(self, notes: bool = False) -> str:
        """The recipe as TOML text that `parse` reads back to an equal recipe; notes: what each
        setting takes, beside it."""
        keys = ("name", "summary", "source", *SECTIONS)
        text = toml_text(without_none({key: getattr(self, key) for key in keys}))
        return noted(text, self.takes()) if notes else text


def load_plugin(name: Any, folder: Path | None) -> None:
    """Run the file that `plugin` at the head of a recipe names, where the user gave that recipe to
    train on. Fault PLUGIN (exit 8) anywhere else."""
    if name is None:
        return
    if folder is None:
        found, cure = "a recipe names a plugin", "only `train RECIPE.toml` runs it; use --plugin"
        raise Fault("PLUGIN", found, cure, exit=REFUSED)
    if not isinstance(name, str):
        raise refusal("plugin", name, "the name of a Python file beside the recipe")
    load_file(folder / name)


def _no_memory() -> Any:
    """Networks that are made in it take none."""
    import torch

    return torch.device("meta")


def method_of(assignments: typing.Iterable[str]) -> str:
    """The method that ``section.key=value`` texts name, "" for none."""
    pairs = (text.partition("=") for text in assignments)
    named = [
        str(literal(value.strip())) for key, _, value in pairs if key.strip() == "restorer.name"
    ]
    return named[-1] if named else ""


def assigned(assignments: typing.Iterable[str], method: str) -> Iterator[tuple[str, Names, Any]]:
    """Of ``section.key=value`` texts: each, and the present name and value of every setting it
    gives; a table gives those in it.

    Fault RECIPE (exit 2) for what is no such text.
    """
    for text in assignments:
        key, equals, value = text.partition("=")
        section, *path = key.strip().split(".")
        if not equals or section not in SECTIONS or not path:
            known = f"SECTION one of {', '.join(SECTIONS)}"
            raise Fault(
                "RECIPE",
                f"'{text}' is not a setting",
                f"write SECTION.KEY=VALUE with {known}",
                exit=USAGE,
            )
        found = literal(value.strip())
        for below, setting in leaves(found) if isinstance(found, dict) and found else [((), found)]:
            whole = (*path, *below)
            yield (
                text,
                (section, *(named(method, whole, setting) if section == "restorer" else whole)),
                setting,
            )


def names() -> list[str]:
    """The built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def toml_value(value: Any) -> str:
    """A number, text, truth value or list as TOML writes it, on one line."""
    return toml_text({"x": value}).removeprefix("x = ").removesuffix("\n")


def toml_text(table: dict[str, Any]) -> str:
    """TOML with every list on one line: tomli-w gives each entry its own, which tears a recipe
    apart. A raw line break after ``[`` or a comma is always one of those, since it escapes the
    breaks inside texts."""
    text = re.sub(r"\[\n +", "[", tomli_w.dumps(table))
    return re.sub(r",\n +", ", ", re.sub(r",\n *\]", "]", text))


def without_none(table: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: absent."""
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def noted(text: str, notes: dict[str, str]) -> str:
    """TOML text with the note of each setting beside it, which no writer of TOML does."""
    lines, table = [], ""
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        note = notes.get(f"{table}.{line.partition(' = ')[0]}")
        lines.append(line + (f"  # {note}" if note else ""))
    return "\n".join(lines) + "\n"


def limited(restorer: Any) -> None:
    """Fault RECIPE (exit 2) for a restorer that would cost more than any machine has."""
    parameters, calls = sum(p.numel() for p in restorer.parameters()), restorer.network_calls()
    for wrong, found, cure in (
        (
            parameters > MOST_PARAMETERS,
            f"{parameters} parameters, at most {MOST_PARAMETERS}",
            "give smaller networks",
        ),
        (
            calls > MOST_CALLS,
            f"{calls} network calls an image, at most {MOST_CALLS}",
            "give fewer draws, levels to start from or steps",
        ),
    ):
        if wrong:
            raise Fault("RECIPE", f"[restorer] would have {found}", cure, exit=USAGE)


def files_of(cls: Any, settings: dict[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """The settings that name a file or folder, by their names as in ``--set``."""
    known, nested = hints(cls.__init__), tables(cls)
    for key, value in settings.items():
        if key in nested and isinstance(value, dict):
            yield from files_of(nested[key], value, f"{where}.{key}")
        elif any(isinstance(mark, File) for mark in typing.get_args(known.get(key))):
            yield f"{where}.{key}", value


def there(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
