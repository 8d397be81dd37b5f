"""What lies under a path: scans that can be read, and everything left out with its reason. Opens
headers only."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.formats import (
    ARCHIVE,
    FORMATS,
    MAGIC_BYTES,
    ending,
    kind_by_bytes,
    kind_by_name,
    told,
    told_files,
)
from pseudohealthy.io.bounded import blank
from pseudohealthy.io.distinct import distinct
from pseudohealthy.io.idx import idx_shape
from pseudohealthy.io.names import NAMES, natural, safe
from pseudohealthy.io.source import Skipped, Source, Survey
from pseudohealthy.io.unzip import unpack
from pseudohealthy.lazy import lazy

ITEM = re.compile(r"^(?P<path>.+)#(?P<item>\d+)$")
NUMBER = re.compile(r"\d+")
MASK = re.compile(r"(^|[-_.])(mask|seg|label|labels|gt|roi|brainmask|lesion)$", re.I)
OUTPUTS = {"pseudo_healthy", "anomaly_map", "anomaly_mask", "panel"}
# What goes with images and is none; nobody means it as an input, so it is counted and not listed
BESIDE = re.compile(
    r"(readme|licen[cs]e|changes|changelog|authors|citation|makefile)(\.\w+)?"
    r"|.+\.(json|tsv|csv|txt|md|rst|bvals?|bvecs?|xml|html?|pdf|docx?|xlsx?|ya?ml|toml|cff|ini"
    r"|cfg|log|sh|bat|py|m|r|ipynb|bib|tex|url|lnk|css|js|svg|sha256|md5)(\.gz)?",
    re.I,
)
SYSTEM = ("thumbs.db", "desktop.ini")
# Images of other kinds, and what makes a readable one of them
FOREIGN = {
    (".mgz", ".mgh"): "a FreeSurfer volume: convert it with mri_convert FILE out.nii.gz",
    (
        ".mha",
        ".mhd",
        ".nrrd",
        ".nhdr",
    ): "an ITK volume: save it as NIfTI, for example with 3D Slicer or SimpleITK",
    (".mnc",): "a MINC volume: convert it with mnc2nii FILE out.nii",
    (".par", ".rec"): "a Philips PAR/REC volume: convert it with dcm2niix",
    (".head", ".brik"): "an AFNI volume: convert it with 3dAFNItoNIFTI FILE",
    (".tar", ".tgz", ".tar.gz", ".7z", ".rar"): "an archive: unpack it, or make a zip of it",
    (".gif", ".webp", ".heic", ".jp2"): "a picture of another format: save it as PNG",
}


def discover(
    inputs: Sequence[Path | str], named: str = "series"
) -> tuple[list[Source], list[Skipped]]:
    """The scans under the inputs and what is left out, as `survey` finds them."""
    found = survey(inputs, named)
    return found.sources, found.skipped


def survey(inputs: Sequence[Path | str], named: str = "series") -> Survey:
    """All scans under the inputs (files, folders, zips, idx items "file.gz#12", channels
    "t1.nii|t2.nii"), with unique case ids.

    Args:
        inputs: What is given; a file or a folder of files.
        named: What DICOM cases are called by: "series" (their SeriesInstanceUID) or "path" (their
            folders and files).

    Raises Fault NOT_FOUND or NO_INPUT (exit 3), ID_COLLISION (exit 2) for a file given twice,
    ARCHIVE (exit 8).
    """
    if named not in NAMES:
        raise Fault(
            "USAGE",
            f"cases cannot be named by '{named}'",
            f"one of: {', '.join(NAMES)}",
            exit=USAGE,
        )
    found = Survey()
    for number, given in enumerate(inputs, 1):
        if "|" in str(given) and not os.path.lexists(given):
            found.add(_channels(str(given).split("|")))
            continue
        path, item = split_item(given)
        if not str(given).strip():  # as a path it would be the folder one stands in
            raise Fault("USAGE", "an input is empty", "give a file or a folder", exit=USAGE)
        if not path.exists():
            raise Fault("NOT_FOUND", f"there is no {path}", "check the path")
        found.add(_under(path, item, named, f"input {number}"))
    if not found.sources:
        raise Fault("NO_INPUT", f"nothing readable was found{_why(found)}", f"give {told()}")
    found.sources = distinct(found.sources)
    return found


def _why(found: Survey) -> str:
    rows = found.left_out()
    reasons = [f"{name}: {reason}" for name, reason in rows[:3]] + (
        [found.aside()] if found.beside else []
    )
    count = len(found.skipped) + found.beside.total()
    return f" ({many(count, 'file')} left out; {'; '.join(reasons)})" if count else ""


def split_item(given: Path | str) -> tuple[Path, int | None]:
    """("file.gz#12") -> (file.gz, 12); a path that exists as it stands is left alone."""
    match = ITEM.match(str(given))
    if match and not os.path.lexists(given):
        return Path(match["path"]), int(match["item"])
    return Path(given), None


def _channels(parts: Sequence[str]) -> Survey:
    """Files that are the channels of one image, in the order of the run's; the case is called by
    the first."""
    if not all(part.strip() for part in parts):
        raise Fault(
            "USAGE", f"a channel of '{'|'.join(parts)}' is empty", "write FILE|FILE|...", exit=USAGE
        )
    paths = [Path(part.strip()) for part in parts]
    for path in paths:
        if path.is_dir():
            raise Fault(
                "CHANNELS",
                f"{path.name} is a folder and cannot be a channel",
                f"join {told_files()} by |; convert DICOM series to NIfTI",
            )
        if not path.is_file():
            raise Fault("NOT_FOUND", f"there is no {path}", "check the path of this channel")
        if not _single(kind_of(path)):
            raise Fault("CHANNELS", f"{path.name} cannot be a channel", f"join {told_files()} by |")
    first = _file(paths[0], kind_of(paths[0]), None).sources[0]
    return Survey([replace(first, kind="channels", paths=tuple(paths))])


def kind_of(path: Path) -> str:
    """A format of `FORMATS`, "zip" or "": by name, for unknown names by the first bytes."""
    name = path.name.lower()
    if kind := kind_by_name(name):
        return kind
    with open(path, "rb") as file:
        head = file.read(MAGIC_BYTES)
    kind = kind_by_bytes(head)
    zipped = name.endswith(ARCHIVE) or (head[:4] == b"PK\x03\x04" and "." not in name)
    return "zip" if zipped and not (kind and FORMATS[kind].volume) else kind


def _single(kind: str) -> bool:
    return kind in FORMATS and FORMATS[kind].single


def _under(path: Path, item: int | None, named: str, label: str) -> Survey:
    if path.is_dir():
        return _picked(_folder(path, named, str(path)), item)
    try:
        kind = kind_of(path)
        if kind == "zip":
            return _picked(_folder(_unpacked(path, named, label), named, str(path)), item)
        if kind == "dicom":
            return _picked(_grouped([path], path, named, str(path)), item)
        return _file(path, kind, item)
    except OSError as error:
        return Survey(skipped=[Skipped(path, error.strerror or "cannot be read")])


def _picked(found: Survey, item: int | None) -> Survey:
    """Scan `item` of a path, from 0 in the order in which `inspect` lists them; all where none is
    named."""
    if item is None:
        return found
    if item >= len(found.sources):
        raise Fault(
            "ITEM", f"volume {item} of {len(found.sources)}", "counting starts at 0", exit=USAGE
        )
    found.sources = [found.sources[item]]
    return found


def _unpacked(path: Path, named: str, label: str) -> Path:
    """The files of a zip; why it is refused is said without its name, which an archive may have
    made of a patient's."""
    try:
        return unpack(path)
    except Fault as fault:
        if named == "series":
            fault.message = fault.message.replace(path.name, label)
        raise


def _folder(root: Path, named: str, given: str) -> Survey:
    found = Survey()
    slices: list[Path] = []
    blanks: list[Path] = []
    images = {path for path in _walk(root) if kind_by_name(path.name) == "nifti"}
    for path in _walk(root):
        if what := _beside(path, images):
            found.beside[what] += 1
        elif _stem(path) in OUTPUTS:
            found.skipped.append(Skipped(path, "an output of this program"))
        else:
            try:
                kind = "" if path.is_symlink() and not path.exists() else kind_of(path)
            except OSError as error:
                found.skipped.append(Skipped(path, error.strerror or "cannot be read"))
                continue
            if not kind and BESIDE.fullmatch(path.name):
                found.beside["tables, texts and sidecars"] += 1
            elif kind == "dicom":
                slices.append(path)
            elif not kind and blank(path):
                blanks.append(path)
            elif _single(kind) and MASK.search(_stem(path)):
                found.skipped.append(Skipped(path, "named as a mask"))
            elif kind == "zip":
                reason = "an archive inside a folder or archive: unpack it, or give it by name"
                found.skipped.append(Skipped(path, reason, named == "series"))
            else:
                found.add(_file(path, kind, None))
    alike = {(path.parent, NUMBER.sub("0", path.name)) for path in slices}
    for path in blanks:  # named like the slices beside it, it is one of which nothing is left
        if (path.parent, NUMBER.sub("0", path.name)) in alike:
            slices.append(path)
        else:
            found.add(_file(path, "", None))
    if slices:
        found.add(_grouped(slices, root, named, given))
        if named == "series":  # who named the slices named what lies beside them
            found.skipped = [replace(item, hidden=True) for item in found.skipped]
    return found


def _beside(path: Path, images: set[Path]) -> str:
    """What a file is that goes with others and is never read by itself; empty for every other
    file."""
    name = path.name.lower()
    if name.startswith(".") or name in SYSTEM:
        return "hidden or system files"
    if name == "dicomdir":
        return "DICOMDIR indices (their references are not followed)"
    return (
        "data files of .hdr" if name.endswith(".img") and path.with_suffix(".hdr") in images else ""
    )


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(
            (f for f in folders if not f.startswith((".", "__MACOSX"))), key=natural
        )
        yield from (Path(folder) / name for name in sorted(files, key=natural))


def _stem(path: Path) -> str:
    name = path.name.lower()
    known = ending(name)
    return name.removesuffix(known) if known else name.removesuffix(".gz").rsplit(".", 1)[0]


def _file(path: Path, kind: str, item: int | None) -> Survey:
    if kind == "idx":
        return _idx(path, item)
    if not kind:
        return Survey(skipped=[Skipped(path, _foreign(path.name.lower()))])
    name = path.name.removesuffix(ending(path.name)) if ending(path.name) else path.stem
    return Survey(
        [Source(safe(name if item is None else f"{name}-{item}"), kind, (path,), item=item)]
    )


def _foreign(name: str) -> str:
    """Why a file is not read, with what would make it readable where that is known."""
    return next(
        (said for suffixes, said in FOREIGN.items() if name.endswith(suffixes)),
        "not an image this program reads",
    )


def _idx(path: Path, item: int | None) -> Survey:
    try:
        shape = idx_shape(path)
    except Fault as fault:
        return Survey(skipped=[Skipped(path, fault.message)])
    if len(shape) != 3:
        return Survey(skipped=[Skipped(path, "an idx file of labels, not of images")])
    stem = safe(re.sub(r"\.gz$", "", path.name).replace(".", "-"))
    items = range(shape[0]) if item is None else [item]
    return Survey([Source(f"{stem}-{k:05d}", "idx", (path,), item=k) for k in items])


def _grouped(paths: list[Path], root: Path, named: str, given: str) -> Survey:
    """The cases of DICOM files."""
    return lazy(FORMATS["dicom"].finder)(paths, root, named, given)
