"""D: what lies among DICOM slices, where their names lead, and archives of them."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom

from faults.dicoms import change, put, series_of
from faults.scoring import Trial, fails, row, works
from faults.stage import Stage, only, rows_of


@row("D14", "readme.txt, .DS_Store and garbage.dcm beside the slices", "ignored and counted")
def d14(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    for name in ("readme.txt", ".DS_Store", "garbage.dcm"):
        (folder / name).write_bytes(b"garbage " * 40)
    right = only(stage.detect(series_of(stage)))
    done = stage.detect(folder)
    left = [r for r in rows_of(done).values() if r["status"] == "skipped"]
    same = only(done).get("score") == right["score"]
    beside = "hidden or system files (1), tables, texts" in done.err
    yield works(
        done,
        **{
            "same score": same,
            "the stray is listed": len(left) == 1,
            "the others are counted": beside,
        },
    )


@row("D15", "folder without DICOM", "error NO_INPUT, exit 3")
def d15(stage: Stage) -> Iterator[Trial]:
    (stage.folder / "s").mkdir()
    (stage.folder / "s" / "readme.txt").write_text("nothing")
    out = stage.out()
    yield fails(
        stage.detect(stage.folder / "s", out=out),
        "NO_INPUT",
        **{"nothing written": not out.exists()},
    )


@row(
    "D18",
    "secondary capture, SR, RTSTRUCT, PDF and RGB in the study",
    "skipped with reason, listed",
)
def d18(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    kinds = {
        "sc": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "sr": {"Modality": "SR"},
        "rt": {"Modality": "RTSTRUCT"},
        "pdf": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1", "Modality": "OT"},
        "rgb": {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
    }
    for name, fields in kinds.items():
        copied = Path(shutil.copy(sorted(folder.iterdir())[0], folder / f"x-{name}.dcm"))
        change(copied, put(SeriesInstanceUID=f"1.9.{len(name)}", **fields))
    done = stage.detect(folder)
    right = only(stage.detect(series_of(stage)))["score"]
    reasons = [r["warnings"] for r in rows_of(done).values() if r["status"] == "skipped"]
    yield works(
        done,
        **{
            "same score": only(done).get("score") == right,
            "five reasons": len(reasons) == 5 and all(reasons),
        },
    )


@row(
    "D20",
    "UID of ../../../evil, PatientName and description of <script>",
    "harmless names, nothing outside OUT, escaped",
)
def d20(stage: Stage) -> Iterator[Trial]:
    evil = put(
        SeriesInstanceUID="../../../evil",
        SOPInstanceUID="../../evil",
        PatientName="<script>alert(1)</script>",
        SeriesDescription="<img src=x onerror=alert(1)>",
        PatientID="../../../evil",
    )
    folder, out = series_of(stage, evil), stage.out()
    before = set(stage.root.rglob("*evil*"))
    done = stage.detect(folder, out=out, kinds=("volumes", "panel", "json"))
    page = (out / "report.html").read_text() if (out / "report.html").is_file() else ""
    yield Trial(
        done,
        (0,),
        facts={"a result": bool(only(done))},
        harms={
            "a file outside OUT": set(stage.root.rglob("*evil*")) != before,
            "markup of the file in the report": "<script>alert" in page or "<img src=x" in page,
            "the name in outputs": "alert(1)" in page + done.text,
        },
    )


@row("D21", "DICOMDIR whose references lead outside", "ignored")
def d21(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    outside = stage.folder / "outside.dcm"
    shutil.copy(sorted(folder.iterdir())[0], outside)
    index = folder / "DICOMDIR"
    shutil.copy(outside, index)

    def directory(data: Any) -> None:
        for key in list(data.keys()):
            del data[key]
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.1.3.10"
        record = pydicom.Dataset()
        record.ReferencedFileID = ["..", "outside.dcm"]
        data.DirectoryRecordSequence = [record]

    change(index, directory)
    done = stage.detect(folder)
    right = only(stage.detect(series_of(stage)))["score"]
    yield works(
        done,
        **{
            "only the series": only(done).get("score") == right,
            "the index is counted": "DICOMDIR indices" in done.err,
        },
    )


def bad_zips(folder: Path) -> Iterator[tuple[str, Path]]:
    """Archives that no one sends by accident."""

    def archive(
        name: str, members: dict[str, bytes], edit: Callable[[zipfile.ZipInfo], None] | None = None
    ) -> Path:
        path = folder / f"{name}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for member, data in members.items():
                info = zipfile.ZipInfo(member)
                info.compress_type = zipfile.ZIP_DEFLATED
                if edit:
                    edit(info)
                file.writestr(info, data)
        return path

    def link(info: zipfile.ZipInfo) -> None:
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16

    yield "bomb", archive("bomb", {"a.dcm": bytes(3 * 10**8)})
    yield "climbs", archive("climbs", {"../evil.dcm": b"x"})
    yield "absolute", archive("absolute", {"/tmp/evil.dcm": b"x"})
    yield "symlink", archive("symlink", {"a.dcm": b"/etc/passwd"}, link)
    yield "twice", archive("twice", {"a.dcm": b"x", "A.dcm": b"y"})
    secret = archive("encrypted", {"a.dcm": b"x" * 99})
    raw = bytearray(secret.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(mark) + place] |= 1
    secret.write_bytes(raw)
    yield "encrypted", secret
    # A million members cost 100 MB to write; a directory of 100,001 empty ones crosses the same
    # limit.
    many, directory = io.BytesIO(), bytearray()
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, 1, 0) + b"a"
    many.write(local)
    for number in range(100_001):
        name = b"%x" % number
        directory += (
            struct.pack(
                "<4s6H3L5H2L",
                b"PK\x01\x02",
                20,
                20,
                0,
                0,
                0,
                0,
                0,
                0,
                0,
                len(name),
                0,
                0,
                0,
                0,
                0,
                0,
            )
            + name
        )
    size, start = len(directory), len(local)
    end64 = struct.pack(
        "<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 100_001, 100_001, size, start
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start + size, 1)
    many.write(
        bytes(directory)
        + end64
        + locator
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, size, start, 0)
    )
    (folder / "many.zip").write_bytes(many.getvalue())
    yield "many", folder / "many.zip"


@row(
    "D22",
    "zip: bomb, ../, absolute, link, name twice, encrypted, 100,001 members",
    "exit 8, nothing outside, no temporary folder left",
    quick=False,
    adapted=(
        "100,001 members (the limit is 100,000) instead of a million, which only take longer to"
        " write"
    ),
)
def d22(stage: Stage) -> Iterator[Trial]:
    import tempfile

    there = Path(tempfile.gettempdir())
    for name, path in bad_zips(stage.folder):
        before = set(there.glob("pseudohealthy-*"))
        done = stage.detect(path)
        trial = fails(done, "ARCHIVE", exit=8)
        trial.exact = {"temporary folder removed": set(there.glob("pseudohealthy-*")) == before}
        trial.harms = {
            f"{name} wrote outside": (
                any(stage.root.rglob("evil.dcm")) or (there / "evil.dcm").exists()
            )
        }
        yield trial
