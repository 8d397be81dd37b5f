"""The published lists of pDDPM and cDDPM (Behrendt et al. 2023, MIDL; 2025, Comput. Biol. Med.),
read as they are.

Layout: ``DATA_DIR/splits/*.csv`` (or the folder of the lists itself) with
``IXI_{train,val}_fold0..4.csv``, ``IXI_test.csv``, ``Brats21_{val,test}.csv``,
``MSLUB_{val,test}.csv``, ``avail_t2.csv``; columns img_name, age, label, img_path, mask_path
(brain), seg_path (lesion); images at ``DATA_DIR/Train/ixi/t1/...`` and ``DATA_DIR/Test/...``. One
manifest: training and validation list of one fold, and every ``_val`` and ``_test`` list.

What the lists hold (IXI.xls has several rows for some subjects, and rows, not subjects, were
split): each training list has 387 rows of 374 scans (fold 0; 376 in fold 2), IXI_test 160 rows of
157; nine scans of IXI_test are in the training lists of folds 0 and 2, two of IXI_val_fold2 in
IXI_train_fold2; avail_t2 has 587 rows of 562 scans. Every finding is printed and kept in
``published_leaks.txt`` beside the manifest; images are not needed for that. By default the manifest
is
clean: repeated rows are dropped and a subject stays only in test, else val. ``clean=False`` keeps
every row.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.atomic import write_text
from pseudohealthy.progress import say

LEAKS = "published_leaks.txt"
_LIST = re.compile(r"([A-Za-z0-9]+)_(train|val|test)(?:_fold(\d))?")
_NEEDED = {"img_name", "label", "img_path", "mask_path"}


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fold: int = 0,
    modality: str = "t1",
    clean: bool = True,
) -> Manifest:
    """The lists of one fold as a manifest; the seed changes nothing. modality: t1 as the lists name
    it, or t2, for which only the scans of avail_t2.csv are taken.

    Raises Fault LAYOUT (exit 3) without lists or with one that lacks a column, BAD_SETTING (2) for
    a fold or modality that is not there.
    """
    source = Path(source)
    folder = source / "splits" if (source / "splits").is_dir() else source
    lists = {
        path.stem: _rows(path)
        for path in sorted(folder.glob("*.csv"))
        if _LIST.fullmatch(path.stem)
    }
    if not lists:
        raise Fault(
            "LAYOUT",
            "no IXI_train_fold0.csv or the like in the folder",
            "give DATA_DIR or its folder splits",
        )
    folds = sorted({match[3] for name in lists if (match := _LIST.fullmatch(name)) and match[3]})
    if folds and str(fold) not in folds:
        raise Fault(
            "BAD_SETTING",
            f"fold {fold}",
            f"the lists have the folds {', '.join(folds)}",
            exit=USAGE,
        )
    report(_findings(lists, folder / "avail_t2.csv"), out)
    here = {
        name: rows for name, rows in lists.items() if name.split("_fold")[-1] in (name, str(fold))
    }
    if modality == "t2":
        here = _available(here, folder / "avail_t2.csv")
    elif modality != "t1":
        raise Fault("BAD_SETTING", f"modality {modality!r}", "use t1 or t2", exit=USAGE)
    cases = [_case(name, row, modality) for name, rows in here.items() for row in rows]
    return written(cases, [source, source.parent], out, clean=clean)


def repeats(name: str, entries: Sequence[str]) -> list[str]:
    """A sentence where a list holds an entry more than once."""
    twice = [entry for entry, count in Counter(entries).items() if count > 1]
    found = (
        f"{name}: {many(len(entries), 'row')} of {many(len(set(entries)), 'scan')}, repeated:"
        f" {_some(twice)}."
    )
    return [found] if twice else []


def overlap(
    one: str, other: str, files: Mapping[str, Sequence[str]], subjects: Mapping[str, Sequence[str]]
) -> list[str]:
    """A sentence where two lists share subjects. files, subjects: by name of the list, row by
    row."""
    both = sorted(set(subjects[one]) & set(subjects[other]))
    same = len(set(files[one]) & set(files[other]))
    rows = sum(subject in both for subject in subjects[other]) if both else 0
    found = (
        f"{one} and {other}: {many(len(both), 'subject')} and {many(same, 'scan')} in both,"
        f" {many(rows, 'row')} of {other}: {_some(both)}."
    )
    return [found] if both else []


def report(findings: Sequence[str], out: Path) -> None:
    """Print the leaks of published lists and keep them beside the manifest."""
    Path(out).mkdir(parents=True, exist_ok=True)
    write_text(Path(out) / LEAKS, "".join(f"{line}\n" for line in findings))
    for line in findings or ["no leak in the published lists"]:
        say(f"published: {line}" if findings else line)


def written(cases: list[Case], roots: Sequence[Path], out: Path, *, clean: bool) -> Manifest:
    """The manifest on the first root that holds an image. Where one does, cases without image are
    left out and counted; where none does, the manifest names the files to come. clean: each image
    once, each subject in one split."""
    root = next(
        (root for root in roots if any((root / case.image).is_file() for case in cases)), None
    )
    if root is None:
        say("none of the listed images is below the folder: the manifest names files to come")
    kept = [case for case in cases if root is None or (root / case.image).is_file()]
    if len(kept) < len(cases):
        say(
            f"{len(cases) - len(kept)} of {many(len(cases), 'listed image')} are not there and"
            " left out"
        )
    if clean:
        before = len(kept)
        kept = _cleaned(kept)
        if len(kept) < before:
            say(
                f"{before - len(kept)} rows left out so that no subject is in two splits and no"
                " image is listed twice"
            )
    place = roots[0] if root is None else root
    manifest = Manifest([Case(**{**vars(case), "root": place}) for case in kept], out)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _cleaned(cases: list[Case]) -> list[Case]:
    """First row of each image, in test before val before train; an anomalous row of an image before
    a healthy one."""
    taken: dict[str, str] = {}
    for split in ("test", "val", "train"):
        for case in cases:
            if case.split == split:
                taken.setdefault(case.patient_id, split)
    kept: dict[str, int] = {}
    for number in sorted(range(len(cases)), key=lambda number: cases[number].label != ANOMALOUS):
        if taken[cases[number].patient_id] == cases[number].split:
            kept.setdefault(cases[number].image, number)
    return [cases[number] for number in sorted(kept.values())]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not set(rows[0]) >= _NEEDED:
        raise Fault(
            "LAYOUT",
            f"{path.name} lacks a column of {', '.join(sorted(_NEEDED))}",
            "fetch it again",
        )
    if odd := [row for row in rows if row["label"] not in ("0", "1") or not row["img_path"]]:
        raise Fault(
            "LAYOUT",
            f"{path.name}: {many(len(odd), 'row')} without label 0 or 1 or without path",
            "fetch it again",
        )
    return rows


def _findings(lists: Mapping[str, list[dict[str, str]]], available: Path) -> list[str]:
    scans = {name: [_stem(row) for row in rows] for name, rows in lists.items()}
    subjects = {name: [_subject(stem) for stem in stems] for name, stems in scans.items()}
    found = [line for name in lists for line in repeats(name, scans[name])]
    if available.is_file():
        found += repeats(available.stem, _listed(available))
    for one in lists:
        for other in lists:
            first, second = _LIST.fullmatch(one), _LIST.fullmatch(other)
            assert first and second
            order = ("train", "val", "test")
            if order.index(first[2]) < order.index(second[2]) and (
                first[3] == second[3] or not second[3]
            ):
                found += overlap(one, other, scans, subjects)
        if ill := [row for row in lists[one] if "_train" in one and row["label"] == "1"]:
            found.append(
                f"{one}: {many(len(ill), 'diseased scan')} in a training list:"
                f" {_some([_stem(row) for row in ill])}."
            )
    return found


def _available(
    lists: Mapping[str, list[dict[str, str]]], table: Path
) -> dict[str, list[dict[str, str]]]:
    if not table.is_file():
        raise Fault("LAYOUT", "no avail_t2.csv beside the lists", "take modality=t1 or fetch it")
    names = set(_listed(table))
    return {
        name: [row for row in rows if not name.startswith("IXI") or _stem(row) in names]
        for name, rows in lists.items()
    }


def _listed(table: Path) -> list[str]:
    with table.open(encoding="utf-8-sig", newline="") as stream:
        return [_bare(row[1]) for row in list(csv.reader(stream))[1:] if len(row) > 1]


def _bare(name: str) -> str:
    """``IXI105-HH-1471`` of ``IXI105-HH-1471_t1.nii.gz``."""
    return re.sub(r"(_t[12])?\.nii(\.gz)?$", "", name)


def _stem(row: dict[str, str]) -> str:
    return _bare(row["img_name"])


def _subject(stem: str) -> str:
    return stem[:6] if re.match(r"IXI\d{3}", stem) else stem


def _case(name: str, row: dict[str, str], modality: str) -> Case:
    stem, match = _stem(row), _LIST.fullmatch(name)
    assert match
    image = (
        row["img_path"]
        .lstrip("/")
        .replace("/t1/", f"/{modality}/")
        .replace("_t1.nii", f"_{modality}.nii")
    )
    label = ANOMALOUS if row["label"] == "1" else HEALTHY
    site = next((row[key] for key in row if key and key.startswith("Site No")), "")
    if ixi := re.match(r"IXI\d{3}-([A-Za-z]+)", stem):
        site = ixi[1]
    return Case(
        stem,
        _subject(stem),
        match[2],
        label,
        image,
        (row.get("seg_path") or "").lstrip("/") if label else "",
        row["mask_path"].lstrip("/"),
        site,
        extra={"list": name, "age": row.get("age") or ""},
    )


def _some(names: Sequence[str]) -> str:
    most = 12
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
