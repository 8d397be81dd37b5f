"""D: DICOM series with gaps, copies, strays, damage and lies."""

from __future__ import annotations

import io
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from faults.material import cut, slices
from faults.niftis import alone
from faults.scoring import Done, Trial, fails, row, works
from faults.stage import Stage, only, rows_of


def change(path: Path, edit: Callable[[Any], object]) -> Path:
    """A DICOM file with its dataset edited in place."""
    data = pydicom.dcmread(path)
    edit(data)
    data.save_as(path)
    return path


def put(**fields: object) -> Callable[[Any], None]:
    """An edit that sets attributes; None deletes."""

    def edit(data: Any) -> None:
        for key, value in fields.items():
            if value is None:
                delattr(data, key)
            else:
                setattr(data, key, value)

    return edit


def series_of(
    stage: Stage,
    edit: Callable[[Any], object] | None = None,
    which: slice = slice(None),
    **how: Any,
) -> Path:
    """A series of 10 slices, some of them edited; its folder."""
    folder = stage.folder / f"series-{len(list(stage.folder.iterdir()))}"
    for path in slices(folder, **how)[which]:
        if edit:
            change(path, edit)
    return folder


def shape_and_score(done: Done) -> tuple[Any, Any]:
    return only(done).get("shape"), only(done).get("score")


def like(stage: Stage, folder: Path, *words: str, reference: Path | None = None) -> Trial:
    """`detect` gives what it gives for an undisturbed series of the same pixels."""
    right = only(stage.detect(reference or series_of(stage)))
    done = stage.detect(folder)
    return works(
        done, *words, **{"one case as undisturbed": only(done).get("score") == right["score"]}
    )


@row("D1", "slices in random file order, wrong InstanceNumber", "the right volume")
def d1(stage: Stage) -> Iterator[Trial]:
    yield like(
        stage, series_of(stage, put(InstanceNumber=7)), reference=series_of(stage, shuffle=False)
    )


@row("D2", "one slice missing", "failed GAP at z=8.0")
def d2(stage: Stage) -> Iterator[Trial]:
    slices(stage.folder / "s")[4].unlink()
    yield alone(stage, stage.folder / "s", "GAP", "z=8.0")


@row("D3", "a position twice: same pixels; other pixels", "used once, warn DUPLICATE; failed")
def d3(stage: Stage) -> Iterator[Trial]:
    for name, code in (("same", ""), ("other", "DUPLICATE_SLICE")):
        paths = slices(stage.folder / name)
        extra = paths[4].with_name("extra.dcm")
        shutil.copy(paths[4], extra)

        def edit(data: Any, code: str = code) -> None:
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6"
            if code:
                data.PixelData = bytes(len(data.PixelData))

        change(extra, edit)
        yield (
            alone(stage, extra.parent, code) if code else like(stage, extra.parent, "DUPLICATE n=1")
        )


@row(
    "D4", "slice distances vary", "failed IRREGULAR", adapted="--resample-irregular is not offered"
)
def d4(stage: Stage) -> Iterator[Trial]:
    for number, path in enumerate(slices(stage.folder / "s")):
        change(
            path,
            put(ImagePositionPatient=[-48, -48, [0, 2, 4, 5.2, 7, 9.9, 11, 14.5, 16, 18][number]]),
        )
    yield alone(stage, stage.folder / "s", "IRREGULAR")


@row("D5", "gantry tilt of 15 degrees", "kept as a sheared grid, warn TILT")
def d5(stage: Stage) -> Iterator[Trial]:
    import nibabel as nib

    out = stage.out()
    done = stage.detect(series_of(stage, tilt=15.0), out=out, kinds=("volumes", "json"))
    made = list(out.glob("*/anomaly_map.nii.gz"))
    angle = np.nan
    if made:
        axes = nib.load(made[0]).affine[:3, :3]  # type: ignore[attr-defined]
        axes = axes / np.linalg.norm(axes, axis=0)
        angle = float(np.degrees(np.arcsin(np.abs(axes.T @ axes - np.eye(3)).max())))
    yield works(done, "TILT", **{"sform sheared by 15 degrees": abs(angle - 15) < 0.1})


@row("D6", "a localizer of another orientation in the series", "grouped out, warned")
def d6(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    stray = shutil.copy(next(folder.iterdir()), folder / "stray.dcm")
    change(
        Path(stray), put(ImageOrientationPatient=[0, 1, 0, 0, 0, -1], SOPInstanceUID="1.2.3.4.5.7")
    )
    yield like(stage, folder, "STRAY_SLICES n=1")


@row("D7", "one slice of another matrix", "grouped out, warned")
def d7(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    stray = shutil.copy(next(folder.iterdir()), folder / "stray.dcm")

    def smaller(data: Any) -> None:
        data.PixelData = data.pixel_array[:12, :12].tobytes()
        data.Rows = data.Columns = 12
        data.SOPInstanceUID = "1.2.3.4.5.8"
        data.ImagePositionPatient = [-48, -48, 20]

    change(Path(stray), smaller)
    yield like(stage, folder, "STRAY_SLICES n=1")


@row("D8", "two series in one folder", "two cases")
def d8(stage: Stage) -> Iterator[Trial]:
    folder = stage.folder / "both"
    slices(folder, seed=0)
    for path in slices(stage.folder / "second", seed=1):
        shutil.copy(path, folder / f"b-{path.name}")
    done = stage.detect(folder)
    yield works(
        done,
        **{
            "two rows": (
                [r["status"] for r in rows_of(done).values()].count("failed") == 0
                and len(rows_of(done)) == 2
            )
        },
    )


@row("D9", "one truncated slice", "failed TRUNCATED_SLICE, by its number in the key")
def d9(stage: Stage) -> Iterator[Trial]:
    broken = cut(slices(stage.folder / "s")[3], 0.7)
    yield alone(
        stage,
        broken.parent,
        "TRUNCATED_SLICE",
        f"file {sorted(broken.parent.iterdir()).index(broken) + 1} ",
    )


@row("D10", "Rows and Columns of 60000 in one file", "failed BAD_DIMS, no big allocation")
def d10(stage: Stage) -> Iterator[Trial]:
    paths = slices(stage.folder / "s")
    change(paths[3], put(Rows=60000, Columns=60000))
    trial = alone(stage, paths[0].parent, "BAD_DIMS")
    trial.exact = {"under 200 MB": trial.done.grown < 200}
    yield trial


@row(
    "D11",
    "no PixelSpacing; no ImagePositionPatient",
    "failed NO_GEOMETRY; --assume-spacing allows it",
)
def d11(stage: Stage) -> Iterator[Trial]:
    bare = series_of(stage, put(PixelSpacing=None))
    yield alone(stage, bare, "NO_GEOMETRY")
    yield alone(stage, series_of(stage, put(ImagePositionPatient=None)), "NO_GEOMETRY")
    yield works(stage.detect(bare, options=("--assume-spacing", "1")), "ASSUMED")


@row("D12", "MONOCHROME1 CT", "HU unchanged")
def d12(stage: Stage) -> Iterator[Trial]:
    yield like(stage, series_of(stage, put(PhotometricInterpretation="MONOCHROME1")))


@row("D13", "a RescaleSlope per slice", "each applied")
def d13(stage: Stage) -> Iterator[Trial]:
    done = stage.inspect(series_of(stage, stored=Stored(slope=[0.5 + 0.25 * k for k in range(10)])))
    right = only(stage.inspect(series_of(stage)))["range"]
    yield works(
        done, **{"same HU": bool(np.allclose(only(done).get("range", [0, 0]), right, atol=3))}
    )


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
    "D16",
    "series of a single slice",
    "restored as one plane, warn THICKNESS where it is unknown",
    adapted="'failed NEEDS_3D' where a model needs volumes: every method here works plane by plane",
)
def d16(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage, put(SliceThickness=None), depth=1)
    done = stage.detect(folder)
    yield works(
        done,
        "THICKNESS",
        **{"one plane": only(stage.inspect(folder)).get("shape") == [1, 1, 24, 24]},
    )


@row("D17", "enhanced multi-frame with a slope per frame", "works", quick=False)
def d17(stage: Stage) -> Iterator[Trial]:
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    folder = series_of(stage, stored=Stored(slope=[0.5 + 0.25 * k for k in range(10)]))
    sets = [pydicom.dcmread(path) for path in folder.iterdir()]
    for data in sets:
        put(
            BurnedInAnnotation="NO",
            VolumetricProperties="VOLUME",
            AcquisitionDateTime="20200101",
            RescaleType="HU",
        )(data)
    (stage.folder / "multi").mkdir()
    LegacyConvertedEnhancedCTImage(sets, "1.2.9", 2, "1.2.9.1", 1).save_as(
        stage.folder / "multi" / "all.dcm"
    )
    done = stage.detect(stage.folder / "multi")
    right = only(stage.detect(folder))["score"]
    found = only(done).get("score")
    yield works(done, **{"as the series": found is not None and abs(found - right) < 1e-4})


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


@row("D19", "compressed without its decoder", "failed CODEC (pip install ...)", quick=False)
def d19(stage: Stage) -> Iterator[Trial]:
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless

    def compressed(data: Any) -> None:
        data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(64)])
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data["PixelData"].is_undefined_length = True

    folder = series_of(stage, compressed)
    absent = (
        "import sys\nfor name in ('gdcm', '_gdcm', 'pylibjpeg', 'openjpeg', 'libjpeg'):"
        " sys.modules[name] = None"
    )
    done = stage.process(
        "detect", stage.ct, folder, "--out", stage.out(), "--device", "cpu", prelude=absent
    )
    yield fails(done, "CODEC", "pip install")


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
