"""The key: which DICOM case is which file. It lies outside the output folder, for whoever may know
whose scans they are.

One row a case: case_id, the input as it was given, the folder of its files below that input, that
folder's own name, the names of its files joined by | ("file 3" in a message is the third of them;
of a multi-frame image with several volumes FILE#k), and the SeriesInstanceUID.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pseudohealthy.errors import BAD_OUTPUT, USAGE, Fault
from pseudohealthy.io.atomic import atomic
from pseudohealthy.io.source import Source

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

COLUMNS = ("case_id", "input", "path", "folder", "files", "series_instance_uid")
# What a spreadsheet would run; such a cell gets a ' in front.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def place(out: Path | str | None, key: Path | str | None = None) -> Path:
    """Where the key of an output folder lies: `key`, or OUT.key.csv beside it. Fault KEY (exit 2)
    for a key inside it."""
    folder = Path(os.path.abspath(out or ""))
    path = folder.with_name(f"{folder.name}.key.csv") if key is None else Path(key)
    if out is not None and path.resolve().is_relative_to(folder.resolve()):
        found = "the key would lie inside the output folder, which it must not travel with"
        raise Fault("KEY", found, "name a file elsewhere with --key", exit=USAGE)
    if path.is_dir():
        raise Fault(
            "KEY",
            "the key would be a folder",
            "name a file with --key, such as key.csv",
            exit=USAGE,
        )
    return path


def extend(path: Path, sources: Sequence[Source]) -> bool:
    """Add the DICOM cases among the sources to the key; rows of earlier commands stay. False where
    there is none.

    The file can be read by its owner alone (mode 0600). Fault KEY (exit 6) for a file that is no
    key, OUTPUT (exit 6).
    """
    rows = {source.case_id: row(source) for source in sources if source.origin}
    if not rows:
        return False
    try:
        with alone(path):
            write(path, known(path) | rows)
    except Fault as fault:
        fault.cure = "name a file that can be written with --key"
        raise
    return True


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one program at a time read and write the key, so that two that extend it lose no row of
    each other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.parent, os.O_RDONLY)
    except OSError:  # who writes the key says what is wrong with its folder
        yield
        return
    try:
        if fcntl is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write(path: Path, rows: Mapping[str, tuple[str, ...]]) -> None:
    """The rows as CSV, for the owner alone."""
    with atomic(path) as temporary:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(map(harmless, cells) for cells in rows.values())


def row(source: Source) -> tuple[str, ...]:
    """The line of a DICOM case that is named by its series."""
    origin = source.origin
    assert origin is not None
    folder = Path(os.path.commonpath([path.parent for path in source.paths]))
    inside = os.path.relpath(folder, origin.root)
    files = "|".join(os.path.relpath(path, folder) for path in source.paths)
    files += "" if source.item is None else f"#{source.item}"
    return (source.case_id, origin.given, inside, folder.resolve().name, files, origin.series)


def known(path: Path) -> dict[str, tuple[str, ...]]:
    """The rows of an earlier key by case id; empty where there is none. Fault KEY (exit 6) for
    another file."""
    if not path.exists():
        return {}
    try:
        with long_cells(), open(path, newline="", encoding="utf-8") as file:
            lines = [tuple(cells) for cells in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error):
        lines = []
    if not lines or lines[0] != COLUMNS or any(len(cells) != len(COLUMNS) for cells in lines):
        raise Fault(
            "KEY",
            f"'{path.name}' is there and is no key of this program",
            "name another file with --key",
            exit=BAD_OUTPUT,
        )
    return {cells[0]: cells for cells in lines[1:]}


@contextmanager
def long_cells() -> Iterator[None]:
    """A series of thousands of files is one cell, longer than the csv module expects."""
    before = csv.field_size_limit(2**30)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def harmless(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULA) else cell
