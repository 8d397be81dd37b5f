"""CT haemorrhage slices with pixel masks, to test on only: excerpts of BHSD (Wu et al. 2023) and of
CT-ICH.

Layouts: ``bhsd_mini/{images,masks}/165017.png``: volume (3 digits) and slice; the mask's colour is
the subtype: red epidural, blue intraparenchymal, yellow intraventricular, cyan subarachnoid, green
subdural, black none. ``ctich_mini/images/10198.jpg`` with ``masks/10198.png``, one colour, and
where it came along ``nearest_ctich.csv`` (which slice of CT-ICH it is, and the correlation with
it). A case is one slice with its mask (any colour but black is lesion) and, in the column
``subtypes``, what the colours say. Nothing is written into the source.

Traps: the running numbers of ctich_mini hide the patient. Without ``nearest_ctich.csv`` each
picture is looked up among the slices of ``ct_ich`` (by default the folder ct-ich beside SOURCE);
the patient is then ``ctich-079`` as by the adapter ``ct-ich``, so that the leak checks see patients
a run was trained on. A picture that equals no slice is an augmented copy (10199 correlates with
080_11 at 0.92) or of a patient who is not there: left out and counted. BHSD is made of RSNA 2019
under other names: never test on it what was trained on ``rsna``, no check can tell. Slices were
chosen for their bleeding: no healthy test slice, no volume in ml. Terms of BHSD and CT-ICH apply.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.errors import Fault
from pseudohealthy.progress import say

COLOURS = {
    (255, 0, 0): "epidural",
    (0, 0, 255): "intraparenchymal",
    (255, 255, 0): "intraventricular",
    (0, 255, 255): "subarachnoid",
    (0, 255, 0): "subdural",
}
# Correlation of two thumbnails of one slice; neighbouring slices reach 0.993, the same one 0.99999.
SAME = 0.998
LISTED = 0.95  # of nearest_ctich.csv: the augmented copy has 0.92
_SLICE = re.compile(r"(\d{3})_\d+")


def prepare(
    source: Path, out: Path, *, seed: int = 0, ct_ich: Path | str | None = None
) -> Manifest:
    """Test cases only; the seed changes nothing. ct_ich: folder of CT-ICH's own slices, to name the
    patients.

    Raises Fault LAYOUT (exit 3) for an image without mask or the reverse, and MASK_COLOUR for a
    colour BHSD has not.
    """
    source = Path(source)
    cases = []
    for image, mask in _pairs(source / "bhsd_mini"):
        if not re.fullmatch(r"\d{6}", image.stem):
            raise Fault(
                "LAYOUT", f"{image.name} is not volume and slice in six digits", "fetch it again"
            )
        cases.append(_case(source, image, mask, f"bhsd-{image.stem[:3]}", COLOURS))
    pairs = _pairs(source / "ctich_mini")
    slices = _slices(
        source / "ctich_mini",
        [image for image, _ in pairs],
        Path(ct_ich or source.parent / "ct-ich"),
    )
    for image, mask in pairs:
        if image.stem in slices:
            patient = f"ctich-{slices[image.stem][:3]}"
            cases.append(_case(source, image, mask, patient, None, slices[image.stem]))
    if pairs:
        patients = sorted({name[:3] for name in slices.values()})
        say(
            f"ctich_mini: {len(slices)} of {many(len(pairs), 'slice')} are slices of CT-ICH"
            f" patients {', '.join(patients) or '-'}, the others are left out; a run trained on"
            " ct-ich may have seen these patients"
        )
    if not cases:
        raise Fault(
            "LAYOUT",
            "neither bhsd_mini nor ctich_mini with images and masks",
            "give the folder above them",
        )
    manifest = Manifest(cases, out)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    images = {
        path.stem: path
        for path in sorted(folder.glob("images/*"))
        if path.suffix in (".png", ".jpg")
    }
    masks = {path.stem: path for path in sorted(folder.glob("masks/*.png"))}
    if odd := sorted(images.keys() ^ masks.keys()):
        raise Fault(
            "LAYOUT",
            f"{many(len(odd), 'image')} without mask or the reverse, first {odd[0]}",
            "fetch them again",
        )
    return [(images[stem], masks[stem]) for stem in images]


def _case(
    source: Path, image: Path, mask: Path, patient: str, colours: dict | None, original: str = ""
) -> Case:
    with Image.open(mask) as picture:
        counted: Any = picture.convert("RGB").getcolors(maxcolors=256)
        found = {colour for _, colour in counted or ()}
    if not counted:
        raise Fault(
            "MASK_COLOUR",
            f"{mask.name} has more than 256 colours",
            "fetch it as PNG without smoothing",
        )
    found -= {(0, 0, 0)}
    if colours is not None and (unknown := sorted(found - colours.keys())):
        raise Fault(
            "MASK_COLOUR",
            f"{mask.name} has the colour {unknown[0]}",
            "fetch it as PNG without smoothing",
        )
    subtypes = "|".join(sorted(colours[colour] for colour in found)) if colours else ""
    folder = image.parents[1].name.removesuffix("_mini")
    return Case(
        f"{folder}-{image.stem}",
        patient,
        "test",
        ANOMALOUS if found else HEALTHY,
        image.relative_to(source).as_posix(),
        mask.relative_to(source).as_posix(),
        root=source,
        extra={"subtypes": subtypes, "original": original},
    )


def _slices(folder: Path, images: list[Path], ct_ich: Path) -> dict[str, str]:
    """Stem of a picture -> the slice of CT-ICH it is, as ``079_14``; those that are none are
    absent."""
    if not images:
        return {}
    if (folder / "nearest_ctich.csv").is_file():
        return _listed(folder / "nearest_ctich.csv", {image.stem for image in images})
    originals = sorted((ct_ich / "images").glob("*.jpg"))
    if not originals:
        return {}
    pool = np.stack([_thumbnail(path) for path in originals])
    found = {}
    for image in images:
        alike = pool @ _thumbnail(image)
        best = int(alike.argmax())
        if alike[best] > SAME:
            found[image.stem] = originals[best].stem
    return found


def _listed(table: Path, stems: set[str]) -> dict[str, str]:
    """The table's slices by their form, whatever its columns are called: a stem, a slice
    ``079_14``, a correlation."""
    found = {}
    with table.open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            cells = [
                Path(cell).stem if cell.endswith((".jpg", ".png")) else cell
                for cell in row.values()
                if cell
            ]
            stem = next((cell for cell in cells if cell in stems), None)
            original = next((cell for cell in cells if _SLICE.fullmatch(cell)), None)
            alike = next(
                (
                    float(value)
                    for key, value in row.items()
                    if key and "corr" in key.lower() and value
                ),
                None,
            )
            if original is None or alike is None:
                raise Fault(
                    "LAYOUT", f"{table.name} lacks a slice or its correlation", "fetch it again"
                )
            if stem and alike > LISTED:
                found[stem] = original
    return found


def _thumbnail(path: Path) -> np.ndarray:
    """64 x 64 grey levels as a vector of mean 0 and length 1."""
    with Image.open(path) as picture:
        picture.draft("L", (160, 160))  # a JPEG decoded at a quarter of its size: ten times as fast
        small = np.asarray(
            picture.convert("L").resize((64, 64), Image.Resampling.BOX), np.float64
        ).ravel()
    small -= small.mean()
    return small / max(float(np.linalg.norm(small)), 1e-9)
