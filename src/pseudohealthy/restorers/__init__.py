"""The methods. A new one is one file with a `@register` class and one line here."""

from __future__ import annotations

import difflib
import importlib

from pseudohealthy.errors import USAGE, Fault

# name -> module, so that listing the names imports nothing
WHERE = {
    "ddpm": "ddpm",
    "ddim": "ddim",
    "autoencoder": "autoencoder",
    "cevae": "context_encoding",
    "identity": "controls",
    "mean-intensity": "controls",
    "bright-area": "controls",
    "intensity": "controls",
    "histogram-intensity": "controls",
    "healthy-mean": "controls",
    "z-score": "controls",
    "guided": "guided",
    "patched": "patched",
    "ct-patched": "ct",
    "conditioned": "conditioned",
    "spark": "spark",
    "thor": "thor",
    "consensus": "consensus",
    "latent": "latent",
    "stitched": "stitched",
    "fpgan": "fpgan",
    "fanogan": "fanogan",
}


def restorer_class(name: str | None):
    """The class registered under a name.

    Raises:
        Fault: RECIPE (exit 2) for an unknown name.
    """
    if name is None:
        cure = f"set restorer.name to one of: {', '.join(WHERE)}"
        raise Fault("RECIPE", "the recipe names no restorer", cure, exit=USAGE)
    if not isinstance(name, str) or name not in WHERE:
        similar = difflib.get_close_matches(str(name), WHERE, n=1)
        hint = f"did you mean '{similar[0]}'?" if similar else f"one of: {', '.join(WHERE)}"
        raise Fault(
            "RECIPE", f"there is no restorer '{name}'", f"set restorer.name; {hint}", exit=USAGE
        )
    module = importlib.import_module(f"pseudohealthy.restorers.{WHERE[name]}")
    from pseudohealthy.restorers.base import REGISTRY

    assert name in REGISTRY, f"{module.__name__} does not register '{name}'"
    return REGISTRY[name]
