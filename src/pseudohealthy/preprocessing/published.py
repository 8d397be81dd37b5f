"""Published preprocessing by name, such as ``preprocess = "behrendt"`` in a recipe's [canvas].

Settings written beside the name win, and a run's recipe.toml holds every setting written out.
Preparation before the canvas (registration, bias field, skull stripping, smoothing) is other
programs' work: docs/preprocessing.md.
"""

from __future__ import annotations

from typing import Any

from pseudohealthy.errors import USAGE, Fault

PUBLISHED: dict[str, dict[str, Any]] = {
    # Behrendt et al., MIDL 2023 (pDDPM) and Comput. Biol. Med. 186, 2025 (cDDPM): 192 x 192 x 100
    # mm about the brain's bounding box, percentiles 1 and 99 inside the brain mask, then 2 mm
    # voxels: 96 x 96 x 50. There B-splines, without antialiasing, in all three directions and in
    # evaluation too; here antialiased linear, across planes in training only.
    "behrendt": {
        "size": 96,
        "spacing": 2.0,
        "crop": True,
        "strip": True,
        "foreground": "brain-mr",
        "normalise": "percentile",
        "percentiles": (1.0, 99.0),
        "slices": (-50.0, 50.0),
        "slices_in": "mm",
        "step": 2.0,
        "judge": "slices",
    },
    # Bercea et al., MICCAI 2024 (THOR): one mid-axial plane (95 of 189 in MNI space at 1 mm, 197 x
    # 233), padded to its longer side of 233 mm, 128 px, divided by the 98th percentile (which the
    # released brain loader leaves out).
    "thor": {
        "size": 128,
        "spacing": 233 / 128,
        "normalise": "upper",
        "percentiles": (0.0, 98.0),
        "slices": (95 / 189, 96 / 189),
        "slices_in": "share",
        "judge": "slices",
    },
    # Wolleb et al., MICCAI 2022: BraTS2020 planes of 240 x 240 at 1 mm padded to 256; of 155 the
    # lowest 80 and the uppermost 26 left out; 0..1. The released slices are divided by an upper
    # percentile of each volume and sequence; which one was never said: 99 is assumed, inside the
    # brain (not 0).
    "wolleb": {
        "size": 256,
        "spacing": 1.0,
        "normalise": "upper",
        "percentiles": (0.0, 99.0),
        "foreground": "nonzero",
        "slices": (80.0, 128.0),
        "slices_in": "planes",
        "judge": "slices",
    },
    # Wyatt et al., CVPR Workshops 2022 (AnoDDPM), released loader: coronal planes 40 to 100 of NFBS
    # (256 planes of 1 mm; from which end is not said: here the front), clipped at mean - 1 and + 2
    # standard deviations of the volume, the middle 235 pixels brought to 256. The published test
    # planes were picked by hand, so every plane is judged.
    "anoddpm": {
        "size": 256,
        "plane": "coronal",
        "spacing": 235 / 256,
        "normalise": "deviations",
        "deviations": (-1.0, 2.0),
        "slices": (40 / 256, 101 / 256),
        "slices_in": "share",
    },
}


def expanded(settings: dict[str, Any]) -> dict[str, Any]:
    """Canvas settings with ``preprocess`` replaced by the settings it names.

    Raises:
        Fault: RECIPE (exit 2) for an unknown name.
    """
    overrides = {key: value for key, value in settings.items() if key != "preprocess"}
    name = settings.get("preprocess", "none")
    if name == "none":
        return overrides
    if not isinstance(name, str) or name not in PUBLISHED:
        names = ", ".join(["none", *PUBLISHED])
        raise Fault("RECIPE", f"canvas.preprocess is {name!r}", f"choose from {names}", exit=USAGE)
    return PUBLISHED[name] | overrides
