"""BraTS (Menze et al. 2015, Baid et al. 2021): multi-contrast MR of gliomas, 240 x 240 x 155, 1 mm,
skull-stripped.

Layouts, one folder a case, at any depth below SOURCE:
2015  ``brats_2013_pat0001_1/{Flair,T1c,..}_*.nii.gz, OTMultiClass.nii.gz, brainmask.nii.gz``
(normalised copies) 2020
      ``BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii[.gz]``; case 355 has
      its mask under the name ``W39_1998.09.19_Segm.nii``, which is recognised
2021  ``BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz``; ids have gaps
2023+ ``BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t2f,t1n,t1c,t2w,seg}.nii.gz``; the last number is
      the visit, so the patient is the name without it
``modality`` is "flair", another one, several ("t1|t2") or "all", the published order t1, t1ce, t2,
flair.

Labels: whole tumour is everything above 0. Values: 2015 0-4; 2020 and 2021 0, 1, 2, 4 (no 3); 2023
0-3. Every mask is read, the values are printed and another value is refused (the post-treatment
sets of 2024 hold 4, a cavity: give ``labels``). Every patient has a tumour and every case is
anomalous: all are test, unless ``fractions`` divide them by patient; a plane's label is then its
mask's, and a plane without tumour is not proven healthy (mass effect, oedema). Where all four
sequences are divided, the slices that Wolleb et al. 2022 take (of 155, neither the lowest 80 nor
the upper 26) are counted, with and without tumour, and printed beside the paper's counts; its
division was never published. Cases without mask (validation sets) are test cases without reference;
a folder of cases with and without is refused. Traps: patients come back in later years under new
names, so one release at a time; the background is exactly 0 (``foreground = "nonzero"`` is right
here and nowhere else); ``*apping*.csv`` with a column "Site No" gives the site.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

from pseudohealthy.counts import many
from pseudohealthy.data.labels import ANOMALOUS
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.datasets.chexpert import read_table, say_counts
from pseudohealthy.datasets.nnunet import label_values
from pseudohealthy.datasets.paper_counts import WOLLEB_BRATS, part_of, say_beside
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io import nifti
from pseudohealthy.progress import Progress, say

ALL = ("t1", "t1ce", "t2", "flair")
VALUES = {"2015": (0, 1, 2, 3, 4), "2020": (0, 1, 2, 4), "2021": (0, 1, 2, 4), "2023": (0, 1, 2, 3)}
_NAMES = {
    "2020": re.compile(
        r"(BraTS20_(?:Training|Validation)_\d{3})_(flair|t1|t1ce|t2|seg)\.nii(?:\.gz)?$"
    ),
    "2021": re.compile(r"(BraTS2021_\d{5})_(flair|t1|t1ce|t2|seg)\.nii(?:\.gz)?$"),
    "2023": re.compile(r"(BraTS-[A-Z]+-\d{5}-\d{3})-(t2f|t1n|t1c|t2w|seg)\.nii(?:\.gz)?$"),
}
_OLD = re.compile(
    r"(?:(flair|t1c|t1|t2)_\w+|(otmulticlass|brainmask))\.nii(?:\.gz)?$", re.IGNORECASE
)
_KINDS = {"t2f": "flair", "t1n": "t1", "t1c": "t1ce", "t2w": "t2", "otmulticlass": "seg"}


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.0, 0.0, 1.0),
    modality: str = "flair",
    labels: tuple[int, ...] = (),
) -> Manifest:
    """One case per folder. Raises Fault LAYOUT, DUPLICATE, LABELS (exit 3), BAD_SETTING (exit
    2)."""
    source = Path(source)
    wanted = ALL if modality == "all" else tuple(modality.split("|"))
    if not wanted or not set(wanted) <= set(ALL):
        raise Fault(
            "BAD_SETTING",
            f"modality {modality!r}",
            f"choose from {', '.join(ALL)}, all",
            exit=USAGE,
        )
    year, found = _find(source)
    sites = _sites(source, found)
    _all_or_none(found)
    as_wolleb = wanted == ALL and fractions[0] > 0
    slices: dict[str, Counter[int]] = {}  # of a case, by label
    cases, seen, empty = [], Counter[int](), 0
    with Progress("labels", len(found)) as bar:
        for name, files in sorted(found.items()):
            cells = {kind: path.relative_to(source).as_posix() for kind, path in files.items()}
            if absent := [kind for kind in wanted if kind not in cells]:
                raise Fault(
                    "LAYOUT",
                    f"no {', '.join(absent)} image",
                    "fetch it, or choose another modality",
                    case=name,
                )
            if "seg" in files:
                values = label_values(files["seg"], labels or VALUES[year], name)
                seen.update(values)
                empty += not values - {0}
                if as_wolleb:
                    slices[name] = _slices(files["seg"])
            cases.append(
                Case(
                    name,
                    _patient(year, name),
                    "",
                    ANOMALOUS,
                    "|".join(cells[kind] for kind in wanted),
                    mask=cells.get("seg", ""),
                    brain_mask=cells.get("brainmask", ""),
                    site=sites.get(name, ""),
                    root=source,
                )
            )
            bar.advance()
    manifest = assign_splits(Manifest(cases, out), seed=seed, fractions=fractions)
    say(
        f"brats: release {year}; masks with label "
        + (", ".join(f"{v}: {n}" for v, n in sorted(seen.items())) or "none")
    )
    if empty:
        say(
            f"brats: {many(empty, 'mask is', 'masks are')} empty; such cases still count as"
            " anomalous"
        )
    say_counts("brats", manifest)
    if any(slices.values()):
        counts = Counter[tuple[str, int]]()
        for case in manifest:
            counts.update(
                {
                    (part_of(case.split), k): n
                    for k, n in slices.get(case.case_id, Counter()).items()
                }
            )
        say_beside("brats", "Wolleb 2022", counts, WOLLEB_BRATS, "slices")
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def _slices(mask: Path) -> Counter[int]:
    """Healthy and anomalous slices of a volume of 155 without the lowest 80 and the upper 26; none
    of another depth."""
    marked = nifti.read(mask, plane="native").voxels[0].any((1, 2))
    return Counter((marked[80:-26].astype(int)).tolist()) if len(marked) == 155 else Counter()


def _find(source: Path) -> tuple[str, dict[str, dict[str, Path]]]:
    """The release and, by case, its files by modality, seg and brainmask."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    years = set()
    for path in sorted(source.rglob("*.nii*")):
        year, name, kind = _kind(path)
        if year:
            if kind in found[name]:
                raise Fault(
                    "DUPLICATE",
                    f"{kind} lies there twice ({path.name})",
                    "keep one of the files",
                    case=name,
                )
            found[name][kind] = path
            years.add(year)
    if len(years) > 1:
        raise Fault(
            "LAYOUT",
            f"releases {', '.join(sorted(years))} together; they share patients under other names",
            "prepare one release at a time",
        )
    if not years:
        raw = next(source.rglob("*.mha"), None)
        cure = (
            "convert the .mha files to NIfTI"
            if raw
            else "give the folder of the BraTS20_..., BraTS2021_... or BraTS-GLI-... cases"
        )
        raise Fault("LAYOUT", "no case of BraTS in the folder", cure)
    return years.pop(), dict(found)


def _kind(path: Path) -> tuple[str, str, str]:
    """Release, case and what the file is; empty for a file of something else."""
    for year, pattern in _NAMES.items():
        if match := pattern.match(path.name):
            return year, match[1], _KINDS.get(match[2], match[2])
    if path.parent.name.startswith("BraTS20_") and re.match(r"W39_.*_Segm\.nii", path.name):
        say(f"brats: {path.name} is taken as the mask of {path.parent.name}")
        return "2020", path.parent.name, "seg"
    match = _OLD.match(path.name)
    if match and path.parent.name.lower().startswith("brats"):
        kind = (match[1] or match[2]).lower()
        return "2015", path.parent.name, _KINDS.get(kind, kind)
    return "", "", ""


def _patient(year: str, name: str) -> str:
    return re.sub(r"[-_]\d+$", "", name) if year in ("2015", "2023") else name


def _all_or_none(found: dict[str, dict[str, Path]]) -> None:
    """Raise Fault LAYOUT where a folder of cases has masks for some only: a mask was renamed or
    lost."""
    folders: dict[Path, dict[bool, list[str]]] = defaultdict(lambda: {True: [], False: []})
    for name, files in found.items():
        folders[next(iter(files.values())).parents[1]]["seg" in files].append(name)
    for masked in folders.values():
        if masked[True] and masked[False]:
            raise Fault(
                "LAYOUT",
                f"{many(len(masked[False]), 'case')} without mask among {len(masked[True])}"
                " with one",
                "fetch the mask or move the case away",
                case=masked[False][0],
            )


def _sites(source: Path, found: dict[str, dict[str, Path]]) -> dict[str, str]:
    """Site by case, from the mapping table where it is there."""
    sites = {}
    for path in sorted([*source.glob("*apping*.csv"), *source.glob("*/*apping*.csv")]):
        for _, row in read_table(path, ()):
            column = next((name for name in row if name.startswith("Site No")), None)
            case = next((cell for cell in row.values() if cell in found), None)
            if column and case:
                sites[case] = row[column]
    return sites
