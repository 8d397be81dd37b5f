"""What may be added from outside, by name: built in, registered by a decorator, or found at an
entry point of an installed package.

Names are listed without importing what they name. Nothing is ever imported because a file says so:
a name that nobody registered is unknown, whatever it looks like.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.lazy import lazy

T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where something that is not built in came from.

    Args:
        name: Of the plugin: a file's name, or distribution and version.
        sha256: Of the file that registered it.
    """

    name: str
    sha256: str


class Registry(Mapping[str, T], Generic[T]):
    """Things of one kind by name.

    Args:
        kind: What a message calls one of them, such as "restorer".
        group: Entry points "pseudohealthy.GROUP" of installed packages belong to it; importing what
            one names must register that very name.
        built_in: Name -> "module:object" below `pseudohealthy`, or the thing itself. A module that
            registers its own things by decorator is named without an object.
    """

    def __init__(self, kind: str, group: str, built_in: Mapping[str, str | T]):
        self.kind, self.group = kind, f"pseudohealthy.{group}"
        self.built_in = dict(built_in)
        self.added: dict[str, T] = {}
        self.origins: dict[str, Origin] = {}

    def add(self, name: str, thing: T) -> T:
        """Make it known. Raises ValueError for a name that another one has."""
        if not again(self.added.get(name, thing), thing) or self._taken(name, thing):
            raise ValueError(f"there is a {self.kind} '{name}' already")
        self.added[name] = thing
        if origin := ORIGINS[-1] if ORIGINS else None:
            self.origins[name] = origin
        return thing

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: make a function or class known by name."""
        return lambda thing: self.add(name, thing)

    def __getitem__(self, name: str) -> T:
        if name not in self.added:
            if name in self.built_in:
                self._import(name, self.built_in[name])
            elif name in self.installed:
                self._load(name, self.installed[name])
        return self.added[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self.built_in, *self.added, *self.installed]))

    def remove(self, name: str) -> None:
        """Forget what was added under that name."""
        del self.added[name]
        self.origins.pop(name, None)

    def hint(self, name: object) -> str:
        """What to write instead of a name that is not known."""
        similar = difflib.get_close_matches(str(name), self, n=1)
        return f"did you mean '{similar[0]}'?" if similar else f"one of: {', '.join(self)}"

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self.added or name in self.installed

    @cached_property
    def installed(self) -> dict[str, EntryPoint]:
        """Entry points of installed packages, by name; none of them is imported yet."""
        return {point.name: point for point in entry_points(group=self.group)}

    def _taken(self, name: str, thing: T) -> bool:
        """Whether the name is that of something built in, and this is not it."""
        own = self.built_in.get(name, thing)
        if isinstance(own, str) and not isinstance(thing, str):
            return getattr(thing, "__module__", "") != f"pseudohealthy.{own.partition(':')[0]}"
        return own is not thing

    def _import(self, name: str, where: str | T) -> None:
        if not isinstance(where, str):
            self.added[name] = where
            return
        if ":" in where:
            self.added[name] = lazy(where)
        else:
            importlib.import_module(f"pseudohealthy.{where}")
        assert name in self.added, f"{where} does not register '{name}'"

    def _load(self, name: str, point: EntryPoint) -> None:
        try:
            origin = of_installed(point)
            with loading(origin):
                thing = point.load()
                if name not in self.added:  # the entry point names the thing itself
                    self.add(name, thing)
        except Exception as error:
            raise broken(f"the plugin {point.value} of {self.group}", error) from error
        LOADED.extend({origin} - set(LOADED))


def again(old: Any, new: Any) -> bool:
    """Whether a thing is the same, or the same class or function of a script or notebook, run once
    more."""
    place = [
        (getattr(one, "__module__", ""), getattr(one, "__qualname__", one)) for one in (old, new)
    ]
    return old is new or (place[0] == place[1] and place[0][0] == "__main__")


@contextmanager
def loading(origin: Origin) -> Iterator[None]:
    """What is registered meanwhile comes from there."""
    ORIGINS.append(origin)
    try:
        yield
    finally:
        ORIGINS.pop()


def load_file(path: Path | str) -> Origin:
    """Run a Python file, whose decorators register what it adds; once, however often it is asked
    for.

    Only for a file that the user names. Raises Fault PLUGIN (exit 2) where it is missing or raises.
    """
    path = Path(path)
    if not path.is_file():
        raise Fault("PLUGIN", f"no file named {path}", "give a Python file", exit=USAGE)
    origin = Origin(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    key = path.resolve()
    if key not in FILES:
        word = re.sub(r"[^0-9A-Za-z]", "_", path.stem)
        place = hashlib.sha256(str(key).encode()).hexdigest()[:8]  # stems of two may be alike
        name = f"pseudohealthy_plugin_{word}_{place}"
        spec = importlib.util.spec_from_file_location(name, key)
        if spec is None or spec.loader is None:
            raise Fault("PLUGIN", f"{path.name} is no Python file", "give one", exit=USAGE)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses and pickles look their module up
        FILES[key] = origin
        with loading(origin):
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                fault = broken(path.name, error)
                del sys.modules[name], FILES[key]
                raise fault from error
        LOADED.append(origin)
        GIVEN.append(key)
    return FILES[key]


def of_installed(point: EntryPoint) -> Origin:
    """The distribution of an entry point, its version, and the hash of the module's file."""
    said = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
    found = importlib.util.find_spec(point.module)
    file = Path(found.origin) if found and found.origin else None
    content = file.read_bytes() if file and file.is_file() else b""
    origin = Origin(said, hashlib.sha256(content).hexdigest())
    if file:
        FILES[file.resolve()] = origin
    return origin


def plugins() -> dict[str, list[dict[str, str]]]:
    """What was loaded from outside, for the record of a result; empty where nothing was."""
    return {"plugins": [asdict(origin) for origin in LOADED]} if LOADED else {}


def at_fault(error: BaseException) -> Origin | None:
    """The plugin whose code raised an error, or called what did; None where none is in it."""
    files = {str(path): origin for path, origin in FILES.items()}
    frames = traceback.extract_tb(error.__traceback__)
    found = [frame.filename for frame in frames if frame.filename in files]
    return files[found[-1]] if found else None


def broken(what: str, error: BaseException) -> Fault:
    """The fault of a plugin whose code raised an error."""
    if isinstance(error, Fault):
        return error
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename in map(str, FILES)] or frames[-1:]
    line = f" (line {own[-1].lineno})" if own and own[-1].filename.endswith(".py") else ""
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    return Fault("PLUGIN", f"{what} raised {said}{line}", "mend the plugin", exit=USAGE)


ORIGINS: list[Origin] = []  # of what is being loaded, innermost last
FILES: dict[Path, Origin] = {}  # of plugins that were loaded
LOADED: list[Origin] = []  # files and installed packages
GIVEN: list[Path] = []  # files that the user named: other processes of a command need them, too
