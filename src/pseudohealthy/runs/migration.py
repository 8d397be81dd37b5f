"""Settings of version 0.1 under the names they have now: of recipes, of ``--set`` texts and of
stored runs.

Version 0.1 had all settings of a method in one table; now they stand in tables that methods share,
such as [restorer.diffusion] and [restorer.walk]. Nothing else in the package knows the old names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.marks import shown
from pseudohealthy.settings import refusal

Path = tuple[str, ...]
Names = Mapping[str, Path]

DIFFUSION = (
    "schedule",
    "levels",
    "target",
    "max_level",
    "noise",
    "standardise",
    "octaves",
    "frequency",
)
WALK = {"depths": "start_levels", "depth": "start_levels", "steps": "calls"} | {
    key: key for key in ("eta", "order", "draws", "clip", "variance")
}
SHARED: Names = {
    **{key: ("diffusion", key) for key in DIFFUSION},
    **{old: ("walk", new) for old, new in WALK.items()},
}
# Methods that never walked level by level.
ONE_STEP = ("patched", "conditioned", "consensus", "ct-patched")
STEPS = ("steps", "eta", "order", "variance")
PERCEPTUAL: Names = {
    "perceptual": ("perceptual", "trunk"),
    "perceptual_weights": ("perceptual", "weights"),
}

# Of each method: where a setting of its own went. What stands in no table here kept its name.
OWN: dict[str, Names] = {
    "ddpm": {},
    "ddim": {},
    "consensus": {},
    "conditioned": {},
    "latent": {},
    "thor": {
        **PERCEPTUAL,
        "harmonise": ("harmonise", "levels"),
        "sigma": ("harmonise", "sigma"),
        "side": ("harmonise", "side"),
    },
    "stitched": {
        **PERCEPTUAL,
        "repaint": ("repaint", "level"),
        "repaint_steps": ("repaint", "calls"),
        "repeats": ("repaint", "repeats"),
    },
    "patched": {"patch": ("patches", "side")}
    | {key: ("patches", key) for key in ("stride", "overlap", "sampling")},
    "guided": {key: ("guidance", key) for key in ("scale", "sampler", "conditional", "data_range")},
    "ct-patched": {
        "patch": ("windows", "side"),
        "stride": ("windows", "stride"),
        "context": ("windows", "context"),
        "windows": ("windows", "at_once"),
        "symmetry": ("reading", "symmetry"),
        "score": ("reading", "score"),
        "architecture": ("network", "architecture"),
        "weights": ("network", "weights"),
    },
}


KINDS = ("architecture", "ct", "weights")  # of what stands in [restorer.network] of "ct-patched"

# Of every U-Net
UNET: Names = {
    "attention": ("attention", "at"),
    "middle_attention": ("attention", "middle"),
    "heads": ("attention", "heads"),
    "head_channels": ("attention", "head_channels"),
    "attention_order": ("attention", "order"),
    "embedding_order": ("time", "order"),
    "frequency_shift": ("time", "frequency_shift"),
} | {
    key: ("block", key)
    for key in (
        "scale_shift",
        "residual_sampling",
        "pad_end",
        "groups",
        "eps",
        "dropout",
        "checkpointing",
    )
}


def renamed(method: str, path: Path) -> Path:
    """The present name of a setting of a method, given below [restorer]; as it is where it has its
    present name."""
    if method not in OWN:
        return path
    first, *rest = path
    if not rest:
        if first in STEPS and method in ONE_STEP:
            return path  # is refused by the name that was given
        return OWN[method].get(first, SHARED.get(first, path))
    network = UNET.get(rest[0], (rest[0],)) if len(rest) == 1 else tuple(rest)
    if method != "ct-patched":
        return (first, *network) if first in ("network", "classifier") else path
    if first == "ct_network":
        return ("network", "ct", *rest)
    if first == "network" and rest[0] == "unet":
        return path
    return ("network", "unet", *network) if first == "network" and rest[0] not in KINDS else path


def migrated(restorer: dict[str, Any]) -> dict[str, Any]:
    """A [restorer] table with its settings under their present names. Fault RECIPE (exit 2) where
    one is given twice."""
    found: dict[str, Any] = {}
    method = restorer.get("name")
    if not isinstance(method, str) or method not in OWN:
        return restorer
    for path, value in leaves(restorer):
        table, (*tables, last) = found, named(method, path, value)
        for depth, name in enumerate(tables):
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                where = f"restorer.{'.'.join(tables[: depth + 1])}"
                raise refusal(where, table, f"a table [{where}]")
        if last in table and (value != {} or not isinstance(table[last], dict)):
            raise Fault(
                "RECIPE",
                f"restorer.{'.'.join((*tables, last))} is given twice, as {shown(table[last])} and "
                f"as {shown(value)}",
                "leave its former name out",
                exit=USAGE,
            )
        table.setdefault(last, value)
    return found


def named(method: str, path: Path, value: Any) -> Path:
    """The present name of what a recipe gives this value. A table has the name it is given."""
    return path if isinstance(value, dict) else renamed(method, path)


def leaves(table: dict[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every setting with its path, and every table without settings."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value
