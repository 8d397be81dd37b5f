"""What lies under a path: scans that can be read, and everything left out with its reason. Opens headers only."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pseudohealthy.errors import USAGE, Fault

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
NIFTI = (".nii", ".nii.gz", ".hdr")
DICOM = (".dcm", ".dicom", ".ima")
IDX = re.compile(r"idx[1-4]-u?\w+(\.gz)?$")
ITEM = re.compile(r"^(?P<path>.+)#(?P<item>\d+)$")
MASK = re.compile(r"(^|[-_.])(mask|seg|label|labels|gt|roi|brainmask|lesion)$", re.I)
OUTPUTS = {"pseudo_healthy", "anomaly_map", "anomaly_mask", "panel"}


@dataclass(frozen=True)
class Source:
    """One scan found but not loaded: a file, the files of a DICOM series, or item `item` of an idx or .npy file."""

    case_id: str
    kind: str
    paths: tuple[Path, ...]
    note: str = ""  # becomes a warning of the scan
    item: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A file that is not read, and why."""

    path: Path
    reason: str


def discover(inputs: Sequence[Path | str]) -> tuple[list[Source], list[Skipped]]:
    """All scans under the inputs (files, folders, zips, idx items "file.gz#12"), with unique case ids.

    Raises Fault NOT_FOUND or NO_INPUT (exit 3), ID_COLLISION (exit 2), ARCHIVE (exit 8).
    """
    sources: list[Source] = []
    skipped: list[Skipped] = []
    for given in inputs:
        path, item = split_item(given)
        if not path.exists():
            raise Fault("NOT_FOUND", f"there is no {path}", "check the path")
        found, left = _under(path, item)
        sources += found
        skipped += left
    if not sources:
        reasons = "".join(f"; {s.path.name}: {s.reason}" for s in skipped[:3])
        more = f" ({len(skipped)} files left out{reasons})" if skipped else ""
        raise Fault("NO_INPUT", f"nothing readable was found{more}", "give NIfTI, DICOM, PNG, JPEG, TIFF, .npy or idx")
    return _distinct(sources), skipped


def split_item(given: Path | str) -> tuple[Path, int | None]:
    """("file.gz#12") -> (file.gz, 12); a path that exists as it stands is left alone."""
    match = ITEM.match(str(given))
    if match and not os.path.lexists(given):
        return Path(match["path"]), int(match["item"])
    return Path(given), None


def kind_of(path: Path) -> str:
    """ "nifti", "dicom", "raster", "array", "idx", "zip" or "": by name, for unknown names by the first bytes."""
    name = path.name.lower()
    if name.endswith(NIFTI):
        return "nifti"
    if name.endswith(PICTURES):
        return "raster"
    if name.endswith(".npy"):
        return "array"
    if name.endswith(DICOM):
        return "dicom"
    if IDX.search(name) or name.endswith("idx.gz"):
        return "idx"
    with open(path, "rb") as file:
        head = file.read(352)
    if head[128:132] == b"DICM":
        return "dicom"
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return "nifti"
    if name.endswith(".zip") or (head[:4] == b"PK\x03\x04" and "." not in name):
        return "zip"
    return "raster" if head[:8] == b"\x89PNG\r\n\x1a\n" or head[:3] == b"\xff\xd8\xff" else ""


def _under(path: Path, item: int | None) -> tuple[list[Source], list[Skipped]]:
    if path.is_dir():
        return _picked(_folder(path), item)
    try:
        kind = kind_of(path)
        if kind == "zip":
            from pseudohealthy.io.archive import unpack

            return _picked(_folder(unpack(path)), item)
        if kind == "dicom":
            return _picked(_dicom([path], path), item)
        return _file(path, kind, item)
    except OSError as error:
        return [], [Skipped(path, error.strerror or "cannot be read")]


def _picked(found: tuple[list[Source], list[Skipped]], item: int | None) -> tuple[list[Source], list[Skipped]]:
    """Scan `item` of a path, from 0 in the order in which `inspect` lists them; all where none is named."""
    sources, skipped = found
    if item is None:
        return found
    if item >= len(sources):
        raise Fault("ITEM", f"volume {item} of {len(sources)}", "counting starts at 0", exit=USAGE)
    return [sources[item]], skipped


def _folder(root: Path) -> tuple[list[Source], list[Skipped]]:
    sources: list[Source] = []
    skipped: list[Skipped] = []
    slices: list[Path] = []
    for path in _walk(root):
        stem = path.name.lower().removesuffix(".gz").rsplit(".", 1)[0]
        if path.name.startswith(".") or path.name.lower() in ("thumbs.db", "desktop.ini"):
            skipped.append(Skipped(path, "hidden or system file"))
        elif stem in OUTPUTS:
            skipped.append(Skipped(path, "an output of this program"))
        else:
            try:
                kind = "" if path.is_symlink() and not path.exists() else kind_of(path)
            except OSError as error:
                skipped.append(Skipped(path, error.strerror or "cannot be read"))
                continue
            if kind == "dicom":
                slices.append(path)
            elif kind in ("nifti", "raster", "array") and MASK.search(stem):
                skipped.append(Skipped(path, "named as a mask"))
            elif kind == "zip":
                skipped.append(Skipped(path, "an archive inside a folder or archive: unpack it, or give it by name"))
            else:
                found, left = _file(path, kind, None)
                sources += found
                skipped += left
    if slices:
        found, left = _dicom(slices, root)
        sources += found
        skipped += left
    return sources, skipped


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted((f for f in folders if not f.startswith((".", "__MACOSX"))), key=natural)
        yield from (Path(folder) / name for name in sorted(files, key=natural))


def _file(path: Path, kind: str, item: int | None) -> tuple[list[Source], list[Skipped]]:
    if kind == "idx":
        from pseudohealthy.io import raster

        try:
            shape = raster.idx_shape(path)
        except Fault as fault:
            return [], [Skipped(path, fault.message)]
        if len(shape) != 3:
            return [], [Skipped(path, "an idx file of labels, not of images")]
        stem = safe(re.sub(r"\.gz$", "", path.name).replace(".", "-"))
        items = range(shape[0]) if item is None else [item]
        return [Source(f"{stem}-{k:05d}", "idx", (path,), item=k) for k in items], []
    if not kind:
        return [], [Skipped(path, "not an image this program reads")]
    name = path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
    return [Source(safe(name if item is None else f"{name}-{item}"), kind, (path,), item=item)], []


def _dicom(paths: list[Path], root: Path) -> tuple[list[Source], list[Skipped]]:
    from pseudohealthy.io.series import group, looks_dicom, series_digest

    real = [p for p in paths if looks_dicom(p)]
    known = set(real)
    skipped = [Skipped(p, "not a DICOM file (no DICM magic)") for p in paths if p not in known]
    groups, left = group(real)
    skipped += [Skipped(path, reason) for path, reason in left]
    sharing = Counter(g.paths[0].parent for g in groups)
    sources = []
    for g in groups:
        folder = g.paths[0].parent
        if root.is_file() or (len(g.paths) == 1 and sharing[folder] > 1):
            name = g.paths[0].stem if g.paths[0].suffix.lower() in DICOM else g.paths[0].name
        else:
            name = folder.resolve().name
            if len({other.series for other in groups if other.paths[0].parent == folder}) > 1:
                name += f"-{series_digest(g.series)}"
        if g.part and sharing[folder] > 1:
            name += f"-{g.part}"
        sources.append(Source(safe(name), "dicom", tuple(g.paths), "; ".join(g.notes), g.item))
    return sorted(sources, key=lambda s: natural(str(s.paths[0]))), skipped


def safe(name: str) -> str:
    """A case id that is a harmless file name on every system: word characters, dots and dashes, at most 100 bytes."""
    clean = re.sub(r"[^\w.\-]+", "_", unicodedata.normalize("NFC", name)).strip("._-") or "case"
    if len(clean.encode()) > 100:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        clean = clean.encode()[:90].decode(errors="ignore") + "-" + digest
    return clean


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sorting key under which slice10 comes after slice9."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text)]


def _distinct(sources: list[Source]) -> list[Source]:
    """Case ids made unique with the names of the folders above, nearest first."""
    ids = [s.case_id for s in sources]
    for depth in range(1, 5):
        clashing = _clashes(ids)
        if not clashing:
            break
        for k in clashing:
            first = sources[k].paths[0]
            above = (
                first.parents[1] if sources[k].kind == "dicom" and len(sources[k].paths) > 1 else first.parent
            ).parts
            ids[k] = safe("-".join((*(p for p in above[-depth:] if p != os.sep), sources[k].case_id)))
    clashing = _clashes(ids)
    stems = [s.paths[0].name.removesuffix(".gz").rsplit(".", 1)[0] for s in sources]
    if len({stems[k] for k in clashing}) == len(clashing):  # names that differ only in what a case id may not hold
        for k in clashing:
            ids[k] += "-" + hashlib.sha256(stems[k].encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if clashing := _clashes(ids):
        names = ", ".join(sorted({str(sources[k].paths[0]) for k in clashing})[:4])
        raise Fault(
            "ID_COLLISION", f"'{ids[clashing[0]]}' would name several cases ({names})", "rename one", exit=USAGE
        )
    return [replace(source, case_id=case_id) for source, case_id in zip(sources, ids, strict=True)]


def _clashes(ids: list[str]) -> list[int]:
    count: dict[str, int] = {}
    for name in ids:
        count[name.casefold()] = count.get(name.casefold(), 0) + 1
    return [k for k, name in enumerate(ids) if count[name.casefold()] > 1]
