"""LGG MRI segmentation (TCGA-LGG; Buda et al. 2019, Computers in Biology and Medicine): FLAIR of
110 tumour patients.

Layouts: (1) ``kaggle_3m/TCGA_CS_6666_20011109/TCGA_CS_6666_20011109_7.tif`` with
``..._7_mask.tif``; the three channels are pre-contrast, FLAIR, post-contrast, and the FLAIR one is
used. (2) FLAIR as PNG, ``<patient>/007.png`` with ``007_mask.png``. A case is one folder, its mask
the FLAIR abnormality, its site the second word of the name.

Labels: every patient has a tumour, so every case is anomalous and a plane's label is its mask's.
Planes without tumour come from tumour patients: lesion-free, not proven healthy; say so with every
figure. Traps: the last word of a folder is a date, the first three are the patient; slice numbers
are not zero-padded (natural order matters); brightness differs strongly by site, some HT cases are
very dark, so normalise per volume; skull present; 20 to 88 slices; where pre- or post-contrast is
missing that channel is a copy of FLAIR. 8-bit and without geometry: volumes in ml cannot be given.
CC BY-NC-SA 4.0.
"""

from __future__ import annotations

from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.errors import Fault

FLAIR = 1  # channel of the TIFF


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.6, 0.15, 0.25),
) -> Manifest:
    """One case per folder, split by patient and alike at every site."""
    source = Path(source)
    source = source / "kaggle_3m" if (source / "kaggle_3m").is_dir() else source
    cases = []
    for folder in sorted(
        path for path in source.iterdir() if path.is_dir() and path.name.startswith("TCGA_")
    ):
        images, masks = _stack(folder)
        words = folder.name.split("_")  # TCGA, site, patient, date
        cases.append(
            Case(
                folder.name,
                "_".join(words[:3]),
                "",
                ANOMALOUS,
                images,
                masks,
                site=words[1],
                root=source,
            )
        )
    if not cases:
        raise Fault(
            "LAYOUT",
            "no folder TCGA_... with slices and masks",
            "give the folder of the patients, kaggle_3m",
        )
    manifest = assign_splits(Manifest(cases, out), seed=seed, fractions=fractions)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _stack(folder: Path) -> tuple[str, str]:
    """Patterns of a patient's slices and masks, after checking that each slice has its mask."""
    for suffix, channel in ((".tif", f"#{FLAIR}"), (".png", "")):
        slices = {path.stem for path in folder.glob(f"*[0-9]{suffix}")}
        masks = {path.stem.removesuffix("_mask") for path in folder.glob(f"*_mask{suffix}")}
        if slices:
            if slices != masks:
                raise Fault(
                    "LAYOUT",
                    f"{many(len(slices ^ masks), 'slice')} without mask or the reverse",
                    "fetch it again",
                    case=folder.name,
                )
            return f"{folder.name}/*[0-9]{suffix}{channel}", f"{folder.name}/*_mask{suffix}"
    raise Fault(
        "LAYOUT", "a patient's folder without slices", "fetch the folder again", case=folder.name
    )
