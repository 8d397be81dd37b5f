"""Case ids that do not meet, whatever the files are called: every input is its own case, none takes
the others down."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io import names
from pseudohealthy.io.names import safe
from pseudohealthy.io.source import Source
from pseudohealthy.progress import say


def distinct(sources: list[Source]) -> list[Source]:
    """The sources under ids that do not meet. A series stays what it is called; other files are
    told apart by their endings within a folder, by the folders above, nearest first, and at last by
    a digest of their names. Fault ID_COLLISION."""
    if twice := _twice(sources):
        raise twice
    ids = _apart(sources, _of_series(sources))
    ways: list[Callable[[int], str]] = [
        partial(_above, sources, ids, depth) for depth in range(1, 5)
    ]
    made = names.distinct(ids, [*ways, partial(_digested, sources, ids)])
    return [replace(source, case_id=case_id) for source, case_id in zip(sources, made, strict=True)]


def _twice(sources: list[Source]) -> Fault | None:
    given = [(tuple(map(os.path.abspath, source.paths)), source.item) for source in sources]
    count = Counter(given)
    for source, what in zip(sources, given, strict=True):
        if count[what] > 1:
            shown = source.case_id if source.origin else source.paths[0]
            return Fault(
                "ID_COLLISION",
                f"'{source.case_id}' would name several cases ({shown} is given twice)",
                "name it once",
                exit=USAGE,
            )
    return None


def _of_series(sources: list[Source]) -> list[str]:
    """The ids, those of DICOM series distinct among themselves: more digits where two series share
    the first ones, and a number where one series holds several volumes that nothing else tells
    apart."""
    ids = [source.case_id for source in sources]
    alike: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        if source.origin:
            alike.setdefault(source.case_id.casefold(), []).append(place)
    for places in alike.values():
        origins = {place: sources[place].origin for place in places}
        digits = names.DIGITS * (1 + (len({o.series for o in origins.values() if o}) > 1))
        seen: Counter[str] = Counter()
        for place, origin in origins.items():
            if origin:
                ids[place] = names.series_id(origin.series, origin.part, digits)
                seen[origin.series] += 1
                several = sum(o.series == origin.series for o in origins.values() if o) > 1
                ids[place] += f"-{seen[origin.series]}" if several else ""
    return ids


def _apart(sources: list[Source], ids: list[str]) -> list[str]:
    """The ids, those of files of one folder told apart by their endings (a.nii, a.nii.gz), and
    where these are equal, too, by a digest of their names (A.png and a.png, or names that differ in
    what an id cannot hold). It is said."""
    keys = [
        None if s.origin or len(s.paths) > 1 else (s.paths[0].parent, ids[k].casefold())
        for k, s in enumerate(sources)
    ]
    endings = [names.ending(source.paths[0]) for source in sources]
    count, alike = Counter(keys), Counter(zip(keys, endings, strict=True))
    kinds = Counter(key for key, _ in alike)
    made = list(ids)
    for place, key in enumerate(keys):
        if key is None or count[key] < 2:
            continue
        made[place] += f"-{endings[place]}" if kinds[key] > 1 and endings[place] else ""
        made[place] += (
            f"-{names.digest(sources[place].paths[0].name)}"
            if alike[key, endings[place]] > 1
            else ""
        )
    changed = [new for new, old in zip(made, ids, strict=True) if new != old]
    if changed:
        more = ", ..." if len(changed) > 4 else ""
        say(
            f"{many(len(changed), 'input')} share a name with another; they are called"
            f" {', '.join(changed[:4])}{more}"
        )
    return made


def _above(sources: list[Source], ids: list[str], depth: int, place: int) -> str:
    """The id with the names of so many folders above the file (of a DICOM series: above its
    folder)."""
    source = sources[place]
    if source.origin:
        return ids[place]
    first = source.paths[0]
    above = (
        first.parents[1] if source.kind == "dicom" and len(source.paths) > 1 else first.parent
    ).parts
    return safe("-".join((*(part for part in above[-depth:] if part != os.sep), ids[place])))


def _digested(sources: list[Source], ids: list[str], place: int) -> str:
    source = sources[place]
    if source.origin:
        return ids[place]
    files = source.paths if source.kind == "channels" else source.paths[:1]
    digest = names.digest("|".join(map(str, files)))
    return f"{ids[place]}-{digest}"
