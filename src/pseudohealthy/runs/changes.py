"""What of a trained method can be set otherwise when it restores, and what its weights forbid."""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence

import torch

from pseudohealthy.errors import USAGE, Fault
from pseudohealthy.restorers import restorer_class
from pseudohealthy.runs.recipe import Recipe, assigned
from pseudohealthy.settings import ranges

# Of a restorer: its weights know no others
TRAINED = ("name", *(f"diffusion.{key}" for key in ("levels", "schedule", "betas", "target")))


def changes(recipe: Recipe, calls: int | None, settings: Sequence[str]) -> list[str]:
    """``section.key=value`` texts that restore with so many `calls` of a walk, and `settings`.

    Fault USAGE or RECIPE (exit 2) for settings of another network, and for calls of a method that
    does not walk.
    """
    copy.deepcopy(recipe).set(settings)  # refuses what is no setting at all
    for text in settings:
        if not text.startswith(("restorer.", "map.")):
            raise another(text)
    found = [*settings, *([walked(recipe, calls)] if calls else [])]
    if found:
        same_network(recipe, found)
    return found


def walked(recipe: Recipe, calls: int) -> str:
    """The setting that gives a walk so many network calls. Fault USAGE where there is no walk."""
    name = recipe.restorer["name"]
    known = ranges(restorer_class(name), "restorer")
    if "restorer.walk.calls" in known:
        return f"restorer.walk.calls={calls}"
    message = f"--calls does not apply to '{name}', which does not walk"
    if "restorer.walk.draws" not in known:
        raise Fault("USAGE", message, "leave it out", exit=USAGE)
    why = (
        f"its calls follow from the noise draws, now {recipe.resolved().restorer['walk']['draws']}"
    )
    raise Fault(
        "USAGE", message, f"{why}: use --set restorer.walk.draws=N, or leave it out", exit=USAGE
    )


def same_network(recipe: Recipe, settings: Sequence[str]) -> None:
    """Fault where the settings are wrong, or those of another network or another training."""
    same_training(recipe, settings, restorer_class(recipe.restorer["name"]).nested)
    changed = copy.deepcopy(recipe).set(settings).checked()
    with torch.device("meta"):
        models = [one.make_restorer() for one in (recipe, changed)]
    states = [model.state_dict() for model in models]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if shapes[0] != shapes[1]:
        raise another(", ".join(settings))


def same_training(recipe: Recipe, settings: Sequence[str], networks: Container[str] = ()) -> None:
    """Fault where settings say what the weights were trained for, or are of these networks."""
    for text, (section, *path), _ in assigned(settings, recipe.restorer["name"]):
        if section == "restorer" and (".".join(path) in TRAINED or path[0] in networks):
            raise another(text)


def another(text: str) -> Fault:
    cure = "settings of restoring (restorer.*) and of the map (map.*) can change; train for others"
    return Fault("USAGE", f"{text} changes the network", cure, exit=USAGE)
