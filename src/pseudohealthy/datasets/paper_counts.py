"""How many images a paper had, printed beside how many were found. A difference is said, and
refuses nothing."""

from __future__ import annotations

from collections.abc import Mapping

from pseudohealthy.data.labels import ANOMALOUS, HEALTHY
from pseudohealthy.data.manifest import Manifest
from pseudohealthy.progress import say

Counts = Mapping[tuple[str, int], int]  # images by part ("training" or "test") and label

# Wolleb et al., MICCAI 2022, section 3. No validation images are named: they are among those of
# training here.
WOLLEB_BRATS: Counts = {
    ("training", HEALTHY): 5_598,
    ("training", ANOMALOUS): 10_607,
    ("test", HEALTHY): 705,
    ("test", ANOMALOUS): 1_082,
}
WOLLEB_CHEXPERT: Counts = {
    ("training", HEALTHY): 14_179,
    ("training", ANOMALOUS): 16_776,
    ("test", HEALTHY): 200,
    ("test", ANOMALOUS): 200,
}


def part_of(split: str) -> str:
    """Validation images belong to the paper's training images."""
    return "test" if split == "test" else "training"


def counted(manifest: Manifest) -> dict[tuple[str, int], int]:
    """Images of a manifest by part and label, those without label left out."""
    found: dict[tuple[str, int], int] = {}
    for case in manifest:
        if case.label is not None:
            key = (part_of(case.split), case.label)
            found[key] = found.get(key, 0) + 1
    return found


def say_beside(name: str, paper: str, found: Counts, published: Counts, unit: str) -> None:
    """One line a part: images found, images of the paper, and the difference."""
    for part in ("training", "test"):
        words = []
        for label, word in ((HEALTHY, "healthy"), (ANOMALOUS, "diseased")):
            here, there = found.get((part, label), 0), published[part, label]
            difference = f"{here - there:+,}" if here != there else "the same"
            words.append(f"{here:,} {word} ({paper}: {there:,}; {difference})")
        more = ", validation among them" if part == "training" else ""
        say(f"{name}: {part} {unit}{more}: {', '.join(words)}")
