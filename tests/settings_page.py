"""docs/settings.md, written from the signatures: ``PYTHONPATH=src python tests/settings_page.py > docs/settings.md``."""

from __future__ import annotations

from typing import Any

from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers import WHERE, restorer_class
from pseudohealthy.runs.budget import Budget
from pseudohealthy.runs.recipe import toml_value
from pseudohealthy.settings import hints, settable, words

TOP = """# Every setting and what it takes

A recipe is a TOML file of four tables; `--set SECTION.KEY=VALUE` changes any setting of it, and `pseudohealthy recipes NAME`
prints a recipe with all of these beside their values. A value that a setting does not take is refused by name, with what
it does take, before any data are read (exit 2); so are settings that do not fit one another, such as a patch larger than the
canvas. `preprocess` in [canvas] stands for [published settings](preprocessing.md). What each one means stands in the docstring of its class, named here, and on the page of its method. This page is
written from the signatures by `tests/settings_page.py`.
"""


def page() -> str:
    """The whole page."""
    text, networks = TOP, {}
    for section, cls in (("canvas", Canvas), ("training", Budget), ("map", AnomalyMap)):
        text += f"\n## [{section}]: {cls.__name__}\n\n{table(cls)}"
    text += "\n## [restorer]: name, and the settings of that method\n"
    for name in WHERE:
        cls = restorer_class(name)
        text += f"\n### {name}\n\n" + (table(cls) or "No settings.\n")
        networks |= {network.__name__: network for network in cls.nested.values()}
    text += "\n## Networks: [restorer.network] and the like\n"
    for name in sorted(networks):
        text += f"\n### {name}\n\n{table(networks[name])}"
    return text


def table(cls: Any) -> str:
    """One row a setting; empty where there is none."""
    nested, rows = getattr(cls, "nested", {}), []
    for key, parameter in settable(cls).items():
        if key in nested:
            rows.append(f"| `{key}` | | a table, see [{nested[key].__name__}](#{nested[key].__name__.lower()}) |")
        else:
            default = "" if parameter.default is None else f"`{toml_value(parameter.default)}`"
            rows.append(f"| `{key}` | {default} | {words(hints(cls.__init__)[key])} |")
    return "\n".join(["| setting | default | takes |", "|---|---|---|", *rows]) + "\n" if rows else ""


if __name__ == "__main__":
    print(page(), end="")
