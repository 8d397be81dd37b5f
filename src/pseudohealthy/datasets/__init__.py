"""Public data sets as they lie on disk -> manifest.csv. One file per layout; imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pseudohealthy.cases import Manifest
from pseudohealthy.errors import USAGE, Fault

# name -> module:function; function(source, out, *, seed, ...) -> Manifest, with manifest.csv written in out
REGISTRY = {
    "digits": "pseudohealthy.datasets.digits:prepare",
    "heads": "pseudohealthy.datasets.heads:prepare",
    "ixi": "pseudohealthy.datasets.ixi:prepare",
    "lgg": "pseudohealthy.datasets.lgg:prepare",
    "mnist": "pseudohealthy.datasets.mnist:prepare",
    "mnist-splotch": "pseudohealthy.datasets.mnist:prepare_splotched",
}


def prepare(name: str, source: Path | str, out: Path | str, *, seed: int = 0, **options: Any) -> Manifest:
    """Prepare one data set by name. Raises Fault UNKNOWN_DATASET (exit 2), NOT_FOUND or LAYOUT (exit 3)."""
    if name not in REGISTRY:
        raise Fault(
            "UNKNOWN_DATASET", f"no data set named {name!r}", f"choose from {', '.join(sorted(REGISTRY))}", exit=USAGE
        )
    source, out = Path(source), Path(out)
    if name not in ("digits", "heads") and not source.is_dir():
        raise Fault("NOT_FOUND", f"no folder named {source}", "give the folder that holds the data set")
    module, function = REGISTRY[name].split(":")
    return getattr(import_module(module), function)(source, out, seed=seed, **options)
