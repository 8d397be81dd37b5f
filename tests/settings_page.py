"""docs/settings.md, written from the signatures: ``PYTHONPATH=src python tests/settings_page.py >
docs/settings.md``."""

from __future__ import annotations

from typing import Any

from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.marks import words
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers import REGISTRY, restorer_class
from pseudohealthy.runs.budget import Budget
from pseudohealthy.runs.recipe import toml_value
from pseudohealthy.settings import default_of, hidden_in, hints, is_table, settable, tables

TOP = """# Every setting and what it takes

A recipe is a TOML file of four tables; `--set SECTION.KEY=VALUE` changes any setting of it, and
`pseudohealthy recipes NAME` prints a recipe with all of these beside their values. A value that a
setting does not take is refused by name, with what it does take, before any data are read (exit 2);
so are settings that do not fit one another, such as a patch larger than the canvas. `preprocess` in
[canvas] stands for [published settings](preprocessing.md). What each one means stands in the
docstring of its class, named here, and on the page of its method. A setting of a table within
[restorer] is given as `--set restorer.walk.draws=4`. The names that settings of a method had in
version 0.1, such as `restorer.draws`, are still taken. This page is written from the signatures by
`tests/settings_page.py`.
"""


def page() -> str:
    """The whole page."""
    text, found = TOP, {}
    for section, cls in (("canvas", Canvas), ("training", Budget), ("map", AnomalyMap)):
        text += f"\n## [{section}]: {cls.__name__}\n\n{table(cls)}"
    text += "\n## [restorer]: name, and the settings of that method\n"
    for name in REGISTRY:
        cls = restorer_class(name)
        text += f"\n### {name}\n\n" + (table(cls) or "No settings.\n")
        gather(cls, found)
    text += "\n## Tables within [restorer]\n"
    for name in sorted(found):
        text += f"\n### {name}\n\n{table(found[name])}"
    return text


def gather(cls: Any, found: dict[str, Any]) -> None:
    """All classes whose signature is a table, by their names."""
    for key, inner in tables(cls).items():
        if key in settable(cls):
            found[inner.__name__] = inner
            gather(inner, found)


def table(cls: Any) -> str:
    """One row a setting; empty where there is none."""
    nested, rows = tables(cls), []
    for key, parameter in settable(cls).items():
        if key in nested:
            rows.append(f"| `{key}` | {differing(cls, key)} | {linked(cls, key)} |")
        else:
            default = "" if parameter.default is None else f"`{toml_value(parameter.default)}`"
            rows.append(f"| `{key}` | {default} | {words(hints(cls.__init__)[key])} |")
    return (
        "\n".join(["| setting | default | takes |", "|---|---|---|", *rows]) + "\n" if rows else ""
    )


def differing(cls: Any, key: str) -> str:
    """What the method gives a table that is not the table's own default."""
    inner, hidden = tables(cls)[key], hidden_in(cls, key)
    own = {name: parameter.default for name, parameter in settable(inner).items()}
    given = default_of(cls, key)
    return "; ".join(
        f"`{name} = {toml_value(value)}`"
        for name, value in given.items()
        if value != own[name] and name not in hidden and not is_table(hints(inner.__init__)[name])
    )


def linked(cls: Any, key: str) -> str:
    """Where the settings of a table stand, and which of them the method dictates."""
    inner, hidden = tables(cls)[key], hidden_in(cls, key)
    without = [f"`{name}`" for name in settable(inner) if name in hidden]
    link = f"a table, see [{inner.__name__}](#{inner.__name__.lower()})"
    return link + (f"; not {', '.join(without)}" if without else "")


if __name__ == "__main__":
    print(page(), end="")
