"""The methods. A new one is one file with a `@register` class; one of the package also has a line
here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.registry import Registry

if TYPE_CHECKING:
    from pseudohealthy.restorers.base import Restorer

REGISTRY: Registry[type[Restorer]] = Registry(
    "restorer",
    "restorers",
    {
        "ddpm": "restorers.ddpm",
        "ddim": "restorers.ddim",
        "autoencoder": "restorers.autoencoder",
        "cevae": "restorers.context_encoding",
        "identity": "restorers.controls",
        "mean-intensity": "restorers.controls",
        "bright-area": "restorers.controls",
        "intensity": "restorers.controls",
        "histogram-intensity": "restorers.controls",
        "healthy-mean": "restorers.controls",
        "z-score": "restorers.controls",
        "guided": "restorers.guided",
        "patched": "restorers.patched",
        "ct-patched": "restorers.ct",
        "conditioned": "restorers.conditioned",
        "spark": "restorers.spark",
        "thor": "restorers.thor",
        "consensus": "restorers.consensus",
        "latent": "restorers.latent",
        "stitched": "restorers.stitched",
        "fpgan": "restorers.fpgan",
        "fanogan": "restorers.fanogan",
    },
)


def restorer_class(name: str | None) -> type[Restorer]:
    """The class registered under a name.

    Raises:
        Fault: RECIPE (exit 2) for an unknown name.
    """
    if name is None:
        cure = f"set restorer.name to one of: {', '.join(REGISTRY)}"
        raise Fault("RECIPE", "the recipe names no restorer", cure, exit=USAGE)
    if not isinstance(name, str) or name not in REGISTRY:
        hint = REGISTRY.hint(name)
        raise Fault(
            "RECIPE", f"there is no restorer '{name}'", f"set restorer.name; {hint}", exit=USAGE
        )
    return REGISTRY[name]
