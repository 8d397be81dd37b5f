"""What a value can be (a run, a recipe, a data set): what there is, and whether a text names one.

Nothing is opened or imported that takes time: messages and completion need the answer at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pseudohealthy import datasets, models
from pseudohealthy.runs import recipe

SYSTEMS = ("wolleb", "wolleb-classifier", "anoddpm", "thor", "pddpm", "cddpm", "diffusers")
SHELLS = ("bash", "zsh", "fish")

NAMES: dict[str, Callable[[], list[str]]] = {
    "run": models.names,
    "recipe": recipe.names,
    "dataset": lambda: sorted(datasets.REGISTRY),
    "system": lambda: list(SYSTEMS),
    "shell": lambda: list(SHELLS),
}
NOUNS = {"run": "run", "recipe": "recipe", "dataset": "data set", "system": "system"}


def names(kind: str) -> list[str]:
    """The names of everything of a kind that comes along; none where it has no names."""
    return NAMES[kind]() if kind in NAMES else []


def is_one(kind: str, text: str) -> bool:
    """Whether the text names one of a kind that can be told: a run, a recipe, a data set."""
    path = Path(text)
    if kind == "run":
        return (path / "recipe.toml").is_file() or text in models.names()
    if kind == "recipe":
        return text in recipe.names() or (text.endswith(".toml") and path.is_file())
    return text in names(kind)
