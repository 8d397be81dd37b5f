"""D: DICOM series that hold more volumes than one, and headers that leave out what reading
needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from faults.dicoms import change, put, series_of
from faults.material import slices
from faults.niftis import alone
from faults.scoring import Done, Trial, row, works
from faults.stage import Stage, only, rows_of

ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


def twice(
    stage: Stage, one: dict[str, object], other: dict[str, object], shift: float = 0.0
) -> Path:
    """Two series of 10 slices under one series UID, the second with brighter pixels and other
    attributes."""
    folder = series_of(stage, put(**one))
    for number, path in enumerate(slices(folder / "more", seed=0)):

        def edit(data: Any, number: int = number) -> None:
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.9.{number}"
            data.ImagePositionPatient = [
                *data.ImagePositionPatient[:2],
                data.ImagePositionPatient[2] + shift,
            ]
            data.PixelData = (data.pixel_array + 5).astype("<i2").tobytes()
            put(**other)(data)

        change(path, edit).rename(folder / f"b-{path.name}")
    return folder


def endings(done: Done) -> set[str]:
    """What follows the series in the names of the cases that were found."""
    return {name.split("-", 2)[2] if name.count("-") > 1 else "" for name in rows_of(done)}


def parted(stage: Stage, folder: Path, *names: str, word: str = "") -> Trial:
    """`inspect` finds whole volumes of these names, and FILE#k selects one."""
    done = stage.inspect(folder)
    shapes = [found.get("shape") for found in rows_of(done).values()]
    one = rows_of(stage.inspect(Path(f"{folder}#1")))
    facts = {
        f"named {', '.join(names)}": endings(done) == set(names),
        "10 slices each": shapes == [[1, 10, 24, 24]] * 2,
    }
    return works(done, *([word] if word else []), **facts, **{"#1 is one of them": len(one) == 1})


@row(
    "D23",
    "slices of two patients, studies or frames of reference under one series UID",
    "two cases, warn MIXED_SERIES; emptied attributes part nothing",
)
def d23(stage: Stage) -> Iterator[Trial]:
    for fields in (
        {"PatientID": "OTHER"},
        {"StudyInstanceUID": "1.2.77"},
        {"FrameOfReferenceUID": "1.2.78"},
    ):
        yield parted(stage, twice(stage, {}, fields, shift=20.0), "1", "2", word="MIXED_SERIES")
    folder = series_of(stage, put(PatientID="", FrameOfReferenceUID=None), which=slice(0, 5))
    yield works(
        stage.inspect(folder),
        **{"one volume": only(stage.inspect(folder)).get("shape") == [1, 10, 24, 24]},
    )


@row(
    "D24",
    "two kernels, echoes, b-values, phases or image types in one series",
    "volumes named by what differs",
)
def d24(stage: Stage) -> Iterator[Trial]:
    for one, other, names in (
        (
            {"ConvolutionKernel": "H30s"},
            {"ConvolutionKernel": "H70h"},
            ("kernel-H30s", "kernel-H70h"),
        ),
        ({"EchoTime": 10}, {"EchoTime": 20}, ("te10", "te20")),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0}, ("b0", "b1000")),
        (
            {"ImageType": ["ORIGINAL", "PRIMARY", "M"]},
            {"ImageType": ["ORIGINAL", "PRIMARY", "P"]},
            ("magnitude", "phase"),
        ),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, ("acq1", "acq2")),
    ):
        for shift in (0.0, 1.0):
            yield parted(stage, twice(stage, one, other, shift), *names)


def enhanced(stage: Stage, *, frame_of_reference: bool) -> Path:
    """A multi-frame image of ten slices, magnitude and phase of each, in no order."""
    folder = stage.folder / f"enhanced-{frame_of_reference}"
    parts = [pydicom.dcmread(path) for path in slices(folder)]
    whole = pydicom.dcmread(slices(folder)[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = ENHANCED
    whole.PerFrameFunctionalGroupsSequence = []
    planes = []
    for number in np.random.default_rng(0).permutation(20):
        part, item = parts[number // 2], Dataset()
        for sequence, keys in {
            "PlanePositionSequence": ["ImagePositionPatient"],
            "PlaneOrientationSequence": ["ImageOrientationPatient"],
            "PixelMeasuresSequence": ["PixelSpacing", "SliceThickness"],
            "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept"],
        }.items():
            inner = Dataset()
            for key in keys:
                setattr(inner, key, part[key].value)
            setattr(item, sequence, [inner])
        item.MRImageFrameTypeSequence = [Dataset()]
        item.MRImageFrameTypeSequence[0].ComplexImageComponent = ("MAGNITUDE", "PHASE")[number % 2]
        whole.PerFrameFunctionalGroupsSequence.append(item)
        planes.append(part.pixel_array)
    for path in folder.iterdir():
        path.unlink()
    put(
        NumberOfFrames=20,
        PixelData=np.stack(planes).astype("<i2").tobytes(),
        ImagePositionPatient=None,
    )(whole)
    if not frame_of_reference:
        del whole.FrameOfReferenceUID
    whole.save_as(folder / "all.dcm")
    return folder


@row(
    "D25",
    "enhanced multi-frame: several volumes in one file, measures per frame, no frame of reference",
    "volumes named by what differs",
)
def d25(stage: Stage) -> Iterator[Trial]:
    for known in (True, False):
        folder = enhanced(stage, frame_of_reference=known)
        yield parted(stage, folder, "magnitude", "phase")


@row("D26", "Siemens mosaics", "failed MOSAIC, with the tool that converts them")
def d26(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage, put(ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), depth=2)
    yield alone(stage, folder, "MOSAIC", "dcm2niix")


@row(
    "D27",
    "no BitsAllocated, PixelRepresentation, PhotometricInterpretation or transfer syntax; all"
    " positions alike",
    "failed BAD_HEADER with the attribute's name; NO_GEOMETRY",
)
def d27(stage: Stage) -> Iterator[Trial]:
    for key in ("BitsAllocated", "PixelRepresentation", "PhotometricInterpretation"):
        yield alone(stage, series_of(stage, put(**{key: None})), "BAD_HEADER", f"no {key}")
    folder = stage.folder / "syntax"
    for path in slices(folder):
        data = pydicom.dcmread(path)
        del data.file_meta.TransferSyntaxUID
        pydicom.dcmwrite(
            path, data, implicit_vr=False, little_endian=True, enforce_file_format=False
        )
    yield alone(stage, folder, "BAD_HEADER", "no TransferSyntaxUID")
    yield alone(
        stage, series_of(stage, put(ImagePositionPatient=[0, 0, 0])), "NO_GEOMETRY", "one position"
    )


@row(
    "D28",
    "a DICOM file without an image beside a series",
    "the series is read, the other skipped with its reason",
)
def d28(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    right = only(stage.detect(folder))["score"]
    whole = pydicom.dcmread(next(folder.iterdir()))
    for key in list(whole.keys()):
        del whole[key]
    whole.add_new(0x44530010, "LO", "SOMEBODY")
    whole.add_new(0x4453100C, "LO", "private data only")
    pydicom.dcmwrite(folder / "stray.dcm", whole)
    done = stage.detect(folder)
    left = [r["warnings"] for r in rows_of(done).values() if r["status"] == "skipped"]
    yield works(
        done,
        **{
            "same score": only(done).get("score") == right,
            "a reason": "no image" in " ".join(left),
        },
    )


@row("D29", "a series UID per slice", "single planes, with a hint that they look like one volume")
def d29(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage, depth=6)
    for number, path in enumerate(sorted(folder.iterdir())):
        change(path, put(SeriesInstanceUID=f"1.2.3.5.{number}"))
    done = stage.inspect(folder)
    yield works(
        done, "look like one volume with slices 2 mm apart", **{"six": len(rows_of(done)) == 6}
    )


@row("D30", "orientations that jitter in the third digit", "one volume")
def d30(stage: Stage) -> Iterator[Trial]:
    folder = series_of(stage)
    for path in sorted(folder.iterdir())[::2]:
        change(path, put(ImageOrientationPatient=[1, 0.002, 0, -0.002, 1, 0]))
    done = stage.inspect(folder)
    yield works(done, **{"10 slices": only(done).get("shape") == [1, 10, 24, 24]})


@row("D31", "decimal commas in spacing and slope", "read as points, warn DECIMAL_COMMA")
def d31(stage: Stage) -> Iterator[Trial]:
    from pydicom.dataelem import RawDataElement

    def comma(data: Any) -> None:
        for key, text in (("PixelSpacing", b"1,0\\1,0 "), ("RescaleSlope", b"1,0 ")):
            data[key] = RawDataElement(data[key].tag, "DS", len(text), text, 0, False, True)

    right = only(stage.detect(series_of(stage)))["score"]
    done = stage.detect(series_of(stage, comma))
    yield works(done, "DECIMAL_COMMA", **{"the same score": only(done).get("score") == right})
