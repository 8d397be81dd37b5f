"""Public data sets as they lie on disk -> manifest.csv. One file per layout; imported only when
asked for."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.registry import Registry
from pseudohealthy.settings import coerce, literal

if TYPE_CHECKING:  # the names alone are wanted by help and completion, at once
    from pseudohealthy.data.manifest import Manifest

# name -> module:function; function(source, out, *, seed, ...) -> Manifest, with manifest.csv
# written in out
REGISTRY: Registry[Callable[..., Manifest]] = Registry(
    "data set",
    "datasets",
    {
        "atlas": "datasets.atlas:prepare",
        "behrendt": "datasets.behrendt:prepare",
        "bmad": "datasets.bmad:prepare",
        "brats": "datasets.brats:prepare",
        "chexpert": "datasets.chexpert:prepare",
        "ct-ich": "datasets.ct_ich:prepare",
        "ct-masks": "datasets.ct_masks:prepare",
        "digits": "datasets.digits:prepare",
        "grazpedwri": "datasets.grazpedwri:prepare",
        "heads": "datasets.heads:prepare",
        "ixi": "datasets.ixi:prepare",
        "ixi-lesions": "datasets.ixi_lesions:prepare",
        "lgg": "datasets.lgg:prepare",
        "mnist": "datasets.mnist:prepare",
        "mnist-splotch": "datasets.mnist:prepare_splotched",
        "mslub": "datasets.mslub:prepare",
        "nih-chest": "datasets.nih_chest:prepare",
        "nnunet": "datasets.nnunet:prepare",
        "rsna": "datasets.rsna:prepare",
        "thor-lists": "datasets.thor_lists:prepare",
        "wmh": "datasets.wmh:prepare",
        "wolleb-brats": "datasets.wolleb:prepare_brats",
        "wolleb-chexpert": "datasets.wolleb:prepare_chexpert",
    },
)
register = REGISTRY.register


def prepare(
    name: str, source: Path | str, out: Path | str, *, seed: int = 0, **options: Any
) -> Manifest:
    """Prepare one data set by name. Raises Fault UNKNOWN_DATASET (exit 2), NOT_FOUND or LAYOUT
    (exit 3)."""
    if name not in REGISTRY:
        hint = REGISTRY.hint(name)
        raise Fault("UNKNOWN_DATASET", f"no data set named {name!r}", hint, exit=USAGE)
    source, out = Path(source), Path(out)
    if name not in ("digits", "heads") and not source.is_dir():
        raise Fault(
            "NOT_FOUND", f"no folder named {source}", "give the folder that holds the data set"
        )
    return REGISTRY[name](source, out, seed=seed, **options)


def options(name: str, assignments: Iterable[str]) -> dict[str, Any]:
    """``key=value`` texts (TOML values; bare words are strings) as options of a data set. Raises
    Fault BAD_SETTING (exit 2)."""
    hints = typing.get_type_hints(REGISTRY[name]) if name in REGISTRY else {}
    known = hints.keys() - {"source", "out", "seed", "return"}
    found = {}
    for text in assignments:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or key not in known:
            cure = f"options of {name}: {', '.join(sorted(known)) or 'none'}"
            raise Fault("BAD_SETTING", f"'{text}' is no option of {name}", cure, exit=USAGE)
        try:
            found[key] = coerce(literal(value), hints[key], key)
        except Fault as fault:
            raise Fault(
                "BAD_SETTING", f"option {key} of {name} is {value}", fault.cure, exit=USAGE
            ) from None
    return found
