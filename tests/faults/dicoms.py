"""D: DICOM series with gaps, copies, strays and other encodings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from faults.material import cut, slices
from faults.niftis import alone
from faults.scoring import Trial, fails, row, works
from faults.stage import Stage, only, rows_of
from pseudohealthy.anomalies.phantoms import Stored


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
