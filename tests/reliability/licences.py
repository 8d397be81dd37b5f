"""``python tests/reliability/licences.py [--write PAGE]``: every dependency with its licence; exit
1 for one that does not fit.

Apache-2.0 software may depend on permissive and weak-copyleft (MPL, LGPL) packages; one under GPL
or AGPL alone would bind whoever passes the whole on. Licences are what the installed packages say
of themselves.
"""

from __future__ import annotations

import re
import sys
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STRONG = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public License", re.I)
WEAK = re.compile(r"LGPL|Lesser General Public", re.I)
EXCEPTION = re.compile(r"exception|linking", re.I)
HEAD = """# Licences

pseudohealthy is Apache-2.0. What it needs, directly and through others, with the licence each
installed package states of itself; `make licences PAGE=docs/licences.md` writes this page, and a
test fails on anything under GPL or AGPL alone. needs: always; `[hub]`, `[track]`: only with that
extra; `[dev]`: to test and develop, never passed on.
"""


@dataclass(frozen=True)
class Dependency:
    name: str
    version: str
    licence: str  # empty: the package does not say
    needed: str  # "needs" or "[extra]"
    installed: bool = True

    @property
    def fits(self) -> bool:
        return not self.installed or (bool(self.licence) and not gpl_only(self.licence))


def gpl_only(licence: str) -> bool:
    """Whether no alternative of "A OR B" is free of the GPL; one with a linking exception counts as
    free."""
    choices = re.split(r"\s+or\s+|;|/", licence, flags=re.I)
    return all(STRONG.search(WEAK.sub("", c)) and not EXCEPTION.search(c) for c in choices)


STATED = {"atheris": "Apache-2.0"}  # in its LICENSE file only


def licence_of(found: metadata.PackageMetadata) -> str:
    """The SPDX expression, else the classifiers, else the first line of the free text."""
    if found.get("License-Expression"):
        return found["License-Expression"]
    classifiers = [
        c.split(" :: ")[-1]
        for c in found.get_all("Classifier") or []
        if c.startswith("License :: ")
    ]
    classifiers = [c for c in classifiers if c != "OSI Approved"]
    text = (found.get("License") or "").strip()
    first = text.splitlines()[0].strip() if text else ""
    return "; ".join(classifiers) or first[:80] or STATED.get(found["Name"].lower(), "")


def dependencies() -> list[Dependency]:
    """Of pyproject.toml, walked through the metadata of what is installed; alphabetical, each once,
    needs before extras."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"needs": project["dependencies"]}
    groups |= {f"[{extra}]": words for extra, words in project["optional-dependencies"].items()}
    found: dict[str, Dependency] = {}
    for needed, words in groups.items():
        waiting = [Requirement(word) for word in words]
        seen: set[tuple[str, frozenset[str]]] = set()
        while waiting:
            wanted = waiting.pop()
            name = canonicalize_name(wanted.name)
            if (name, frozenset(wanted.extras)) in seen:
                continue
            seen.add((name, frozenset(wanted.extras)))
            try:
                package = metadata.distribution(wanted.name)
            except metadata.PackageNotFoundError:
                found.setdefault(name, Dependency(name, "", "", needed, installed=False))
                continue
            found.setdefault(
                name, Dependency(name, package.version, licence_of(package.metadata), needed)
            )
            for word in package.requires or ():
                inner = Requirement(word)
                asked = [{"extra": extra} for extra in wanted.extras] or [{"extra": ""}]
                if inner.marker is None or any(inner.marker.evaluate(extra) for extra in asked):
                    waiting.append(inner)
    order = {needed: place for place, needed in enumerate(groups)}
    return sorted(found.values(), key=lambda d: (order[d.needed], d.name))


def page(found: list[Dependency]) -> str:
    lines = [HEAD, "| package | version | licence | for |", "|---|---|---|---|"]
    for d in found:
        licence = (
            (d.licence or "does not say")
            if d.installed
            else "not installed where this page was made"
        )
        lines.append(f"| {d.name} | {d.version} | {licence.replace('|', ' ')} | {d.needed} |")
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    found = dependencies()
    if "--write" in words:
        Path(words[words.index("--write") + 1]).write_text(page(found), encoding="utf-8")
    for d in found:
        print(
            f"{d.name:28} {d.version:14} {d.needed:8}"
            f" {'' if d.fits else 'DOES NOT FIT '}{d.licence if d.installed else '(not installed)'}"
        )
    wrong = [d.name for d in found if not d.fits]
    print(
        f"{len(found)} packages, {len(wrong)} that do not"
        f" fit{': ' + ', '.join(wrong) if wrong else ''}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
