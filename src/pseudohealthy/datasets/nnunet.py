"""nnU-Net raw folders (Isensee et al. 2021, Nature Methods; versions 1 and 2), also the Medical
Segmentation Decathlon.

Layout: ``dataset.json``, ``imagesTr/CASE_0000.nii.gz`` (one file a channel; Decathlon:
``CASE.nii.gz``), ``labelsTr/CASE.nii.gz``, ``imagesTs`` and, rarely, ``labelsTs``. The channels of
a case are stacked in their order; ``channels`` ("0" or "1|0") takes some of them, by number or
name.

Labels: dataset.json names them, either way round ({"background": 0} or {"0": "background"}). All
above 0 are lesions unless ``lesions`` names the ones that are ("tumour|cyst"): organs are no
lesion. The others are listed in the column ``mask_background`` (values that count as background),
the label "ignore" in ``mask_ignore`` (values that are left out of every count). A case is anomalous
if its mask holds a lesion, healthy otherwise; imagesTs without labels are unknown and test.
Splits: healthy cases are divided and all others are test; without healthy cases everything is test
unless ``fractions`` are given. ``patient`` is a regular expression whose first group is the patient
(default: every case is a patient). Traps: values in the masks that dataset.json does not name are
refused; several visits of a patient look like cases.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Case, Manifest
from pseudohealthy.datasets.chexpert import divide, say_counts
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io import nifti, raster
from pseudohealthy.progress import Progress, say

_ENDINGS = (".nii.gz", ".nii", ".png", ".tif", ".tiff")


def prepare(
    source: Path,
    out: Path,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] | None = None,
    channels: str = "",
    lesions: str = "",
    patient: str = "",
) -> Manifest:
    """One case per image; every mask is read. Raises Fault LAYOUT, LABELS (exit 3), BAD_SETTING
    (exit 2)."""
    source = Path(source)
    described = _dataset(source)
    named = _labels(described)
    apart = _sorted_out(named, lesions)
    every = {0}.union(*named.values())
    order = _channels(described, channels)
    cases, seen = [], Counter[int]()
    for folder, labels in (("imagesTr", "labelsTr"), ("imagesTs", "labelsTs")):
        found = _images(source / folder, order)
        with Progress("labels", len(found)) as bar:
            for name, image in found.items():
                masks = [
                    f"{labels}/{name}{end}"
                    for end in _ENDINGS
                    if (source / labels / f"{name}{end}").is_file()
                ]
                if not masks and folder == "imagesTr":
                    raise Fault(
                        "LAYOUT",
                        "an image of imagesTr without its mask in labelsTr",
                        "add it",
                        case=name,
                    )
                values = label_values(source / masks[0], every, name) if masks else set()
                seen.update(values)
                label = (ANOMALOUS if values & apart["lesion"] else HEALTHY) if masks else None
                extra = {
                    f"mask_{k}": " ".join(map(str, sorted(apart[k])))
                    for k in ("background", "ignore")
                }
                cases.append(
                    Case(
                        name,
                        _patient(patient, name),
                        "",
                        label,
                        image,
                        mask="".join(masks[:1]),
                        root=source,
                        extra=extra | {"part": folder},
                    )
                )
                bar.advance()
    if not cases:
        raise Fault("LAYOUT", "no image in imagesTr or imagesTs", "give the folder of dataset.json")
    names = {value: name for name, values in named.items() for value in values}
    say(
        "nnunet: cases with label "
        + ", ".join(f"{v} ({names[v]}): {n}" for v, n in sorted(seen.items()))
    )
    held = {case.patient_id for case in cases if case.extra["part"] == "imagesTs"}
    shares = fractions or (0.8, 0.1, 0.1)
    ill = fractions is not None and all(case.label != HEALTHY for case in cases)
    manifest = divide(cases, out, seed=seed, fractions=shares, weak=ill, test=held)
    say_counts("nnunet", manifest)
    manifest.save(Path(out) / "manifest.csv")
    return manifest


def label_values(path: Path, known: Collection[int], case_id: str) -> set[int]:
    """The label values of a mask file, every voxel read. Raises Fault LABELS for one that is not
    known or not whole."""
    volume = path.name.endswith((".nii", ".nii.gz"))
    try:
        voxels = (
            nifti.read(path, plane="native").voxels if volume else raster.read_picture(path).voxels
        )
    except Fault as fault:
        fault.case = fault.case or case_id
        raise
    whole = np.clip(voxels, -1, 2**15).astype(np.int32)
    values = {int(value) - 1 for value in np.flatnonzero(np.bincount((whole + 1).ravel()))}
    if not values <= set(known) or not np.array_equal(whole, voxels):
        found = (
            ", ".join(map(str, sorted(values)[:8]))
            if np.array_equal(whole, voxels)
            else "fractions"
        )
        raise Fault(
            "LABELS",
            f"{path.name} holds {found} where {', '.join(map(str, sorted(set(known))))} are known",
            "check that this is the mask, and the release of the data set",
            case=case_id,
        )
    return values


def _dataset(source: Path) -> dict[str, Any]:
    path = source / "dataset.json"
    if not path.is_file():
        raise Fault(
            "LAYOUT",
            "no dataset.json in the folder",
            "give the folder DatasetNNN_Name or TaskNNN_Name",
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["labels"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Fault(
            "LAYOUT", f"dataset.json names no labels ({type(error).__name__})", "repair it"
        ) from None
    return found


def _labels(described: dict[str, Any]) -> dict[str, set[int]]:
    """Values by name; a region of version 2 has several."""
    labels = described["labels"]
    if all(str(key).isdigit() for key in labels):  # version 1
        return {str(name): {int(key)} for key, name in labels.items()}
    return {
        str(name): set(map(int, v)) if isinstance(v, list) else {int(v)}
        for name, v in labels.items()
    }


def _sorted_out(named: dict[str, set[int]], lesions: str) -> dict[str, set[int]]:
    """The values that are lesion, background (of something else) and ignored."""
    ignored = named.get("ignore", set())
    above = set().union(*named.values()) - ignored - {0}
    wanted = [name.strip() for name in lesions.split("|")] if lesions else []
    if unknown := [name for name in wanted if name not in named]:
        raise Fault(
            "BAD_SETTING",
            f"lesions {', '.join(unknown)}",
            f"choose from {', '.join(named)}",
            exit=USAGE,
        )
    chosen = set().union(*(named[name] for name in wanted)) if wanted else above
    return {"lesion": chosen, "background": above - chosen, "ignore": ignored}


def _channels(described: dict[str, Any], channels: str) -> list[int]:
    """Numbers of the channels to take; empty takes all that a case has."""
    names = described.get("channel_names") or described.get("modality") or {}
    by_name = {str(name): int(key) for key, name in names.items()} | {
        str(key): int(key) for key in names
    }
    wanted = [part.strip() for part in channels.split("|")] if channels else []
    if unknown := [part for part in wanted if part not in by_name]:
        raise Fault(
            "BAD_SETTING",
            f"channels {', '.join(unknown)}",
            f"choose from {', '.join(by_name)}",
            exit=USAGE,
        )
    return [by_name[part] for part in wanted]


def _images(folder: Path, order: list[int]) -> dict[str, str]:
    """case -> image cell. Raises Fault LAYOUT where the cases have different channels."""
    files: dict[str, dict[int, str]] = {}
    for path in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
        ending = next((end for end in _ENDINGS if path.name.endswith(end)), "")
        if ending:
            name, _, number = path.name.removesuffix(ending).rpartition("_")
            split = bool(name) and re.fullmatch(r"\d{4}", number) is not None
            stem, channel = (name, int(number)) if split else (path.name.removesuffix(ending), 0)
            if channel in files.setdefault(stem, {}):
                raise Fault(
                    "DUPLICATE", f"channel {channel} lies there twice", "keep one file", case=stem
                )
            files[stem][channel] = f"{folder.name}/{path.name}"
    all_channels = sorted({channel for found in files.values() for channel in found})
    for stem, found in files.items():
        if absent := [channel for channel in order or all_channels if channel not in found]:
            raise Fault(
                "LAYOUT",
                f"no channel {', '.join(f'{c:04d}' for c in absent)} in {folder.name}",
                "add it",
                case=stem,
            )
    return {
        stem: "|".join(found[channel] for channel in order or all_channels)
        for stem, found in files.items()
    }


def _patient(pattern: str, name: str) -> str:
    if not pattern:
        return name
    match = re.match(pattern, name)
    if not match or not match.groups():
        raise Fault(
            "BAD_SETTING",
            f"patient {pattern!r} does not fit",
            "give a group, as in '(P\\d+)_'",
            exit=USAGE,
            case=name,
        )
    return match[1]
