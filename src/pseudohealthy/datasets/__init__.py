"""Public data sets as they lie on disk -> manifest.csv. One file per layout; imported only when
asked for."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudohealthy.errors import USAGE, Fault

if TYPE_CHECKING:  # the names alone are wanted by help and completion, at once
    from pseudohealthy.data.manifest import Manifest

# name -> module:function; function(source, out, *, seed, ...) -> Manifest, with manifest.csv
# written in out
REGISTRY = {
    "atlas": "pseudohealthy.datasets.atlas:prepare",
    "behrendt": "pseudohealthy.datasets.behrendt:prepare",
    "bmad": "pseudohealthy.datasets.bmad:prepare",
    "brats": "pseudohealthy.datasets.brats:prepare",
    "chexpert": "pseudohealthy.datasets.chexpert:prepare",
    "ct-ich": "pseudohealthy.datasets.ct_ich:prepare",
    "ct-masks": "pseudohealthy.datasets.ct_masks:prepare",
    "digits": "pseudohealthy.datasets.digits:prepare",
    "grazpedwri": "pseudohealthy.datasets.grazpedwri:prepare",
    "heads": "pseudohealthy.datasets.heads:prepare",
    "ixi": "pseudohealthy.datasets.ixi:prepare",
    "ixi-lesions": "pseudohealthy.datasets.ixi_lesions:prepare",
    "lgg": "pseudohealthy.datasets.lgg:prepare",
    "mnist": "pseudohealthy.datasets.mnist:prepare",
    "mnist-splotch": "pseudohealthy.datasets.mnist:prepare_splotched",
    "mslub": "pseudohealthy.datasets.mslub:prepare",
    "nih-chest": "pseudohealthy.datasets.nih_chest:prepare",
    "nnunet": "pseudohealthy.datasets.nnunet:prepare",
    "rsna": "pseudohealthy.datasets.rsna:prepare",
    "thor-lists": "pseudohealthy.datasets.thor_lists:prepare",
    "wmh": "pseudohealthy.datasets.wmh:prepare",
    "wolleb-brats": "pseudohealthy.datasets.wolleb:prepare_brats",
    "wolleb-chexpert": "pseudohealthy.datasets.wolleb:prepare_chexpert",
}


def prepare(
    name: str, source: Path | str, out: Path | str, *, seed: int = 0, **options: Any
) -> Manifest:
    """Prepare one data set by name. Raises Fault UNKNOWN_DATASET (exit 2), NOT_FOUND or LAYOUT
    (exit 3)."""
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, REGISTRY, n=1)
        hint = (
            f"did you mean '{close[0]}'?" if close else f"choose from {', '.join(sorted(REGISTRY))}"
        )
        raise Fault("UNKNOWN_DATASET", f"no data set named {name!r}", hint, exit=USAGE)
    source, out = Path(source), Path(out)
    if name not in ("digits", "heads") and not source.is_dir():
        raise Fault(
            "NOT_FOUND", f"no folder named {source}", "give the folder that holds the data set"
        )
    return _adapter(name)(source, out, seed=seed, **options)


def options(name: str, assignments: Iterable[str]) -> dict[str, Any]:
    """``key=value`` texts (TOML values; bare words are strings) as options of a data set. Raises
    Fault BAD_SETTING (exit 2)."""
    from pseudohealthy.settings import coerce, literal

    hints = typing.get_type_hints(_adapter(name)) if name in REGISTRY else {}
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


def _adapter(name: str) -> Any:
    module, function = REGISTRY[name].split(":")
    return getattr(import_module(module), function)
