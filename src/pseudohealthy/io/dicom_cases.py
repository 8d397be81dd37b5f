"""Which cases DICOM files make, and what they are called."""

from __future__ import annotations

from pathlib import Path

from pseudohealthy.formats import FORMATS
from pseudohealthy.io import names
from pseudohealthy.io.bounded import blank
from pseudohealthy.io.dicom_head import looks_dicom
from pseudohealthy.io.dicom_series import Group, group
from pseudohealthy.io.names import natural, safe
from pseudohealthy.io.source import Origin, Skipped, Source, Survey


def survey(paths: list[Path], root: Path, named: str, given: str) -> Survey:
    """The cases of DICOM files, and what is left out; see `formats.Format`.

    Args:
        paths: The files.
        root: The folder or file that they are below.
        named: "series" or "path", see `io.survey`.
        given: What was given, for the key.
    """
    real = [p for p in paths if looks_dicom(p) or blank(p)]
    known = set(real)
    hidden = named == "series"
    skipped = [
        Skipped(p, "not a DICOM file (no DICM magic)", hidden) for p in paths if p not in known
    ]
    groups, left = group(real)
    skipped += [
        Skipped(path, names.unnamed(reason, [path]) if hidden else reason, hidden)
        for path, reason in left
    ]
    sources = []
    for g in groups:
        files = tuple(sorted(g.paths, key=lambda path: natural(str(path))))
        note = "; ".join(g.notes)
        if not hidden:
            sources.append(
                Source(safe(_named_by_path(g, groups, root)), "dicom", files, note, g.item)
            )
            continue
        origin = Origin(given, root if root.is_dir() else root.parent, g.series, g.part)
        # It is no file of this case, so it has no number in the key.
        for path, _ in left if note else []:
            note = note.replace(f" ({path.name})", "")
        note = names.unnamed(note, files)
        sources.append(
            Source(names.series_id(g.series, g.part), "dicom", files, note, g.item, origin)
        )
    return Survey(sorted(sources, key=lambda s: natural(str(s.paths[0]))), skipped)


def _named_by_path(group: Group, groups: list[Group], root: Path) -> str:
    """What a DICOM case is called by its path: its file, or its folder, with what tells it from
    others there."""
    first = group.paths[0]
    beside = [g for g in groups if g.paths[0].parent == group.paths[0].parent]
    if root.is_file() or (len(group.paths) == 1 and len(beside) > 1):
        name = first.stem if first.suffix.lower() in FORMATS["dicom"].suffixes else first.name
    else:
        name = first.parent.resolve().name
        if len({other.series for other in beside}) > 1:
            name += f"-{names.digest(group.series)}"
    return name + (f"-{group.part}" if group.part and len(beside) > 1 else "")
