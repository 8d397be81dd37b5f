"""What is known about inputs that have BIDS names: which file of which data set each is, and what
its sidecar says of it.

Nothing is invented: a source is a file that is there, a link leads to the folder it lies in, and
whether an image is skull-stripped is said where a sidecar of it says so, or where its data set is
raw and its name that of a raw image.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pseudohealthy.errors import BAD_OUTPUT, Fault
from pseudohealthy.formats import ending
from pseudohealthy.io import names
from pseudohealthy.io.source import Source
from pseudohealthy.io.unzip import is_unpacked

DERIVATIVE = Path("derivatives") / "pseudohealthy"
NAME = re.compile(
    r"(?P<entities>sub-[0-9A-Za-z]+(?:_[a-z]+-[0-9A-Za-z]+)*)_(?P<suffix>[0-9A-Za-z]+)$"
)
PROCESSED = re.compile(r"_(space|desc|res|den|label)-")  # entities that only derived images have
ABOVE = re.compile(r"(sub|ses)-[0-9A-Za-z]+")
KNOWN = ("SkullStripped", "SpatialReference")  # of an image, told by its sidecar
DEEP = 6  # folders above a file that may hold its dataset_description.json


@dataclass(frozen=True)
class Input:
    """One input: name without its ending; path below its data set; link: of the data set, "" where
    it does not stay;
    apart: what tells it from another input whose outputs would be called alike; facts: of its
    images, for sidecars."""

    name: str
    path: str = ""
    link: str = ""
    apart: str = ""
    derivative: Path = DERIVATIVE
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> list[str]:
        return [f"bids:{self.link}:{self.path}"] if self.link else []


@dataclass(frozen=True)
class Bids:
    """The inputs of one command by case id, and their data sets by derivative: name of each link,
    folder."""

    inputs: dict[str, Input]
    links: dict[Path, dict[str, Path]]


def read(sources: Sequence[Source]) -> Bids:
    """The facts about everything that has a BIDS name. Inputs of several data sets get a derivative
    each, so that sub-01 of one is not taken for sub-01 of another."""
    named = [s for s in sources if s.kind == "nifti" and NAME.match(stem(s.paths[0]))]
    sets = {s.case_id: dataset(s.paths[0].absolute()) for s in named}
    labels = called(list(dict.fromkeys(sets.values())))
    apart = met(named, sets)
    inputs: dict[str, Input] = {}
    links: dict[Path, dict[str, Path]] = {}
    for source in named:
        folder, path = sets[source.case_id], source.paths[0].absolute()
        kept = not is_unpacked(path)
        several = len(labels) > 1
        link = labels[folder] if several else "raw" if kind(folder) != "derivative" else "source"
        derivative = (
            DERIVATIVE.with_name(f"{DERIVATIVE.name}-{labels[folder]}") if several else DERIVATIVE
        )
        inputs[source.case_id] = Input(
            stem(path),
            path.relative_to(folder).as_posix(),
            link if kept else "",
            apart[source.case_id],
            derivative,
            facts(path, folder, link if kept else ""),
        )
        if kept:
            links.setdefault(derivative, {})[link] = folder
    return Bids(inputs, links)


def require_same(out: Path, known: Bids) -> None:
    """Fault OUTPUT_NOT_EMPTY where a derivative in the output folder calls another data set by the
    name of one of these: the sources it tells of would become those of the other."""
    for derivative, links in known.links.items():
        before = table(out / derivative / "dataset_description.json").get("DatasetLinks") or {}
        for name, folder in links.items():
            if before.get(name, uri(folder, out / derivative)) != uri(folder, out / derivative):
                found = f"{derivative.as_posix()} is about another data set"
                raise Fault(
                    "OUTPUT_NOT_EMPTY",
                    found,
                    "name another folder with --out, or --overwrite",
                    exit=BAD_OUTPUT,
                )


def stem(path: Path) -> str:
    """The name of a file without the ending of its format."""
    return path.name.removesuffix(ending(path.name))


@lru_cache(maxsize=4096)
def dataset(path: Path) -> Path:
    """The root of the data set a file lies in: the nearest folder with a description, else the one
    above sub-X."""
    for folder in list(path.parents)[:DEEP]:
        if (folder / "dataset_description.json").is_file():
            return folder
    above = path.parent
    if ABOVE.match(above.name) is None and ABOVE.match(above.parent.name):  # anat
        above = above.parent
    while ABOVE.fullmatch(above.name):
        above = above.parent
    return above


def called(folders: Sequence[Path]) -> dict[Path, str]:
    """A name of letters and digits for each folder, all different."""
    plain = [re.sub(r"[^0-9A-Za-z]", "", folder.name) or "data" for folder in folders]
    numbered = names.distinct(plain, [lambda place: f"{plain[place]}{place + 1}"])
    return dict(zip(folders, numbered, strict=True))


def met(named: Sequence[Source], sets: dict[str, Path]) -> dict[str, str]:
    """What tells apart inputs of one data set, subject and session whose names differ in nothing
    but their endings."""
    keys = [(sets[s.case_id], stem(s.paths[0])) for s in named]
    count, seen = Counter(keys), Counter[Any]()
    found = {}
    for source, key in zip(named, keys, strict=True):
        seen[key] += 1
        found[source.case_id] = str(seen[key]) if count[key] > 1 else ""
    return found


@lru_cache(maxsize=256)
def kind(folder: Path) -> str:
    """ "raw" or "derivative", as the data set says; one that does not say is raw by the standard,
    but in a folder that is called derivatives; "" without a description."""
    said = table(folder / "dataset_description.json")
    unsaid = "derivative" if "derivatives" in folder.parts else "raw"
    return str(said.get("DatasetType") or unsaid) if said else ""


def facts(path: Path, folder: Path, link: str) -> dict[str, Any]:
    """SkullStripped and SpatialReference of an image, each only where its sidecars or its data set
    tell it; link: what its data set is called in the derivative."""
    said: dict[str, Any] = {}
    entities = stem(path).split("_")
    above = [parent for parent in path.parents if parent == folder or folder in parent.parents]
    for parent in reversed(above):  # what stands nearer to the image holds
        for name in told(parent, entities[-1]):
            if set(name.split("_")) <= set(entities):
                said |= table(parent / f"{name}.json")
    found: dict[str, Any] = {key: said[key] for key in KNOWN if key in said}
    if not isinstance(found.get("SkullStripped", False), bool):
        del found["SkullStripped"]
    if "SpatialReference" in found and (there := carried(found.pop("SpatialReference"), link)):
        found["SpatialReference"] = there
    if kind(folder) == "raw" and not PROCESSED.search(path.name):
        found.setdefault("SkullStripped", False)
    return found


def carried(reference: Any, link: str) -> Any:
    """A reference as the derivative may repeat it: `bids::` is the data set it was said in, other
    links are unknown here."""
    if isinstance(reference, dict):
        return {key: there for key, value in reference.items() if (there := carried(value, link))}
    if not isinstance(reference, str) or not reference.startswith("bids:"):
        return reference if isinstance(reference, str) else None
    _, name, path = [*reference.split(":", 2), ""][:3]
    return f"bids:{link}:{path}" if link and not name and path else None


@lru_cache(maxsize=4096)
def told(folder: Path, suffix: str) -> list[str]:
    """Names of the sidecars in a folder that are about images of this suffix, those about most of
    them first."""
    found = (path.stem for path in folder.glob(f"*{suffix}.json"))
    return sorted(
        (name for name in found if name.split("_")[-1] == suffix),
        key=lambda name: (name.count("_"), name),
    )


def table(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def uri(folder: Path, derivative: Path) -> str | None:
    """How a derivative names a data set: the way from one to the other, without a folder of this
    machine's root."""
    try:
        return Path(os.path.relpath(folder.resolve(), derivative.resolve())).as_posix()
    except ValueError:  # another drive
        return None
