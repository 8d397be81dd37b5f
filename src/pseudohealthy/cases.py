"""Cases and manifests: which image belongs to which patient, split and label. Everything downstream reads only this.

A manifest is a CSV with the columns ``case_id, patient_id, split, label, image`` and, where known, ``mask,
brain_mask, site``; further columns are kept. Paths are relative to the manifest's folder. A manifest that describes
files elsewhere (what ``prepare`` writes) names that folder in ``<stem>.roots.json`` beside it and the key in the column
``root``, so a CSV alone can never reach outside its own folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from pseudohealthy.cells import UNSHOWN, cell_files, inside, possible, prefixed
from pseudohealthy.errors import NO_INPUT, USAGE, Fault

HEALTHY, ANOMALOUS = 0, 1
SPLITS = ("train", "val", "test")
REQUIRED = ("case_id", "patient_id", "split", "label", "image")
OPTIONAL = ("mask", "brain_mask", "site")
_CELLS = ("image", "mask", "brain_mask")
_SPLIT_NAMES = {name: name for name in ("", *SPLITS)} | {
    "training": "train", "valid": "val", "validation": "val", "testing": "test",
}  # fmt: skip
_LABEL_NAMES = {"": None, "healthy": HEALTHY, "anomalous": ANOMALOUS, "0": 0, "0.0": 0, "1": 1, "1.0": 1}


@dataclass(frozen=True)
class Case:
    """One image of one patient. ``label`` None = unknown; paths are relative to ``root``. ``known_as``: what version 0.1
    called the patient of a DICOM case in a plain folder, for the leak checks of its runs."""

    case_id: str
    patient_id: str
    split: str
    label: int | None
    image: str
    mask: str = ""
    brain_mask: str = ""
    site: str = ""
    root: Path = field(default=Path("."), compare=False)
    extra: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    known_as: str = field(default="", compare=False, repr=False)

    def files(self) -> list[Path]:
        """Every file the case needs, globs expanded; a pattern that matches nothing is returned as it stands."""
        return [path for cell in _CELLS for path in cell_files(getattr(self, cell), self.root)]

    def values(self, column: str) -> list[int]:
        """The label values a further column lists, such as "2" or "1 3" under ``mask_ignore`` (voxels that leave the
        evaluation) or ``mask_background`` (voxels that are no lesion)."""
        return [int(word) for word in re.findall(r"\d+", self.extra.get(column, ""))]


class Manifest:
    """An ordered table of cases with the folder its relative paths start from."""

    def __init__(self, cases: Iterable[Case], root: Path):
        self.cases, self.root = list(cases), Path(root)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def split(self, name: str) -> Manifest:
        """The cases of one split (``train``, ``val`` or ``test``)."""
        return Manifest([case for case in self.cases if case.split == name], self.root)

    @property
    def patients(self) -> list[str]:
        return sorted({case.patient_id for case in self.cases})

    @property
    def sha256(self) -> str:
        """Identity of the table (ids, splits, labels, paths), the same wherever the folder lies."""
        rows = [
            [*(str(getattr(case, name) if getattr(case, name) is not None else "") for name in REQUIRED + OPTIONAL)]
            for case in self.cases
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def save(self, path: Path) -> Path:
        """Write the CSV (paths relative to its folder, or to a root named in ``<stem>.roots.json``)."""
        from pseudohealthy.io.atomic import write_json, write_text

        path = Path(path)
        folder = path.resolve().parent
        roots: dict[str, str] = {}
        extra = list(dict.fromkeys(key for case in self.cases for key in case.extra))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = [*REQUIRED, *OPTIONAL]
        writer.writerow([*columns, "root", *extra])
        for case in self.cases:
            home = _resolved(case.root)
            inside = home.is_relative_to(folder)
            prefix = home.relative_to(folder).as_posix() if inside else "."
            key = "" if inside else roots.setdefault(str(home), f"source{len(roots) or ''}")
            row = [getattr(case, name) for name in columns]
            row = [
                prefixed(value, prefix) if name in _CELLS else value for name, value in zip(columns, row, strict=True)
            ]
            writer.writerow([*row, key, *(case.extra.get(name, "") for name in extra)])
        if roots:
            write_json(path.with_suffix(".roots.json"), {key: root for root, key in roots.items()})
        write_text(path, text.getvalue())
        return path


def load(data: Path | str, *, dedupe: bool = False, names: str = "series") -> Manifest:
    """A manifest CSV, a folder holding ``manifest.csv``, or a plain folder (see ``folders.py``).

    Args:
        dedupe: See `without_copies`.
        names: What DICOM cases of a plain folder are called by, "series" or "path"; a manifest names its own.

    Raises Fault NOT_FOUND / NO_MANIFEST (exit 3), BAD_MANIFEST (2), PATH_ESCAPE (8).
    """
    if dedupe:
        return without_copies(load(data, names=names))
    if not str(data).strip():  # as a path it would be the folder one stands in
        raise Fault("USAGE", "the path of the data is empty", "give a folder or a CSV", exit=USAGE)
    data = Path(data)
    if not data.exists():
        raise Fault("NOT_FOUND", f"no file or folder named {data}", "check the path", exit=NO_INPUT)
    if data.is_file():
        return _read_csv(data)
    if (data / "manifest.csv").is_file():
        return _read_csv(data / "manifest.csv")
    from pseudohealthy.folders import read_folders

    return read_folders(data, names)


def _read_csv(path: Path) -> Manifest:
    try:
        text = path.read_text(encoding="utf-8-sig")
        head = text.split("\n", 1)[0]
        rows = list(csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Fault(
            "BAD_MANIFEST",
            f"{path.name} is not a text table ({type(error).__name__})",
            "save it as CSV in UTF-8",
            exit=USAGE,
        ) from error
    header = [name.strip().lower() for name in rows[0]] if rows else []
    absent = [name for name in REQUIRED if name not in header]
    if absent or len(set(header)) < len(header):
        raise Fault(
            "BAD_MANIFEST",
            f"{path.name} has no column {', '.join(absent)}" if absent else f"{path.name} repeats a column",
            f"the header must name {', '.join(REQUIRED)}; {', '.join(OPTIONAL)} may follow",
            exit=USAGE,
        )
    root = path.resolve().parent
    roots = _read_roots(path)
    cases = []
    for number, cells in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(header):
            raise _bad_row(path, number, f"{len(cells)} cells under {len(header)} columns")
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        row = {name: row.get(name, "") for name in header}
        cases.append(_case(path, number, row, root, roots))
    if not cases:
        raise Fault("NO_INPUT", f"{path.name} lists no case", "add one row per image", exit=NO_INPUT)
    return Manifest(cases, root)


def _case(path: Path, number: int, row: dict[str, str], root: Path, roots: Mapping[str, Path]) -> Case:
    if not row["case_id"] or not row["image"]:
        raise _bad_row(path, number, "case_id or image is blank")
    if UNSHOWN.search("".join(row.values())):
        raise _bad_row(path, number, "a cell with a control character", "remove it; tables and messages quote cells")
    split, label = row["split"].lower(), row["label"].lower()
    if split not in _SPLIT_NAMES:
        raise _bad_row(path, number, f"split {row['split']!r}", "use train, val, test or leave it blank")
    if label not in _LABEL_NAMES:
        raise _bad_row(path, number, f"label {row['label']!r}", "use 0 (healthy), 1 (anomalous) or leave it blank")
    key = row.pop("root", "")
    if key and key not in roots:
        raise _bad_row(path, number, f"root {key!r} is not in {path.stem}.roots.json", "run prepare again")
    home = roots[key] if key else root
    known = {name: inside(row.get(name, ""), home, number) for name in _CELLS}
    extra = {name: value for name, value in row.items() if name and name not in REQUIRED + OPTIONAL}
    return Case(
        row["case_id"],
        row["patient_id"] or row["case_id"],
        _SPLIT_NAMES[split],
        _LABEL_NAMES[label],
        site=row.get("site", ""),
        root=home,
        extra=extra,
        **known,
    )


def _bad_row(path: Path, number: int, found: str, cure: str = "correct the row") -> Fault:
    return Fault("BAD_MANIFEST", f"{path.name} row {number}: {found}", cure, exit=USAGE)


def _read_roots(path: Path) -> dict[str, Path]:
    side = path.with_suffix(".roots.json")
    if not side.is_file():
        return {}
    try:
        table = json.loads(side.read_text(encoding="utf-8"))
        if not all(isinstance(value, str) and possible(value) for value in table.values()):
            raise ValueError
        return {key: Path(value) for key, value in table.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise Fault(
            "BAD_MANIFEST", f"{side.name} is not a table of folders", "run prepare again", exit=USAGE
        ) from error


@lru_cache(maxsize=4096)
def _resolved(path: Path) -> Path:
    return path.resolve()


def assign_splits(
    manifest: Manifest,
    *,
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    anomalous_in_val: bool = False,
) -> Manifest:
    """New splits by patient, each site divided alike; a function of the seed and the patients' ids alone.

    When some patients are known to be healthy, train and val hold only those and all others go to test. When none is
    (every patient has a lesion somewhere, or no label exists) all patients are divided: the planes' own labels then say
    what is healthy.

    Args:
        anomalous_in_val: Beside healthy patients, divide those with an anomaly over val and test, in the ratio of the
            two fractions. A validation can then rank; training is the same. Patients without a label stay in test.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise Fault("BAD_SETTING", f"split fractions {tuple(fractions)}", "give three shares that sum to 1", exit=USAGE)
    labels: dict[str, set[int | None]] = defaultdict(set)
    sites: dict[str, str] = {}
    for case in manifest:
        labels[case.patient_id].add(case.label)
        sites.setdefault(case.patient_id, case.site)
    healthy = [patient for patient in labels if labels[patient] == {HEALTHY}]
    split = dict.fromkeys(labels, "test") | _apportion(_ranked(healthy or labels, sites, seed), fractions)
    _, val, test = fractions
    if anomalous_in_val and healthy and val + test > 0:
        anomalous = [patient for patient in labels if ANOMALOUS in labels[patient]]
        shares = (test / (val + test), val / (val + test))  # a single one is for the test
        split |= _apportion(_ranked(anomalous, sites, seed), shares, ("test", "val"))
    return Manifest([replace(case, split=split[case.patient_id]) for case in manifest], manifest.root)


def _ranked(patients: Iterable[str], sites: Mapping[str, str], seed: int) -> list[str]:
    """Patients site by site, within a site in an order drawn with the seed."""
    names = sorted(patients)
    rank = dict(zip(names, np.random.default_rng(seed).permutation(len(names)).tolist(), strict=True))
    return sorted(names, key=lambda patient: (sites[patient], rank[patient]))


def _apportion(patients: list[str], fractions: Sequence[float], splits: Sequence[str] = SPLITS) -> dict[str, str]:
    """Splits in proportion along the list; every share above 0 gets a patient as long as there are enough."""
    total = len(patients)
    wanted = [round(share * total) for share in fractions]
    for position, share in enumerate(fractions):
        if share > 0 and wanted[position] == 0 and total >= len(splits):
            wanted[position] = 1
    while sum(wanted) != total:
        wanted[int(np.argmax(wanted))] += 1 if sum(wanted) < total else -1
    split, taken = {}, [0] * len(splits)
    for position, patient in enumerate(patients, start=1):  # grouped by site: the largest arrears get the next patient
        arrears = [want * position / total - used for want, used in zip(wanted, taken, strict=True)]
        place = int(np.argmax(arrears))
        split[patient] = splits[place]
        taken[place] += 1
    return split


def check(manifest: Manifest) -> list[str]:
    """Everything wrong with a manifest as plain sentences, the leak report first; an empty list is a clean one."""
    return leaks(manifest) + missing(manifest)


def require_clean(manifest: Manifest) -> None:
    """Raise Fault MISSING (exit 3) or LEAK (exit 2) when ``check`` finds something."""
    if gone := missing(manifest):
        raise Fault("MISSING", " ".join(gone).rstrip("."), "correct the paths or fetch the files", exit=NO_INPUT)
    if found := leaks(manifest):
        across = any("are in both" in text or re.search(r"[1-9]\d* of them in different", text) for text in found)
        code = "LEAK" if across else "DUPLICATE"
        cure = "list each image once and keep every patient in one split"
        root = manifest.root
        if across and (root / "train").is_dir() and not (root / "patients.csv").is_file():
            cure += ("; in a folder without patients.csv a file's name is its patient: where equal names are different "
                     "patients, rename the files or add patients.csv (columns file,patient)")  # fmt: skip
        raise Fault(code, " ".join(found).rstrip("."), cure, exit=USAGE)


def leaks(manifest: Manifest) -> list[str]:
    """Repeated case ids, the same image twice (by path or by content), patients found in two splits."""
    found = []
    ids = Counter(case.case_id for case in manifest)
    if again := [name for name, count in ids.items() if count > 1]:
        found.append(f"{len(again)} case id(s) occur more than once: {_first(again)}.")
    same: dict[object, list[Case]] = defaultdict(list)
    for case in manifest:
        same[(_resolved(case.root), case.image)].append(case)
    twice = [group for group in same.values() if len(group) > 1]
    twice += _same_content([group[0] for group in same.values()])
    if twice:
        pairs = [" = ".join(dict.fromkeys(case.case_id for case in group)) for group in twice]
        across = sum(len({case.split for case in group} - {""}) > 1 for group in twice)
        found.append(
            f"{len(twice)} image(s) occur more than once, {across} of them in different splits: {_first(pairs)}."
        )
    where: dict[str, set[str]] = defaultdict(set)
    for case in manifest:
        where[case.patient_id].add(case.split)
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        if shared := sorted(patient for patient, splits in where.items() if {one, other} <= splits):
            found.append(f"{len(shared)} patient(s) are in both {one} and {other}: {_first(shared)}.")
    return found


def without_copies(manifest: Manifest) -> Manifest:
    """The first of equal images (by path or content) that share split and label; who is left out is said. Equal images
    of different splits or labels stay, for `require_clean` to refuse: which of them is right cannot be known."""
    from pseudohealthy.progress import say

    same: dict[object, list[Case]] = defaultdict(list)
    for case in manifest:
        same[(_resolved(case.root), case.image)].append(case)
    firsts = {id(group[0]): group for group in same.values()}
    for alike in _same_content([group[0] for group in same.values()]):
        firsts[id(alike[0])] = [case for one in alike for case in firsts.pop(id(one))]
    copies = [c for group in firsts.values() if len({(x.split, x.label) for x in group}) == 1 for c in group[1:]]
    if not copies:
        return manifest
    say(f"left out as copies of other cases ({len(copies)}): {_first([case.case_id for case in copies])}")
    gone = set(map(id, copies))
    return Manifest([case for case in manifest if id(case) not in gone], manifest.root)


def missing(manifest: Manifest) -> list[str]:
    """Files that are named and not there: one sentence with the first ten."""
    exists = lru_cache(maxsize=None)(Path.exists)
    gone = [path.name for path in dict.fromkeys(path for case in manifest for path in case.files()) if not exists(path)]
    return [f"{len(gone)} file(s) named in the manifest do not exist: {_first(gone)}."] if gone else []


def _same_content(cases: list[Case]) -> list[list[Case]]:
    """Cases whose files have equal sizes and equal bytes (the middle MiB of each file speaks for a large one)."""
    alike: dict[object, list[Case]] = defaultdict(list)
    for case in cases:
        files = cell_files(case.image, case.root)
        if "#" not in case.image and all(path.is_file() for path in files):
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


def _first(items: Sequence[str], most: int = 10) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
