"""No text of the program names a flag, a setting or a command that does not exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pseudohealthy
from pseudohealthy.cli import COMMANDS
from pseudohealthy.commands.words import flags_of
from pseudohealthy.maps.anomaly_map import AnomalyMap
from pseudohealthy.preprocessing.canvas import Canvas
from pseudohealthy.restorers import REGISTRY, restorer_class
from pseudohealthy.runs.budget import Budget
from pseudohealthy.settings import settable, tables

SOURCE = Path(pseudohealthy.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b")
SETTING = re.compile(r"(?<![\w./-])(canvas|restorer|training|map)((?:\.[a-z_]+)+)\b(?!\(|:)")
COMMAND = re.compile(r"(?<![\w#] )pseudohealthy ([a-z][a-z-]+)")
FOREIGN = {
    "--raw": "of gdcmconv",
    "--porcelain": "of git",
    "--flag": "any, in docs/commands.md",
    "--no": "a prefix",
}
MODULES = {"training.loop"}  # a name of Python, not a setting


def texts_of_source() -> Iterator[tuple[str, str]]:
    """(place, text) of every text that is no docstring."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in documentation
            ):
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node.value


FLAGS = {flag for cls in COMMANDS.values() for flag in flags_of(cls)} | {"--help", "--version"}


def keys(cls: Any, section: str) -> set[str]:
    """Every setting of a class, those of its nested tables included."""
    nested = tables(cls)
    found = {f"{section}.{key}" for key in settable(cls)} | {f"{section}.{key}" for key in nested}
    return found.union(*(keys(inner, f"{section}.{key}") for key, inner in nested.items()))


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    return list(texts_of_source())


@pytest.fixture(scope="module")
def settings() -> set[str]:
    found = {"restorer.name"}.union(*(keys(restorer_class(name), "restorer") for name in REGISTRY))
    named = (Canvas, "canvas"), (Budget, "training"), (AnomalyMap, "map")
    return found.union({"canvas.preprocess"}, *(keys(cls, section) for cls, section in named))


def test_there_are_texts_to_look_at(texts):
    assert len(texts) > 3000 and any("--threshold" in text for _, text in texts)


def test_every_flag_that_is_named_exists(texts):
    named = {(place, flag) for place, text in texts for flag in FLAG.findall(text)}
    assert {found for found in named if found[1] not in FLAGS and found[1] not in FOREIGN} == set()


def test_every_setting_that_is_named_exists(texts, settings):
    named = {
        (place, "".join(found.groups()))
        for place, text in texts
        for found in SETTING.finditer(text)
    }
    assert {found for found in named if found[1] not in settings | MODULES} == set()
    assert len(named) > 20


def test_every_command_that_is_named_exists(texts):
    named = {(place, word) for place, text in texts for word in COMMAND.findall(text)}
    words = {*COMMANDS, "anomaly", "for", "pseudohealthy"}  # a DICOM label; in scripts of shells
    assert {found for found in named if found[1] not in words} == set()


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("use --presision fp32", True),
        ("add --overwrite", False),
        ("set restorer.stepz=1", True),
        ("map.smooth = 1", False),
    ],
)
def test_a_wrong_name_would_be_found(settings, text, wrong):
    flags = [flag for flag in FLAG.findall(text) if flag not in FLAGS]
    keys_ = [
        m
        for m in ("".join(found.groups()) for found in SETTING.finditer(text))
        if m not in settings
    ]
    assert bool(flags or keys_) == wrong
