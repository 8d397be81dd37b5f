"""Checks of a manifest: leaks between splits, copies and missing files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.paths import cell_files, resolved
from pseudohealthy.errors import NO_INPUT, USAGE, Fault
from pseudohealthy.progress import say


def check(manifest: Manifest) -> list[str]:
    """All problems of a manifest as plain sentences, leaks first; empty for a clean one."""
    return leaks(manifest) + missing(manifest)


def require_clean(manifest: Manifest) -> None:
    """Refuse a manifest with a problem that ``check`` lists.

    Raises:
        Fault: MISSING (exit 3), LEAK or DUPLICATE (exit 2).
    """
    if absent := missing(manifest):
        raise Fault(
            "MISSING",
            " ".join(absent).rstrip("."),
            "correct the paths or fetch the files",
            exit=NO_INPUT,
        )
    if problems := leaks(manifest):
        across = any(
            " in both " in text or re.search(r"[1-9]\d* of them in different", text)
            for text in problems
        )
        code = "LEAK" if across else "DUPLICATE"
        cure = "list each image once and keep every patient in one split"
        root = manifest.root
        if across and (root / "train").is_dir() and not (root / "patients.csv").is_file():
            cure += (
                "; in a folder without patients.csv a file's name is its patient: where equal names"
                " are different patients, rename the files or add patients.csv (columns"
                " file,patient)"
            )
        raise Fault(code, " ".join(problems).rstrip("."), cure, exit=USAGE)


def leaks(manifest: Manifest) -> list[str]:
    """Sentences about repeated case ids, repeated images (by path or content) and patients in two
    splits."""
    problems = []
    ids = Counter(case.case_id for case in manifest)
    if repeated := [name for name, count in ids.items() if count > 1]:
        problems.append(
            f"{many(len(repeated), 'case id occurs', 'case ids occur')} more than once:"
            f" {_first(repeated)}."
        )
    by_path: dict[object, list[Case]] = defaultdict(list)
    for case in manifest:
        by_path[(resolved(case.root), case.image)].append(case)
    twice = [group for group in by_path.values() if len(group) > 1]
    twice += _same_content([group[0] for group in by_path.values()])
    if twice:
        pairs = [" = ".join(dict.fromkeys(case.case_id for case in group)) for group in twice]
        across = sum(len({case.split for case in group} - {""}) > 1 for group in twice)
        problems.append(
            f"{many(len(twice), 'image occurs', 'images occur')} more than once, {across} of them"
            f" in different splits: {_first(pairs)}."
        )
    splits_of: dict[str, set[str]] = defaultdict(set)
    for case in manifest:
        splits_of[case.patient_id].add(case.split)
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        if shared := sorted(
            patient for patient, splits in splits_of.items() if {one, other} <= splits
        ):
            patients = many(len(shared), "patient is", "patients are")
            problems.append(f"{patients} in both {one} and {other}: {_first(shared)}.")
    return problems


def without_copies(manifest: Manifest) -> Manifest:
    """Keep the first of equal images (by path or content) that share split and label.

    The cases left out are printed. Equal images of different splits or labels stay, for
    `require_clean` to refuse: which of them is right cannot be known.
    """
    by_path: dict[object, list[Case]] = defaultdict(list)
    for case in manifest:
        by_path[(resolved(case.root), case.image)].append(case)
    firsts = {id(group[0]): group for group in by_path.values()}
    for alike in _same_content([group[0] for group in by_path.values()]):
        firsts[id(alike[0])] = [case for first in alike for case in firsts.pop(id(first))]
    copies = [
        c
        for group in firsts.values()
        if len({(x.split, x.label) for x in group}) == 1
        for c in group[1:]
    ]
    if not copies:
        return manifest
    say(
        f"left out as copies of other cases ({len(copies)}):"
        f" {_first([case.case_id for case in copies])}"
    )
    left_out = set(map(id, copies))
    return Manifest([case for case in manifest if id(case) not in left_out], manifest.root)


def missing(manifest: Manifest) -> list[str]:
    """One sentence about files that the manifest names and that do not exist, with the first
    ten."""
    exists = lru_cache(maxsize=None)(Path.exists)
    absent = [
        path.name
        for path in dict.fromkeys(path for case in manifest for path in case.files())
        if not exists(path)
    ]
    lacking = "file named in the manifest does", "files named in the manifest do"
    return [f"{many(len(absent), *lacking)} not exist: {_first(absent)}."] if absent else []


def _same_content(cases: list[Case]) -> list[list[Case]]:
    """Groups of cases whose files have equal sizes and bytes (of each file its middle MiB)."""
    alike: dict[object, list[Case]] = defaultdict(list)
    for case in cases:
        files = cell_files(case.image, case.root)
        if files and "#" not in case.image and all(path.is_file() for path in files):
            alike[tuple(path.stat().st_size for path in files)].append(case)
    equal: dict[bytes, list[Case]] = defaultdict(list)
    for group in alike.values():
        for case in group if len(group) > 1 else ():
            equal[_digest(cell_files(case.image, case.root))].append(case)
    return [group for group in equal.values() if len(group) > 1]


def _digest(files: list[Path]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as stream:
            stream.seek(max(0, size // 2 - 2**19))
            digest.update(size.to_bytes(8, "little") + stream.read(2**20))
    return digest.digest()


def _first(items: Sequence[str], limit: int = 10) -> str:
    return ", ".join(items[:limit]) + (
        f" and {len(items) - limit} more" if len(items) > limit else ""
    )
