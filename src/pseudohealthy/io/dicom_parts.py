"""The volumes of one series: slices told apart by what differs between them, and each volume named
by it.

Positions taken once make one volume whatever else changes from slice to slice. Where a position is
taken more than once, the first fact that tells the slices there apart makes the volumes; where no
fact does, their order does, if it is the same everywhere. What cannot be told apart stays together,
and reading refuses it by name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from pseudohealthy.io.dicom_header import FACTS, ORDERS, Head, parallel, plain

SAME_PLACE = 0.05  # mm; positions of repeated scans differ in the last digits
SAME_VALUE = 0.01  # share; echo times differ in the last digits, too
# Split volumes that lie between each other's slices, too.
INTERLEAVED = ("acquisition", "tube voltage")
AXES = ("sagittal", "coronal", "axial")


def volumes(heads: Iterable[Head]) -> list[list[Head]]:
    """One list a volume. Copies of an instance stay with it."""
    first: dict[Hashable, Head] = {}
    copies: dict[int, list[Head]] = defaultdict(list)
    for head in heads:
        key = (head.sop, _key(head.position), head.frame) if head.sop else id(head)
        if key in first:
            copies[id(first[key])].append(head)
        else:
            first[key] = head
    parts = _by_shape(list(first.values()))
    for name, fact in FACTS.items():
        if fact.always:
            parts = [part for whole in parts for part in _by_fact(whole, name)]
    parts = [part for whole in parts for part in _apart(whole)]
    return [[h for head in part for h in (head, *copies[id(head)])] for part in parts]


def _key(position: np.ndarray | None) -> tuple[float, ...]:
    return () if position is None else tuple(np.round(position, 3).tolist())


def _by_shape(heads: list[Head]) -> list[list[Head]]:
    parts: list[list[Head]] = []
    for head in heads:
        for part in parts:
            if same_shape(part[0], head):
                part.append(head)
                break
        else:
            parts.append([head])
    return parts


def same_shape(a: Head, b: Head) -> bool:
    """Whether two slices have one matrix, orientation and, where both say so, pixel spacing."""
    spacing = not a.spacing or not b.spacing or np.allclose(a.spacing, b.spacing, rtol=1e-3)
    return a.matrix == b.matrix and bool(spacing) and parallel(a.orientation, b.orientation)


def _by_value(heads: list[Head], name: str) -> dict[Any, list[Head]]:
    """Slices by their value of a fact, ascending; numbers that hardly differ are one, and slices
    that say nothing join a lone value unless they lie where it does."""
    found: dict[Any, list[Head]] = defaultdict(list)
    for head in heads:
        found[head.facts.get(name)].append(head)
    silent = found.pop(None, [])
    parts: dict[Any, list[Head]] = {}
    for value in sorted(found):
        last = next(reversed(parts), None)
        if (
            isinstance(value, float)
            and last is not None
            and value - last <= SAME_VALUE * abs(value)
        ):
            parts[last] += found[value]
        else:
            parts[value] = found[value]
    alone = next(iter(parts.values()), [])
    if silent and len(parts) == 1 and _most(alone + silent) == max(_most(alone), _most(silent)):
        alone.extend(silent)
    elif silent:
        parts[None] = silent
    return parts


def _by_fact(heads: list[Head], name: str) -> list[list[Head]]:
    parts = list(_by_value(heads, name).values())
    if FACTS[name].changing and 2 * len(parts) > len(heads) and _most(heads) == 1:
        return [heads]  # nearly every slice has its own: no property of a volume
    return parts


def _places(heads: list[Head]) -> list[list[Head]]:
    """Slices by where they lie along the normal; one place a slice where they have no position."""
    orientation = heads[0].orientation
    if orientation is None or any(h.position is None for h in heads):
        return [[h] for h in heads]
    along = np.array([h.position for h in heads]) @ np.cross(orientation[:3], orientation[3:])
    places: list[list[Head]] = []
    last = -np.inf
    for k in np.argsort(along, kind="stable"):
        if along[k] - last > SAME_PLACE:
            places.append([])
        places[-1].append(heads[k])
        last = along[k]
    return places


def _most(heads: list[Head]) -> int:
    return max(len(place) for place in _places(heads))


def _apart(heads: list[Head]) -> list[list[Head]]:
    most = _most(heads)
    if most == 1:
        return _interleaved(heads)
    if not any(h.position is not None and h.position.any() for h in heads):
        return [heads]  # positions that were set to 0
    for name, fact in FACTS.items():
        parts = [] if fact.always else _by_fact(heads, name)
        if 1 < len(parts) <= most and all(_most(part) < most for part in parts):
            return [one for part in parts for one in _apart(part)]
    for order in (*ORDERS, "number"):
        parts = _by_order(heads, order)
        if parts:
            return parts
    return [heads]


def _interleaved(heads: list[Head]) -> list[list[Head]]:
    """Acquisitions whose slices lie between each other's are volumes of their own."""
    places = [place[0] for place in _places(heads)]
    for name in INTERLEAVED:
        values = _by_value(heads, name)
        if len(values) == 1 or min(len(part) for part in values.values()) < 2:
            continue
        owner = {id(h): k for k, part in enumerate(values.values()) for h in part}
        row = [owner[id(h)] for h in places]
        if sum(a != b for a, b in pairwise(row)) >= len(values) + 1:
            return list(values.values())
    return [heads]


def _by_order(heads: list[Head], name: str) -> list[list[Head]]:
    """The k-th slice of every place makes volume k, where all places have as many; [] where the
    order is no order."""
    places = _places(heads)
    count = len(places[0])
    if any(len(place) != count for place in places) or len(places) == 1:
        return []  # at one position only, an order may be of slices that lost their positions
    rows = []
    for place in places:
        values: list[Any] = [h.number if name == "number" else h.facts.get(name) for h in place]
        if None in values or len(set(values)) < count:
            return []
        rows.append([place[k] for k in sorted(range(count), key=values.__getitem__)])
    parts = [list(part) for part in zip(*rows, strict=True)]
    if name == "number" and not _consecutive(parts, rows):
        return []
    return parts


def _consecutive(parts: list[list[Head]], rows: list[list[Head]]) -> bool:
    """Whether instance numbers run through one volume after the other, or through one place after
    the other."""
    numbers = [[int(h.number or 0) for h in part] for part in parts]
    by_volume = all(max(a) < min(b) for a, b in pairwise(numbers))
    by_place = all(
        int(row[-1].number or 0) - int(row[0].number or 0) == len(row) - 1 for row in rows
    )
    return by_volume or by_place


def differing(part: list[Head], other: list[Head]) -> str:
    """In words, the first thing in which two parts of a series differ."""
    a, b = part[0], other[0]
    if a.matrix != b.matrix:
        return "matrix"
    if not parallel(a.orientation, b.orientation):
        return "orientation"
    if not same_shape(a, b):
        return "pixel spacing"
    return next((name for name in FACTS if a.facts.get(name) != b.facts.get(name)), "position")


def labels(parts: list[list[Head]]) -> list[str]:
    """A short name for every volume of a series, all different, "" for a single one: echo2, b1000,
    phase, 1, 2."""
    if len(parts) < 2:
        return [""] * len(parts)
    names = [""] * len(parts)
    for told in _candidates(parts):
        longer = ["-".join(w for w in pair if w) for pair in zip(names, told, strict=True)]
        if len(set(longer)) > len(set(names)):
            names = longer
        if len(set(names)) == len(names):
            break
    return _numbered(names)


def _candidates(parts: list[list[Head]]) -> Iterable[list[str]]:
    yield from (_fact_labels(parts, name) for name in FACTS)
    heads = [part[0] for part in parts]
    yield [_axis(h) for h in heads]
    yield [f"{h.matrix[0]}x{h.matrix[1]}" for h in heads]
    yield [f"spacing{h.spacing[0]:g}" if h.spacing else "" for h in heads]


def _fact_labels(parts: list[list[Head]], name: str) -> list[str]:
    told = [_by_value(part, name) for part in parts]
    if any(len(values) > 1 for values in told):
        return [""] * len(parts)  # it changes within a volume: no name for one
    values = [next(iter(one)) for one in told]
    if name == "image type":
        shared = set.intersection(*(set(v or ()) for v in values))
        values = [tuple(w for w in v or () if w not in shared) or None for v in values]
    return ["" if v is None else plain(FACTS[name].label(v)) for v in values]


def _axis(head: Head) -> str:
    if head.orientation is None:
        return ""
    return AXES[int(np.abs(np.cross(head.orientation[:3], head.orientation[3:])).argmax())]


def _numbered(names: list[str]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    often = {name for name in names if names.count(name) > 1 or not name}
    out = []
    for name in names:
        seen[name] += 1
        out.append("-".join(w for w in (name, str(seen[name])) if w) if name in often else name)
    return out if len(set(out)) == len(out) else [str(k + 1) for k in range(len(names))]
