"""What was found and is not loaded yet: scans, and files that are none."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.formats import together


@dataclass(frozen=True)
class Origin:
    """Where a DICOM case named by its series came from: what the key of `detect` says.

    given: the input as it was given; root: the folder of it (of a zip, where it is unpacked);
    series: SeriesInstanceUID;
    part: of the series, where it holds several volumes.
    """

    given: str
    root: Path
    series: str
    part: str = ""


@dataclass(frozen=True)
class Source:
    """One scan found but not loaded: a file, the files of a DICOM series or of an image's channels,
    or item `item` of an idx or .npy file.

    origin: of a DICOM case that is named by its series; nothing said about it may then name its
    files.
    """

    case_id: str
    kind: str
    paths: tuple[Path, ...]
    note: str = ""  # becomes a warning of the scan
    item: int | None = None
    origin: Origin | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read for it."""
        return tuple(file for path in self.paths for file in together(path))


@dataclass(frozen=True)
class Skipped:
    """A file that is not read, and why. hidden: it lies among DICOM files, so its name may be a
    patient's."""

    path: Path
    reason: str
    hidden: bool = False


@dataclass
class Survey:
    """All that lies under some inputs. beside: how many files of each kind go with images without
    being any."""

    sources: list[Source] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    beside: Counter[str] = field(default_factory=Counter)

    def add(self, other: Survey) -> None:
        self.sources += other.sources
        self.skipped += other.skipped
        self.beside += other.beside

    def left_out(self) -> list[tuple[str, str]]:
        """(name, reason) of what is not read: by file, and among DICOM files by reason alone."""
        rows = [(item.path.name, item.reason) for item in self.skipped if not item.hidden]
        hidden = Counter(item.reason for item in self.skipped if item.hidden)
        files = [f"{many(count, 'file')}: {reason}" for reason, count in hidden.items()]
        return rows + [(f"left-out-{number}", text) for number, text in enumerate(files, 1)]

    def aside(self) -> str:
        """What goes with the images, counted in a few words; empty where there is nothing."""
        return ", ".join(f"{what} ({count})" for what, count in self.beside.most_common())
