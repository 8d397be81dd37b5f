"""Which DICOM files belong together: a group is one volume of one series of one patient. Reads
headers only."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from pseudohealthy.errors import RESOURCE, Fault
from pseudohealthy.io.bounded import Bounded
from pseudohealthy.io.dicom_frames import frame_heads
from pseudohealthy.io.dicom_head import IDENTITY, PROJECTIONS, head_of
from pseudohealthy.io.dicom_header import FACTS, Head, parallel
from pseudohealthy.io.dicom_parts import SAME_PLACE, differing, labels, volumes

MAX_FILES = 20_000
# Parts smaller than this share of the series' largest one may be strays: localisers, odd slices.
STRAY = 0.25
LONGEST = 12  # letters of a word in the name of a volume
ALIKE = (
    0.1  # share by which the distances of single-slice series may vary that look like one volume
)


@dataclass
class Group:
    """Files of one volume, found but not ordered.

    series: the SeriesInstanceUID; part: what tells this volume from the others of its series
    ("echo2", "b1000", "phase", "1"), safe in a file name, empty where the series is one volume.
    item: which volume of a multi-frame file, from 0; None where the files hold one.
    """

    paths: list[Path]
    notes: list[str] = field(default_factory=list)
    series: str = ""
    part: str = ""
    item: int | None = None


def group(paths: Iterable[Path]) -> tuple[list[Group], list[tuple[Path, str]]]:
    """Sort DICOM files into groups; the second list holds files left out and why."""
    skipped: list[tuple[Path, str]] = []
    series: dict[str, list[Head]] = defaultdict(list)
    unreadable: dict[Path, list[Path]] = defaultdict(list)
    paths = list(paths)
    if len(paths) > MAX_FILES * 10:
        raise Fault(
            "TOO_LARGE", f"{len(paths)} DICOM files", "give fewer folders at a time", exit=RESOURCE
        )
    for path in paths:
        found = head_of(path)
        if isinstance(found, Head):
            series[found.series].append(found)
        else:
            skipped.append((path, found))
            if found.startswith("damaged"):
                unreadable[path.parent].append(path)
    groups: list[Group] = []
    volumes_of: list[list[Head]] = []
    for heads in series.values():
        made, parts, strays = _series(heads)
        groups, volumes_of, skipped = groups + made, volumes_of + parts, skipped + strays
    _hint_stacks(groups, volumes_of)
    return groups, _with_unreadable(groups, unreadable, skipped)


def _with_unreadable(
    groups: list[Group], unreadable: dict[Path, list[Path]], skipped: list[tuple[Path, str]]
) -> list[tuple[Path, str]]:
    """Damaged files beside one volume, or beside one that has fewer slices than the others of its
    series, are surely its
    own: reading must fail rather than lose a slice."""
    for folder, names in unreadable.items():
        beside = [g for g in groups if any(path.parent == folder for path in g.paths)]
        fullest = max((len(g.paths) for g in beside), default=0)
        short = [g for g in beside if len(g.paths) < fullest]
        one = short if len(short) == 1 and len({g.series for g in beside}) == 1 else beside
        if len(one) == 1 and len(one[0].paths) > 1:
            one[0].paths += names
            skipped = [(path, reason) for path, reason in skipped if path not in names]
        else:
            for other in beside:
                other.notes.append(
                    f"UNREADABLE n={len(names)}: a damaged DICOM file lies beside ({names[0].name})"
                )
    return skipped


def _series(heads: list[Head]) -> tuple[list[Group], list[list[Head]], list[tuple[Path, str]]]:
    """The volumes of everything with one SeriesInstanceUID, named, and the files left out."""
    strays: list[tuple[Path, str]] = []
    groups: list[Group] = []
    parts: list[list[Head]] = []
    whole = [h for h in heads if not h.damaged or h.mosaic or _alone(h)] or heads
    people = _people(whole)
    for person in people:
        for folder in _joined(person):
            made, of, left = _volumes(folder)
            groups, parts, strays = groups + made, parts + of, strays + left
    for cut in heads if len(whole) < len(heads) else []:
        if cut not in whole:
            groups, parts = _given(cut, groups, parts)
    for one, part in zip(groups, labels(parts), strict=True):
        one.part = part if _nameless(part, heads) else ""
        if len(people) > 1:
            one.notes.append(
                "MIXED_SERIES: several patients, studies or frames of reference share one"
                " series UID"
            )
        if one.series.startswith("no series UID"):
            one.notes.append(
                "NO_SERIES_UID: no SeriesInstanceUID; the series is told by its study and number"
            )
    return groups, parts, strays


def _given(
    one: Head, groups: list[Group], parts: list[list[Head]]
) -> tuple[list[Group], list[list[Head]]]:
    """A damaged slice added to each volume that it may be missing from, so that reading those fails
    by name."""
    homes = [k for k, part in enumerate(parts) if not _alone(part[0])]
    if not homes:
        return [*groups, Group([one.path], series=one.series)], [*parts, [one]]
    fullest = max(len(parts[k]) for k in homes)
    for fits in (
        lambda part: any(h.path.parent == one.path.parent for h in part),
        # The last may be cut.
        lambda part: all(b.startswith(a) for a, b in zip(one.who, part[0].who, strict=True)),
        lambda part: one.matrix == part[0].matrix,
        lambda part: one.orientation is None or parallel(one.orientation, part[0].orientation),
        lambda part: all(
            told is None or told in [h.facts.get(name) for h in part]
            for name, told in (
                (name, one.facts.get(name)) for name, fact in FACTS.items() if fact.always
            )
        ),
        lambda part: not any(_beside(one, h) for h in part),
        lambda part: len(part) < fullest,
    ):
        homes = [k for k in homes if fits(parts[k])] or homes
    for k in homes:
        groups[k].paths = sorted([*groups[k].paths, one.path])
    return groups, parts


def _beside(one: Head, other: Head) -> bool:
    """Whether two slices lie at one place."""
    if one.position is None or other.position is None:
        return False
    return bool(np.abs(one.position - other.position).max() < SAME_PLACE)


def _alone(one: Head) -> bool:
    """Whether a file is never one slice of several: a radiograph, a multi-frame image."""
    return not one.mosaic and (one.frames > 1 or one.modality in PROJECTIONS)


def _nameless(part: str, heads: list[Head]) -> bool:
    """Whether what tells volumes apart is no text somebody wrote about a patient: kernels and image
    types are short."""
    words = {word for h in heads for word in re.split(r"\W+", "^".join(h.who[:2])) if len(word) > 2}
    short = all(len(word) <= LONGEST for word in part.split("-"))
    return short and not any(word in part.casefold() for word in words)


def _people(heads: list[Head]) -> list[list[Head]]:
    """Slices by patient, study and frame of reference. An attribute that is empty everywhere, or
    has one value beside empty ones, as in series that were made anonymous, tells nothing."""
    telling = [k for k in range(len(IDENTITY)) if len({h.who[k] for h in heads if h.who[k]}) > 1]
    found: dict[tuple[str, ...], list[Head]] = defaultdict(list)
    for one in heads:
        found[tuple(one.who[k] for k in telling)].append(one)
    return list(found.values())


def _joined(heads: list[Head]) -> list[list[Head]]:
    """A series spread over folders is joined unless the folders hold the same positions."""
    by_folder: dict[Path, list[Head]] = defaultdict(list)
    for one in heads:
        by_folder[one.path.parent].append(one)
    joined: list[list[Head]] = []
    for part in by_folder.values():
        places = {_place(h) for h in part}
        for other in joined:
            if None not in {p for p, _ in places} and places.isdisjoint({_place(h) for h in other}):
                other += part
                break
        else:
            joined.append(list(part))
    return joined


def _place(one: Head) -> tuple[Any, str]:
    where = None if one.position is None else tuple(np.round(one.position, 3).tolist())
    facts = [one.facts.get(name) for name, fact in FACTS.items() if fact.always]
    return where, repr((one.matrix, facts))


def _volumes(heads: list[Head]) -> tuple[list[Group], list[list[Head]], list[tuple[Path, str]]]:
    """Groups of the heads of one series and patient, the heads of each, and the files left out."""
    groups: list[Group] = []
    parts: list[list[Head]] = []
    single = [h for h in heads if _alone(h)]
    for one in single:
        inside = _inside(one) if one.frames > 1 else [[one]]
        for k, part in enumerate(inside):
            groups.append(Group([one.path], series=one.series, item=k if len(inside) > 1 else None))
            parts.append(part)
    alone = set(single)
    mosaics = [h for h in heads if h.mosaic]
    slices = [h for h in heads if h not in alone and not h.mosaic]
    # damaged: all of the series are.
    stacks = [slices] if any(h.damaged for h in slices) else volumes(slices)
    largest = max(stacks, key=len, default=[])
    strays = [s for s in stacks if s is not largest and _is_stray(s, largest)]
    kept = [s for s in stacks if not any(s is stray for stray in strays)] + (
        [mosaics] if mosaics else []
    )
    parts += [list(stack) for stack in kept]
    left = [(h.path, f"another {differing(s, largest)} than its series") for s in strays for h in s]
    reasons = sorted({differing(s, largest) for s in strays})
    notes = (
        [f"STRAY_SLICES n={len(left)}: another {' or '.join(reasons)} than the series"]
        if strays
        else []
    )
    for stack in kept:
        groups.append(Group(sorted(h.path for h in stack), list(notes), heads[0].series))
    return groups, parts, left


def _is_stray(stack: list[Head], largest: list[Head]) -> bool:
    if len(stack) > STRAY * len(largest):
        return False
    other = differing(stack, largest)
    return other in ("matrix", "orientation", "pixel spacing") or len(stack) < 3


def _inside(one: Head) -> list[list[Head]]:
    """The volumes of a multi-frame file; one where they cannot be told, which reading refuses with
    the reason."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Bounded(one.path) as file:
                ds = pydicom.dcmread(file, stop_before_pixels=True)
            return volumes(frame_heads(one.path, ds, series=one.series, who=one.who)[0])
    except Exception:
        return [[one]]


def _hint_stacks(groups: list[Group], parts: list[list[Head]]) -> None:
    """Say where series of one slice each look like the slices of one volume."""
    alike: list[list[tuple[Group, Head]]] = []
    for one, part in zip(groups, parts, strict=True):
        slice_ = part[0]
        if (
            len(part) > 1
            or slice_.position is None
            or slice_.orientation is None
            or slice_.modality in PROJECTIONS
        ):
            continue
        for other in alike:
            if _one_volume(other[0][1], slice_):
                other.append((one, slice_))
                break
        else:
            alike.append([(one, slice_)])
    for row in alike:
        distance = _distance([h for _, h in row])
        for one, _ in row if distance else []:
            one.notes.append(
                f"STACK n={len(row)}: {len(row)} series of one slice each look like one volume with"
                f" slices {distance:.3g} mm apart; give them one SeriesInstanceUID to have them"
                " read as one"
            )


def _one_volume(a: Head, b: Head) -> bool:
    facts = [name for name, fact in FACTS.items() if fact.always and not fact.changing]
    same = (
        a.who[:3] == b.who[:3] and a.matrix == b.matrix and parallel(a.orientation, b.orientation)
    )
    return same and all(a.facts.get(name) == b.facts.get(name) for name in facts)


def _distance(heads: list[Head]) -> float:
    """mm from slice to slice of three or more that lie regularly, else 0."""
    if len(heads) < 3 or heads[0].orientation is None:
        return 0.0
    normal = np.cross(heads[0].orientation[:3], heads[0].orientation[3:])
    gaps = np.diff(np.sort(np.array([h.position for h in heads]) @ normal))
    usual = float(np.median(gaps))
    return usual if usual > 0 and np.abs(gaps - usual).max() <= ALIKE * usual else 0.0
