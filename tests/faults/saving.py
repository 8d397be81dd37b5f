"""S: results that cannot be written as asked, and detections that are stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pydicom

from faults.dicoms import put, series_of
from faults.material import png
from faults.runtime import after
from faults.scoring import Trial, row, works
from faults.stage import Stage, only, rows_of
from multiframe import enhanced
from pseudohealthy.anomalies.phantoms import head

DICOM = ("dicom-seg", "dicom-map", "dicom-sc", "json")


def cases(stage: Stage, count: int) -> Path:
    for number in range(count):
        png(stage.folder / "in" / f"{number}.png", number)
    return stage.folder / "in"


def whole(out: Path) -> bool:
    """No half file, no temporary folder."""
    return not list(out.rglob(".tmp*")) and all(
        p.stat().st_size for p in out.rglob("*") if p.is_file()
    )


@row(
    "S1",
    "three of six cases cannot be saved (an exception while writing)",
    "a failed row each, nothing of them left; the rest written, exit 4; --resume goes on",
)
def s1(stage: Stage) -> Iterator[Trial]:
    from pseudohealthy.report import case_page

    draw, out = case_page.case_page, stage.out()

    def breaks(finding, *given, **more):  # type: ignore[no-untyped-def]
        if finding.case_id in "024":
            raise AttributeError("'Dataset' object has no attribute 'PixelMeasuresSequence'")
        return draw(finding, *given, **more)

    inputs, kinds = cases(stage, 6), ("volumes", "panel", "html", "json")
    with mock.patch.object(case_page, "case_page", breaks):
        done = stage.detect(inputs, run=stage.tiny, out=out, kinds=kinds)
    status = {name: found["status"] for name, found in rows_of(done).items()}
    folders = {path.name for path in out.iterdir() if path.is_dir()}
    yield Trial(
        done,
        (4,),
        ("case=0", "case=2", "case=4"),
        code="INTERNAL",
        exact={"whole": whole(out)},
        facts={
            "three failed": [n for n in status if status[n] == "failed"] == ["0", "2", "4"],
            "three written": folders == {"1", "3", "5"},
        },
    )
    done = stage.detect(inputs, run=stage.tiny, out=out, kinds=kinds, options=("--resume",))
    yield works(done, "3 of 6 cases are finished", **{"all written": len(rows_of(done)) == 6})


@row(
    "S2",
    "headers with wrong character sets, commas, missing identifiers, old dates, for DICOM output",
    "written with the name kept, what was put right is a warning",
)
def s2(stage: Stage) -> Iterator[Trial]:
    for edit, name, said in (
        (put(SpecificCharacterSet="ISO_IR 192", PatientName="Wang=王"), "Wang=王", ""),
        (put(SpecificCharacterSet=["", "ISO 2022 IR 149"]), "PHANTOM^HEAD", ""),
        (put(SpecificCharacterSet="JUNK"), "PHANTOM^HEAD", "character set"),
        (put(StudyDate="2020.01.01", StudyTime="12:30"), "PHANTOM^HEAD", "SOURCE: StudyDate"),
        (put(SOPInstanceUID=None), "PHANTOM^HEAD", "SOPInstanceUID is missing"),
        (put(StudyInstanceUID=None), "PHANTOM^HEAD", "StudyInstanceUID is missing"),
        (put(PatientName=None, PatientID=None), "", ""),
    ):
        with pydicom.config.disable_value_validation():
            folder, out = series_of(stage, edit), stage.out()
        done = stage.detect(folder, out=out, kinds=DICOM)
        names = [str(pydicom.dcmread(path).get("PatientName")) for path in out.rglob("*.dcm")]
        yield works(done, said, **{"three objects with the name": names == [name] * 3})


@row(
    "S3",
    "kinds that a case cannot have (DICOM and NIfTI of pictures among other kinds; of nothing"
    " else)",
    "left out with one line, the rest written; refused where nothing is left",
)
def s3(stage: Stage) -> Iterator[Trial]:
    inputs, out = cases(stage, 3), stage.out()
    done = stage.detect(inputs, run=stage.tiny, out=out, kinds=("dicom-seg", "nifti", "json"))
    status = {found["status"] for found in rows_of(done).values()}
    yield Trial(
        done,
        (0,),
        ("left out: dicom-seg of 3 cases", "left out: nifti of 3 cases"),
        facts={"all ok": status == {"ok"}, "written": len(list(out.glob("*/case.json"))) == 3},
    )
    out = stage.out()
    done = stage.detect(inputs, run=stage.tiny, out=out, kinds=("dicom-seg", "nifti"))
    yield Trial(done, (2,), code="KIND", facts={"nothing written": not out.exists()})


@row(
    "S4",
    "enhanced multi-frame image with measures and orientation for each frame, frames in any order",
    "segmentation and map lie on the frames they name",
)
def s4(stage: Stage) -> Iterator[Trial]:
    values = head(np.random.default_rng(0), shape=(6, 24, 24), lesion=0.3)[0] + 1024
    for number, order in enumerate((list(range(6)), [3, 1, 4, 0, 5, 2], [4, 2, 3])):
        path, out = enhanced(stage.folder / str(number), values, order=order), stage.out()
        done = stage.detect(path, out=out, kinds=("dicom-seg", "dicom-map", "json"))
        source, right = pydicom.dcmread(path), []
        for made in map(pydicom.dcmread, out.rglob("*.dcm")):
            for group in made.PerFrameFunctionalGroupsSequence:
                named = (
                    group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
                )
                there = source.PerFrameFunctionalGroupsSequence[
                    int(named) - 1
                ].PlanePositionSequence[0]
                here = group.PlanePositionSequence[0].ImagePositionPatient
                right.append(np.allclose(here, there.ImagePositionPatient, atol=1e-4))
        yield works(
            done, **{"in place": len(right) > len(order) and all(right), "a row": bool(only(done))}
        )


@row(
    "S5",
    "SIGINT and SIGTERM in detect, and twice",
    "the rows so far, one line with --resume, exit 130",
    quick=False,
)
def s5(stage: Stage) -> Iterator[Trial]:
    inputs = cases(stage, 150)
    for how, again in ((signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGINT, True)):
        out = stage.out()

        def act(child, out=out, how=how, again=again):  # type: ignore[no-untyped-def]
            after(out / "0" / "case.json", 0.1, how)(child)
            if again:
                child.send_signal(how)

        words = (
            "detect",
            stage.tiny,
            inputs,
            "--out",
            out,
            "--device",
            "cpu",
            "--kinds",
            "json",
            "--batch",
            1,
        )
        done = stage.process(*words, act=act)
        table = out / "findings.csv"
        rows = len(table.read_text().splitlines()) - 1 if table.is_file() else -1
        cases_done = len(list(out.glob("*/case.json")))
        yield Trial(
            done,
            (130,),
            ("--resume goes on",),
            code="INTERRUPTED",
            exact={"whole": out.is_dir() and whole(out)},
            facts={"a row for each finished case": rows == cases_done < 150},
        )
