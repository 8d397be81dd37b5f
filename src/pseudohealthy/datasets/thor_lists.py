"""The published lists of THOR (Bercea et al. 2024, MICCAI): ``thor-brain`` and ``thor-wrist``, read
as they are.

Layout: CSVs of one column (``filename`` or ``filenames``), a path a row as
``./data/CAPS_IXI/png/sub-IXI188_....png``; ``data`` is looked for in SOURCE and the three folders
above it. thor-brain: ``ixi-t1_atlas_train_2D`` and ``ixi-t1_{val,test}_2D`` are healthy,
``atlas_train_png`` is the evaluation list, whose labels only its masks tell:
``atlas_train_mask_png`` (not published, as its masks) names one for each row, and without it
protocol ``thor`` has nothing to measure. thor-wrist: ``train_normal``, ``test_normal``; every other
list is a finding (boneanomaly, metal, softtissue, ...), with ``<finding>_ann.csv`` naming a mask of
one box for each row. Passed over are text and axis, which are none, the ``_neg`` lists (masks of
what lies outside boxes) and the ``_fast`` ones (parts of others). Boxes of an image are united
below ``out/united``.

Boxes: column ``boxes`` holds ``x0 y0 x1 y1 class;...`` in pixels of the image, as protocols
``thor-wrist`` and ``boxes`` read them; the class is the name of the list. They are read from those
masks. The masks are not published, whoever uses the lists draws them: with ``annotations`` = the
folder of GRAZPEDWRI-DX the boxes of its own annotation files are taken instead, of all classes on
each image, and no mask is needed. An image of a finding without either is not measured, and the
number of such images is printed.

What the lists hold. Brain: the 218 ATLAS slices of the training list are all among the 655 to be
evaluated. Wrist: train_normal (1600 images, 1447 patients) shares 13 patients with test_normal (16
of its 1039 images) and 23 images with boneanomaly, 6 with softtissue, so it is not free of
findings; test_normal shares 20 images with boneanomaly and 4 with softtissue; boneanomaly has 180
rows of 122 images, one a box. Every finding is printed and kept in ``published_leaks.txt``; images
are not needed for that. By default the manifest is clean: an image stays once, with its findings,
and a subject only in test, else val. ``clean=False`` keeps every row.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets import grazpedwri
from pseudohealthy.datasets.behrendt import overlap, repeats, report, written
from pseudohealthy.errors import Fault
from pseudohealthy.progress import say

EVALUATED = "atlas_train_png"  # of thor-brain; "train" there is ATLAS' own word
BoxesOf = Callable[[Case], list[grazpedwri.Box] | None]
MASKS = "atlas_train_mask_png"
NO_FINDING = ("text", "axis")  # the letter L or R, the forearm's axis: on nearly every radiograph


def prepare(
    source: Path, out: Path, *, seed: int = 0, clean: bool = True, annotations: str = ""
) -> Manifest:
    """The lists of one of the two folders as a manifest; the seed changes nothing.

    annotations: folder of GRAZPEDWRI-DX to take the boxes of thor-wrist from, instead of the masks
    of its lists.

    Raises Fault LAYOUT (exit 3) without a training list, or for a mask list that does not fit its
    images; GRID_MISMATCH for a mask whose size is not its image's.
    """
    source, out = Path(source), Path(out)
    paths = {path.stem: path for path in sorted(source.glob("*.csv"))}
    lists = {name: _rows(path) for name, path in paths.items() if not _passed_over(name)}
    if not any(_split(name) == "train" for name in lists):
        raise Fault(
            "LAYOUT", "no training list in the folder", "give the folder thor-brain or thor-wrist"
        )
    boxes = {name: lists.pop(f"{name}_ann") for name in list(lists) if f"{name}_ann" in lists}
    for name, masks in boxes.items():
        fits = [
            PurePosixPath(mask).stem.startswith(_stem(image))
            for image, mask in zip(lists[name], masks, strict=False)
        ]
        if len(masks) != len(lists[name]) or not all(fits):
            raise Fault(
                "LAYOUT",
                f"{name}_ann.csv does not name a mask for each row of {name}.csv",
                "fetch both again",
            )
    if MASKS in lists:
        boxes[EVALUATED] = lists.pop(MASKS)
        if len(boxes[EVALUATED]) != len(lists.get(EVALUATED, ())):
            raise Fault(
                "LAYOUT",
                f"{MASKS}.csv does not name a mask for each row of {EVALUATED}.csv",
                "fetch both again",
            )
    report(_findings(lists), out)
    unmasked = set(lists.get(EVALUATED, ())) & {
        row for name in lists if _label(name) == HEALTHY for row in lists[name]
    }
    cases = []
    for name, rows in lists.items():
        for number, row in enumerate(rows):
            # Training slices were chosen for having no lesion.
            label = HEALTHY if row in unmasked else _label(name)
            mask = boxes[name][number] if name in boxes else ""
            cases.append(
                Case(
                    _stem(row), _subject(row), _split(name), label, row, mask, extra={"list": name}
                )
            )
    roots = [source, *source.absolute().parents[:3]]
    manifest = written(_united(cases) if clean else cases, roots, out, clean=clean)
    if EVALUATED in lists:
        manifest = Manifest([_labelled(case) for case in manifest], out)
        if not any(case.mask for case in manifest):
            say(
                "thor-lists: no lesion mask, so protocol thor has nothing to measure: name one for"
                f" each row of {EVALUATED}.csv in {MASKS}.csv beside it"
            )
        manifest.save(out / "manifest.csv")
    if any(_label(name) == ANOMALOUS for name in lists):
        kinds = {mask: name for name, masks in boxes.items() for mask in masks}
        boxes_of = grazpedwri.annotation_reader(Path(annotations)) if annotations else None
        manifest = Manifest([_with_boxes(case, out, kinds, boxes_of) for case in manifest], out)
        _say_boxes(manifest)
        if boxes_of and (
            ill := sum(
                case.label == HEALTHY and bool(_annotated(case, boxes_of)) for case in manifest
            )
        ):
            say(
                f"thor-lists: {many(ill, 'image')} of the healthy lists"
                f" {'has' if ill == 1 else 'have'} an annotated finding"
            )
        manifest.save(out / "manifest.csv")
    return manifest


def _passed_over(name: str) -> bool:
    return name.removesuffix("_ann") in NO_FINDING or name.endswith(("_neg", "_fast"))


def _rows(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row]
    if not rows or rows[0][0].strip() not in ("filename", "filenames"):
        raise Fault(
            "LAYOUT", f"{path.name} does not begin with the column filename", "fetch it again"
        )
    return [PurePosixPath(row[0].strip()).as_posix() for row in rows[1:]]


def _split(name: str) -> str:
    if name == EVALUATED:
        return "test"
    return next((split for split in ("train", "val") if split in name.split("_")), "test")


def _label(name: str) -> int | None:
    """ATLAS' evaluation list holds slices with and without lesion."""
    if name == EVALUATED:
        return None
    return HEALTHY if name.endswith(("_2D", "_normal")) else ANOMALOUS


def _stem(row: str) -> str:
    return PurePosixPath(row).stem


def _subject(row: str) -> str:
    """``IXI188``, ``Atlas_train_0`` (a slice a subject), or the patient's number in front of a
    radiograph's name."""
    found = re.search(r"IXI\d{3}", row)
    return found[0] if found else _stem(row) if "Atlas" in row else _stem(row).split("_")[0]


def _findings(lists: dict[str, list[str]]) -> list[str]:
    subjects = {name: [_subject(row) for row in rows] for name, rows in lists.items()}
    found = [line for name in lists for line in repeats(name, [_stem(row) for row in lists[name]])]
    order = ("train", "val", "test")
    for one in lists:
        for other in lists:
            if order.index(_split(one)) < order.index(_split(other)):
                found += overlap(one, other, lists, subjects)
            ill = set(lists[one]) & set(lists[other])
            if _label(one) == HEALTHY and _label(other) == ANOMALOUS and ill:
                found.append(
                    f"{one}: {many(len(ill), 'scan')} of this healthy list"
                    f" {'is' if len(ill) == 1 else 'are'} listed in {other}, too."
                )
    return found


def _united(cases: list[Case]) -> list[Case]:
    """One case an image of the test lists of findings, with all its lists and masks ("a|b", still
    to be united)."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.label == ANOMALOUS:
            groups[case.image].append(case)
    found = [case for case in cases if case.label != ANOMALOUS]
    for group in groups.values():
        names = "|".join(dict.fromkeys(case.extra["list"] for case in group))
        masks = "|".join(dict.fromkeys(case.mask for case in group if case.mask))
        found.append(replace(group[0], mask=masks, extra={"list": names}))
    return found


def _labelled(case: Case) -> Case:
    """A slice of the evaluation list as its mask says, where that is there: lesion, or none and
    then no mask."""
    if not case.mask or not (case.root / case.mask).is_file():
        return replace(case, mask="") if (case.root / case.image).is_file() else case
    with Image.open(case.root / case.mask) as picture:
        ill = bool(np.asarray(picture.convert("L")).any())
    return replace(case, label=ANOMALOUS if ill else HEALTHY, mask=case.mask if ill else "")


def _with_boxes(case: Case, out: Path, kinds: Mapping[str, str], boxes_of: BoxesOf | None) -> Case:
    """The case with its boxes, and where it has several masks with their union as one picture,
    beside a link to its image. Blank boxes on an image of a finding: a mask or annotation is not
    there. kinds: class by mask."""
    masks = case.mask.split("|") if case.mask else []
    paths = [case.root / mask for mask in masks]
    found: list[tuple[int, int, int, int, str]] = []
    planes = []
    if all(path.is_file() for path in paths):
        for mask, path in zip(masks, paths, strict=True):
            with Image.open(path) as picture:
                planes.append(np.asarray(picture.convert("L")) > 0)
            found.append((*_corners(case, planes[-1], path.name), kinds[mask]))
        if planes:
            _sizes_agree(case, planes)
    elif len(masks) > 1 or (case.root / case.image).is_file():
        masks = []  # where the image is not there either, the row names files to come
    if boxes_of is not None and case.label == ANOMALOUS:
        found = _annotated(case, boxes_of)
    text = ";".join(" ".join(map(str, box)) for box in found)
    case = replace(case, mask="".join(masks[:1]), extra={**case.extra, "boxes": text})
    return _united_picture(case, out, np.any(planes, axis=0)) if len(masks) > 1 else case


def _annotated(case: Case, boxes_of: BoxesOf) -> list[grazpedwri.Box]:
    """The boxes of pathologies in the annotation of an image that is there."""
    boxes = boxes_of(case) if (case.root / case.image).is_file() else None
    return [box for box in boxes or () if box[4] not in grazpedwri.HARMLESS]


def _corners(case: Case, mask: np.ndarray, name: str) -> tuple[int, int, int, int]:
    """x0 y0 x1 y1 of what a mask (H, W) marks, x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise Fault(
            "LAYOUT",
            f"{name} marks nothing",
            "draw it again, or strike out its row",
            case=case.case_id,
        )
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _sizes_agree(case: Case, planes: list[np.ndarray]) -> None:
    with Image.open(case.root / case.image) as picture:
        sizes = {(picture.height, picture.width), *(plane.shape for plane in planes)}
    if len(sizes) > 1:
        raise Fault(
            "GRID_MISMATCH",
            "the masks of one image, or mask and image, differ in size",
            "draw the masks in pixels of the image",
            case=case.case_id,
        )


def _united_picture(case: Case, out: Path, mask: np.ndarray) -> Case:
    """The case with this mask (H, W), both below ``out/united``."""
    folder, image = out / "united", case.root / case.image
    folder.mkdir(parents=True, exist_ok=True)
    link, path = folder / image.name, folder / f"{image.stem}_mask.png"
    link.unlink(missing_ok=True)
    os.symlink(image.resolve(), link)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return replace(case, image=f"united/{link.name}", mask=f"united/{path.name}", root=out)


def _say_boxes(manifest: Manifest) -> None:
    """How many boxes of each class there are, and how many images of a finding have none."""
    kinds = Counter(
        box.split(maxsplit=4)[4]
        for case in manifest
        for box in case.extra["boxes"].split(";")
        if case.extra["boxes"]
    )
    without = sum(case.label == ANOMALOUS and not case.extra["boxes"] for case in manifest)
    counts = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common()) or "none"
    say(f"thor-lists: boxes: {counts}")
    if without:
        say(
            f"thor-lists: {many(without, 'image')} of a finding {'has' if without == 1 else 'have'}"
            " no box, so protocol thor-wrist does not measure them: draw the masks that the _ann"
            " lists name, or give --set annotations=FOLDER of GRAZPEDWRI-DX"
        )
