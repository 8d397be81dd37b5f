"""Data that a Python program hands over: a manifest, where one lies, or images themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.load import load
from pseudohealthy.data.manifest import SPLITS, Case, Manifest
from pseudohealthy.data.splits import assign_splits
from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.io.held import hold
from pseudohealthy.io.read import MOST_VOXELS, load_source, only
from pseudohealthy.io.scan import Scan

MEMORY = "in memory"  # what a run says of where its data lie
UNSAID = "as the mask says"
TRAINING = (0.8, 0.2, 0.0)  # shares of train, val and test where images come without a split


def manifest_of(data: Any, *, training: bool = False, **how: Any) -> Manifest:
    """The manifest that a verb works on.

    Args:
        data: A manifest, a path as `load` takes it, or images as `manifest` takes them.
        training: Images without a split are divided into training and validation, by patient; else
            they are test images.
        how: Passed to `load`.
    """
    if isinstance(data, Manifest):
        return data
    if isinstance(data, (str, os.PathLike)):
        return load(Path(data), **how)
    return manifest(data, split=None if training else "test")


def manifest(
    images: Any,
    masks: Iterable[Any] | None = None,
    *,
    labels: Iterable[int | None] | None = None,
    patients: Iterable[Any] | None = None,
    split: str | Sequence[str] | None = None,
    seed: int = 0,
) -> Manifest:
    """A manifest of images in memory, as `train`, `evaluate`, `compare` and `sweep` take it.

    Args:
        images: An array or tensor (N, H, W) or (N, C, H, W), or an iterable of images, each one as
            a detector takes it: an array, a tensor, a path, an image of Pillow, nibabel,
            SimpleITK, TorchIO or MONAI. An entry may be a tuple (image, label) or (image, label,
            patient).
        masks: One for each image, of its shape: lesions are not 0. None for an image without.
        labels: 0 healthy, 1 anomalous, None unknown, one for each image. By default as the mask
            says, without masks healthy.
        patients: One key for each image; images of a patient stay in one split. By default every
            image is a patient of its own.
        split: train, val or test, of all or of each image; None divides patients, four to train on
            for one to validate on.
        seed: Of that division.

    Raises:
        Fault: INPUT, COUNT (exit 2), and what `io.objects.scan_of` raises.
    """
    pictures, own_labels, own_patients = taken_apart(images)
    count = len(pictures)
    marks = [None] * count if masks is None else counted(masks, count, "masks")
    keys = counted(own_patients if patients is None else patients, count, "patients")
    if split is None or isinstance(split, str):
        names = [split or ""] * count
    else:
        names = counted(split, count, "splits")
    if wrong := sorted({str(name) for name in names} - {"", *SPLITS}):
        raise Fault("INPUT", f"split {wrong[0]!r}", f"give {', '.join(SPLITS)}", exit=USAGE)
    given = own_labels if labels is None else counted(labels, count, "labels")
    cases = []
    for number, (picture, mask) in enumerate(zip(pictures, marks, strict=True)):
        image, marked = kept(picture, number, False), kept(mask, number, True)
        label = given[number]
        if label == UNSAID:
            label = ANOMALOUS if marked and marked[1].voxels.any() else HEALTHY
        if label not in (HEALTHY, ANOMALOUS, None):
            found = f"label {label!r} of image {number}"
            raise Fault("INPUT", found, "give 0 (healthy), 1 (anomalous) or None", exit=USAGE)
        name = f"image-{number:0{len(str(count))}d}"
        patient = name if keys[number] is None else str(keys[number])
        cells = (image[0] if image else "", marked[0] if marked else "")
        label = None if label is None else int(label)
        cases.append(Case(name, patient, str(names[number]), label, *cells))
    made = Manifest(cases, Path(MEMORY))
    return assign_splits(made, seed=seed, fractions=TRAINING) if split is None else made


def taken_apart(images: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Images, labels and patients of entries; `UNSAID` and None where they say none."""
    if hasattr(images, "ndim") and not isinstance(images, (list, tuple)):
        shape = tuple(int(side) for side in images.shape)
        if len(shape) not in (3, 4):
            cure = "give (N, H, W) or (N, C, H, W), or a list of images"
            raise Fault("INPUT", f"an array of shape {shape} as images", cure, exit=USAGE)
        if len(shape) == 4 and shape[-1] in (1, 3, 4) and shape[1] > 4:
            cure = "give (N, C, H, W): images.transpose(0, 3, 1, 2)"
            raise Fault("INPUT", f"images of shape {shape}, channels last", cure, exit=USAGE)
        array = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
        entries = list(array if array.ndim == 3 else array[:, :, None])  # a plane each
    else:
        entries = list(images)
    if not entries:
        raise Fault("INPUT", "no images", "give at least one", exit=USAGE)
    parts = [
        (*entry, None)[:3]
        if isinstance(entry, tuple) and len(entry) in (2, 3)
        else (entry, UNSAID, None)
        for entry in entries
    ]
    return [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts]


def counted(values: Iterable[Any], count: int, what: str) -> list[Any]:
    """As a list. Fault COUNT (exit 2) where there are not as many as images."""
    found = list(values)
    if len(found) != count:
        raise Fault(
            "COUNT", f"{len(found)} {what} for {count} images", "give one for each", exit=USAGE
        )
    return found


def kept(image: Any, number: int, mask: bool) -> tuple[str, Scan] | None:
    """Name and scan of one image or mask, held in memory; None for None."""
    try:
        if image is None:
            return None
        if isinstance(image, (str, os.PathLike)):
            source = only(Path(image))
            return hold(load_source(source, "axial", MOST_VOXELS, mask))
        if mask and hasattr(image, "dtype") and getattr(image, "affine", None) is None:
            image = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
            image = image.astype(np.uint8) if image.dtype == bool else image
        return hold(image)
    except Fault as fault:
        fault.case = fault.case or f"{'mask' if mask else 'image'} {number}"
        raise
