"""A manifest from a CSV, from a folder that holds one, or from a plain folder."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.checks import without_copies
from pseudohealthy.data.folders import read_folders
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import CELLS, OPTIONAL, REQUIRED, SPLITS, Case, Manifest
from pseudohealthy.data.paths import UNSHOWN, inside, possible
from pseudohealthy.errors import NO_INPUT, USAGE, Fault

_SPLIT_NAMES = {name: name for name in ("", *SPLITS)} | {
    "training": "train",
    "valid": "val",
    "validation": "val",
    "testing": "test",
}
_LABEL_NAMES = {
    "": None,
    "healthy": HEALTHY,
    "anomalous": ANOMALOUS,
    "0": 0,
    "0.0": 0,
    "1": 1,
    "1.0": 1,
}


def load(data: Path | str, *, dedupe: bool = False, names: str = "series") -> Manifest:
    """Read a manifest.

    Args:
        data: A manifest CSV, a folder with ``manifest.csv``, or a plain folder (see
            ``data/folders.py``).
        dedupe: See `without_copies`.
        names: What DICOM cases of a plain folder are named by, "series" or "path"; a manifest
            names its own.

    Raises:
        Fault: NOT_FOUND, NO_MANIFEST, NO_INPUT (exit 3), BAD_MANIFEST (exit 2), PATH_ESCAPE (exit
            8).
    """
    if dedupe:
        return without_copies(load(data, names=names))
    if not str(data).strip():  # as a path it would be the working folder
        raise Fault("USAGE", "the path of the data is empty", "give a folder or a CSV", exit=USAGE)
    data = Path(data)
    if not data.exists():
        raise Fault("NOT_FOUND", f"no file or folder named {data}", "check the path", exit=NO_INPUT)
    if data.is_file():
        return _read_csv(data)
    if (data / "manifest.csv").is_file():
        return _read_csv(data / "manifest.csv")
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
            f"{path.name} has no column {', '.join(absent)}"
            if absent
            else f"{path.name} repeats a column",
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
            raise _bad_row(
                path, number, f"{many(len(cells), 'cell')} under {many(len(header), 'column')}"
            )
        row = dict(zip(header, (cell.strip() for cell in cells), strict=False))
        row = {name: row.get(name, "") for name in header}
        cases.append(_case(path, number, row, root, roots))
    if not cases:
        raise Fault(
            "NO_INPUT", f"{path.name} lists no case", "add one row per image", exit=NO_INPUT
        )
    return Manifest(cases, root)


def _case(
    path: Path, number: int, row: dict[str, str], root: Path, roots: Mapping[str, Path]
) -> Case:
    if not row["case_id"] or not row["image"]:
        raise _bad_row(path, number, "case_id or image is blank")
    if UNSHOWN.search("".join(row.values())):
        raise _bad_row(
            path,
            number,
            "a cell with a control character",
            "remove it; tables and messages quote cells",
        )
    split, label = row["split"].lower(), row["label"].lower()
    if split not in _SPLIT_NAMES:
        raise _bad_row(
            path, number, f"split {row['split']!r}", "use train, val, test or leave it blank"
        )
    if label not in _LABEL_NAMES:
        raise _bad_row(
            path,
            number,
            f"label {row['label']!r}",
            "use 0 (healthy), 1 (anomalous) or leave it blank",
        )
    key = row.pop("root", "")
    if key and key not in roots:
        raise _bad_row(
            path, number, f"root {key!r} is not in {path.stem}.roots.json", "run prepare again"
        )
    home = roots[key] if key else root
    cells = {name: inside(row.get(name, ""), home, number) for name in CELLS}
    extra = {name: value for name, value in row.items() if name and name not in REQUIRED + OPTIONAL}
    return Case(
        row["case_id"],
        row["patient_id"] or row["case_id"],
        _SPLIT_NAMES[split],
        _LABEL_NAMES[label],
        site=row.get("site", ""),
        root=home,
        extra=extra,
        **cells,
    )


def _bad_row(path: Path, number: int, problem: str, cure: str = "correct the row") -> Fault:
    return Fault("BAD_MANIFEST", f"{path.name} row {number}: {problem}", cure, exit=USAGE)


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
            "BAD_MANIFEST",
            f"{side.name} is not a table of folders",
            "run prepare again",
            exit=USAGE,
        ) from error
