"""GRAZPEDWRI-DX (Nagy et al. 2022, Scientific Data 9:222): 20,327 wrist radiographs of 6,091
children, boxes, 16 bits.

Layout: ``dataset.csv``; images in ``images_part1/`` ... (or ``images/``, or beside the table) as
``0001_1297860395_01_WRI-L1_M014.png``; boxes in ``folder_structure/yolov5/labels/*.txt``
(``meta.yaml`` names the classes) or, without these,
``folder_structure/supervisely/wrist/ann/*.json``; both also directly below SOURCE.

Labels: anomalous is an image with a box of a pathology or ``fracture_visible``. ``text`` (the L/R
letter, on nearly every image) and ``axis`` (a line) are no pathology. Healthy has neither, and none
of cast, metal, osteopenia and diagnosis_uncertain. The rest (such a flag, or an image whose boxes
are not there) is left out and counted; with ``flags`` cast, metal and osteopenia count as
anomalies, as in THOR's separate test sets (column ``findings`` tells). There are boxes, no masks:
column ``boxes`` holds ``x0 y0 x1 y1 class;...`` in pixels of the stored image, x1 and y1 exclusive.
Boxes enclose more than the lesion: overlap with them is no Dice against a mask.

Counts: the 20,327 images belong to 10,643 studies (a patient's visits, column ``study_number``) of
6,091 patients. THOR (Bercea et al. 2024) speaks of 10,643 X-rays: it counts studies. ``prepare``
prints all three of the table it read.

Splits by patient: patients whose every image is healthy are divided, all others are test; ``weak``
divides all. Traps: flags are 1 or blank, and blank means 0; 16-bit PNG, which an 8-bit conversion
saturates; several projections and follow-ups per child, so a split by image leaks.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets.chexpert import divide, read_table, require_files, say_counts
from pseudohealthy.errors import Fault
from pseudohealthy.progress import say

CLASSES = (
    "boneanomaly",
    "bonelesion",
    "foreignbody",
    "fracture",
    "metal",
    "periostealreaction",
    "pronatorsign",
    "softtissue",
    "text",
)
HARMLESS = {"text", "axis"}
FLAGS = ("cast", "metal", "osteopenia")
Box = tuple[int, int, int, int, str]


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    flags: bool = False,
    weak: bool = False,
    partial: bool = False,
) -> Manifest:
    """One case per radiograph; ``partial`` takes the listed images that are there.

    Raises Fault LAYOUT, MISSING (exit 3).
    """
    source = Path(source)
    if not (source / "dataset.csv").is_file():
        raise Fault("LAYOUT", "no dataset.csv in the folder", "give the folder of GRAZPEDWRI-DX")
    columns = (
        "filestem",
        "patient_id",
        "projection",
        "fracture_visible",
        "diagnosis_uncertain",
        *FLAGS,
    )
    images = {
        path.stem: path
        for places in ("*.png", "images/*.png", "images_part*/*.png")
        for path in source.glob(places)
    }
    boxes_of = annotation_reader(source)
    listed, left = [], Counter[str]()
    for number, row in read_table(source / "dataset.csv", columns):
        stem, first = row["filestem"], row["filestem"].split("_")[0]
        if not first.isdigit() or row["patient_id"].removesuffix(".0").lstrip("0") != first.lstrip(
            "0"
        ):
            raise Fault(
                "LAYOUT",
                f"dataset.csv row {number}: filestem and patient_id disagree",
                "fetch the table again",
            )
        path = images.get(stem)
        listed.append(
            Case(
                stem,
                first,
                "",
                None,
                path.relative_to(source).as_posix() if path else f"{stem}.png",
                root=source,
                extra=row,
            )
        )
    say(counted(listed))
    cases = []
    for case in require_files("grazpedwri", listed, partial):
        known = case.extra
        raised = [
            name for name in (*FLAGS, "diagnosis_uncertain") if _on(case.case_id, known[name])
        ]
        boxes = boxes_of(case)
        found = [box for box in boxes or () if box[4] not in HARMLESS]
        names = {box[4] for box in found} | (
            {"fracture"} if _on(case.case_id, known["fracture_visible"]) else set()
        )
        names |= {name for name in raised if flags and name in FLAGS}
        if not names and (raised or boxes is None):
            left[" + ".join(raised) if raised else "without annotation"] += 1
            continue
        extra = {
            "projection": known["projection"],
            "findings": " ".join(sorted(names)),
            "boxes": ";".join(" ".join(map(str, box)) for box in found),
        }
        label = ANOMALOUS if names else HEALTHY
        cases.append(
            Case(case.case_id, case.patient_id, "", label, case.image, root=source, extra=extra)
        )
    manifest = divide(cases, out, seed=seed, fractions=fractions, weak=weak)
    say_counts("grazpedwri", manifest, left)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def counted(listed: Sequence[Case]) -> str:
    """Images, studies and patients of the table in one line, beside the published numbers."""
    studies = {
        (case.patient_id, case.extra.get("study_number") or "".join(case.case_id.split("_")[2:3]))
        for case in listed
    }
    patients = {case.patient_id for case in listed}
    return (
        f"grazpedwri: the table lists {many(len(listed), 'image')} of {len(studies):,} studies of"
        f" {many(len(patients), 'patient')} (published: 20,327, 10,643 and 6,091; the 10,643 X-rays"
        " of THOR's paper are the studies)"
    )


def _on(case_id: str, cell: str) -> bool:
    if cell not in ("", "0", "0.0", "1", "1.0"):
        raise Fault(
            "LAYOUT",
            "a flag of dataset.csv that is neither 1 nor blank",
            "fetch the table again",
            case=case_id,
        )
    return cell.startswith("1")


def annotation_reader(source: Path) -> Callable[[Case], list[Box] | None]:
    """A function from a case, whose id is the image's stem, to its boxes, or None where it has no
    annotation file.

    Raises Fault LAYOUT (exit 3) for a folder without annotations.
    """
    for base in (source / "folder_structure", source):
        if (yolo := base / "yolov5" / "labels").is_dir():
            names = _classes(yolo.parent / "meta.yaml")
            return lambda case: _yolo(case, yolo / f"{case.case_id}.txt", names)
        if (marked := base / "supervisely" / "wrist" / "ann").is_dir():
            return lambda case: _supervisely(case, marked)
    raise Fault(
        "LAYOUT",
        f"no yolov5/labels and no supervisely/wrist/ann in {source.name or source}",
        "give the folder of GRAZPEDWRI-DX, with folder_structure.zip unpacked beside dataset.csv",
    )


def _classes(meta: Path) -> tuple[str, ...]:
    """The class names of meta.yaml, ``names: ['boneanomaly', ...]`` or one ``- name`` a line, else
    the published ones."""
    text = meta.read_text(encoding="utf-8") if meta.is_file() else ""
    after = text.partition("names:")[2]
    listed = re.match(r"\s*\[(.*?)\]", after, re.DOTALL)
    items = listed[1].split(",") if listed else re.findall(r"^\s*-\s*(.+)$", after, re.MULTILINE)
    return tuple(item.strip(" '\"\n") for item in items) or CLASSES


def _yolo(case: Case, path: Path, names: tuple[str, ...]) -> list[Box] | None:
    """Lines ``class cx cy w h``, in shares of the image."""
    if not path.is_file():
        return None
    width, height = _size(case)
    boxes = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            kind, *place = line.split()
            cx, cy, w, h = map(float, place)
            name = names[int(kind)]
        except (ValueError, IndexError):
            raise Fault(
                "LAYOUT", f"{path.name}: a line that is not class cx cy w h", "fetch it again"
            ) from None
        corners = (
            (cx - w / 2) * width,
            (cy - h / 2) * height,
            (cx + w / 2) * width,
            (cy + h / 2) * height,
        )
        boxes.append(_box(case, corners, name, width, height))
    return boxes


def _supervisely(case: Case, folder: Path) -> list[Box] | None:
    paths = [
        path
        for path in (folder / f"{case.case_id}.json", folder / f"{case.case_id}.png.json")
        if path.is_file()
    ]
    if not paths:
        return None
    width, height = _size(case)
    boxes = []
    try:
        for thing in json.loads(paths[0].read_text(encoding="utf-8"))["objects"]:
            if thing["classTitle"] not in (*CLASSES, "axis"):
                raise ValueError(thing["classTitle"])
            xs, ys = zip(*thing["points"]["exterior"], strict=True)
            # Supervisely names the last pixel itself.
            corners = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
            boxes.append(_box(case, corners, thing["classTitle"], width, height))
    except (ValueError, KeyError, TypeError) as error:
        raise Fault(
            "LAYOUT", f"{paths[0].name} is not an annotation ({error})", "fetch it again"
        ) from None
    return boxes


def _box(case: Case, corners: tuple[float, ...], name: str, width: int, height: int) -> Box:
    """Whole pixels inside the image; a box rounded beyond the edge is cut, one that lies outside is
    refused."""
    x0, y0, x1, y1 = (round(value) for value in corners)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if name not in HARMLESS and (x1 <= x0 or y1 <= y0):
        raise Fault(
            "LAYOUT", "a box outside its image", "fetch the annotations again", case=case.case_id
        )
    return x0, y0, x1, y1, name


def _size(case: Case) -> tuple[int, int]:
    """Width and height as the PNG's header says."""
    with (case.root / case.image).open("rb") as stream:
        head = stream.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24:
        raise Fault("NOT_IMAGE", "this is not a PNG", "fetch it again", case=case.case_id)
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
