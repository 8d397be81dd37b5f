"""The commands of the repository: what runs everywhere, and what is asked of programs of others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outside import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def recipe(target: str) -> str:
    """The lines that make runs for a target."""
    found = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)+)", MAKEFILE, flags=re.MULTILINE)
    assert found, f"no target {target}"
    return found[1]


def test_continuous_integration_checks_tests_and_asks_others():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make")] == [
        "make check",
        "make test",
        "make test-services",
    ]
    assert "set -euo pipefail" in lines
    for line in lines[lines.index("make check") :]:
        assert recipe(line.removeprefix("make "))


def test_the_suite_asks_nobody_else_and_every_command_lists_what_it_skips():
    assert " -m" not in recipe("test"), "what is left out stands in pyproject.toml"
    (options,) = re.findall(
        r'^addopts = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE
    )
    assert "-m 'not slow and not services'" in options and "-rfEs" in options.split()
    assert "-m services" in recipe("test-services")


def test_pages_and_code_name_targets_that_are_there():
    places = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "benchmarks").rglob("*.py"),
    ]
    named = {
        (target, path.name)
        for path in places
        if path.name != "CHANGELOG.md"  # tells of what was
        for target in re.findall(
            r"(?:`|^|^\$ )make ([a-z][a-z-]*)\b", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    targets = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, flags=re.MULTILINE))
    assert sorted(pair for pair in named if pair[0] not in targets) == []
    assert {target for target, _ in named} >= {
        "demo",
        "check",
        "test",
        "test-services",
        "bench",
        "mutants",
    }


def test_services_end_within_half_an_hour():
    limit, session = map(
        int, re.findall(r"timeout (\d+)", recipe("test-services").splitlines()[-1])
    )
    assert limit + session <= 30 * 60


@pytest.mark.parametrize(
    "package", sorted({what.split()[-1] for what in PACKAGES.values() if what.startswith("pip ")})
)
def test_what_pip_can_give_is_asked_of_it(package):
    (asked,) = re.findall(r"^OUTSIDE := (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert package in re.findall(r"[\w-]+", asked)
