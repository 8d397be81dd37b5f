"""Nothing that is passed on with the package is under GPL or AGPL alone, and every dependency
states its licence."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata

import pytest

from reliability.licences import ROOT, dependencies, gpl_only


def test_every_installed_dependency_states_a_licence_that_fits():
    found = dependencies()
    assert {"torch", "numpy", "pydicom", "nibabel"} <= {
        d.name for d in found if d.needed == "needs"
    }
    assert [f"{d.name}: {d.licence or 'does not say'}" for d in found if not d.fits] == []
    assert all(d.installed for d in found if d.needed == "needs")


def plain(requirement: str) -> str:
    """The name alone, as registries write it."""
    return re.split(r"[>=\[; ]", requirement)[0].lower().replace("_", "-")


def test_what_is_always_needed_is_what_the_source_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        word
        for extra, words in project["optional-dependencies"].items()
        if extra != "dev"
        for word in map(plain, words)
    }
    needs = set(map(plain, project["dependencies"]))
    packages, imported = metadata.packages_distributions(), set[str]()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    imported -= {*sys.stdlib_module_names, "pseudohealthy"}
    named = {plain(packages.get(name, [name])[0]) for name in imported}
    assert needs - named <= {"python-gdcm"}, "which pydicom asks for"
    # jinja2's own; a door to .xls that a message names
    assert named - needs - extras <= {"markupsafe", "xlrd"}


@pytest.mark.parametrize(
    "licence, wrong",
    [
        ("MIT", False),
        ("GPL-3.0-only", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("AGPL-3.0-or-later", True),
        ("GPL-2.0-only OR MIT", False),
        ("LGPL-3.0-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("BSD License; Apache Software License", False),
        ("MPL-2.0", False),
    ],
)
def test_what_counts_as_gpl_only(licence, wrong):
    assert gpl_only(licence) == wrong
