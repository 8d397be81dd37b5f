"""What cases are called: harmless, distinct, and for DICOM without a word of whoever named the
folders.

An archive exports folders and files named after patients. So a DICOM case is called by its series,
and what is said about its files counts them instead of naming them; the key of `detect` (see
`detection.key`) says which is which.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

NAMES = ("series", "path")  # of DICOM cases: by their series, or by their folders and files
DIGITS = 8  # hexadecimal ones of a series; twice as many where two series would meet
# Names of files that only count, such as IM0001: without an ending they may be a number or word of
# a message as well
COUNTED = re.compile(
    r"(im|img|image|i|ct|mr|pt|slice|scan|series|file|copy|dcm|dicom|ima|z|[-_."
    r" ]|(?<!\d)\d{1,5}(?!\d))+",
    re.I,
)
# Where messages name a file: before and after its name
BEFORE = r"(?:^|(?<=: )|(?<=file=)|(?<=than )|(?<=and )|(?<=as )|(?<=\()|(?<='))"
AFTER = r"(?=$|[:#)';]| (?:and|cannot|counts|declares|ends|frame|has|holds|is|lie|or)\b)"
HELD = "held:"  # begins the name of an image in memory, see `io.held`


def safe(name: str) -> str:
    """A case id that is a harmless file name on every system: word characters, dots and dashes, at
    most 100 bytes."""
    clean = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", name)).strip("._-") or "case"
    if len(clean.encode()) > 100:
        clean = clean.encode()[:90].decode(errors="ignore") + "-" + digest(name)
    return clean


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorting key under which slice10 comes after slice9."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", text)
    ]


def digest(text: str, digits: int = DIGITS) -> str:
    """The first hexadecimal digits of the sha256 of a text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]


def series_id(uid: str, part: str = "", digits: int = 0) -> str:
    """The case id of a DICOM series, or of one part of it: "series-1a2b3c4d",
    "series-1a2b3c4d-b1000"."""
    return f"series-{digest(uid, digits or DIGITS)}" + (f"-{safe(part)}" if part else "")


def distinct(ids: Sequence[str], ways: Iterable[Callable[[int], str]]) -> list[str]:
    """The ids, those that meet (also where letter case does not count) renamed by one way after the
    other until none do.

    A way gives the new id of the case at a place; ids that still meet afterwards are returned as
    they are.
    """
    ids = list(ids)
    for way in ways:
        for place in clashes(ids):
            ids[place] = way(place)
    return ids


def clashes(ids: Sequence[str]) -> list[int]:
    """Places of ids that occur more than once."""
    count: dict[str, int] = {}
    for name in ids:
        count[name.casefold()] = count.get(name.casefold(), 0) + 1
    return [place for place, name in enumerate(ids) if count[name.casefold()] > 1]


def ending(path: Path) -> str:
    """What tells a.nii from a.nii.gz: "nii", "nii-gz"."""
    name = path.name.lower()
    inner = Path(name.removesuffix(".gz")).suffix
    return (inner + ".gz" * name.endswith(".gz")).strip(".").replace(".", "-")


def unnamed(text: str, paths: Sequence[Path]) -> str:
    """The text with "file 3" wherever the third of the paths stands in it."""
    for number, path in sorted(enumerate(paths, 1), key=lambda item: -len(item[1].name)):
        if path.name in text:
            text = text.replace(str(path), path.name)
            name = rf"(?<![\w.\-]){re.escape(path.name)}(?![\w\-])"
            if COUNTED.fullmatch(path.name) and "." not in path.name:
                name = BEFORE + name + AFTER
            text = re.sub(f"(file=)?{name}", f"file {number}", text)
    for folder in {str(path.parent) for path in paths if len(path.parts) > 1 and os.sep in text}:
        text = text.replace(folder + os.sep, "").replace(folder, "its folder")
    return text


def unname(error: BaseException, paths: Sequence[Path]) -> None:
    """Take the names of files out of what an error says."""
    error.args = tuple(
        unnamed(part, paths) if isinstance(part, str) else part for part in error.args
    )
    for name in ("message", "cure", "filename", "filename2"):
        if isinstance(said := getattr(error, name, None), str):
            setattr(error, name, unnamed(said, paths))
