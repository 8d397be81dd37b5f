"""Imports inside functions, and modules that tables name: where they may be, and why.

Everything else is imported at the head of its file, where `lint-imports` sees it.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pseudohealthy

SOURCE = Path(pseudohealthy.__file__).parent
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
FILES = {path.relative_to(SOURCE).as_posix(): path for path in sorted(SOURCE.rglob("*.py"))}

# Rooms and files that answer at once, and import what a command needs when it is given
ROOMS = ("commands/", "workflows/", "__main__.py", "cli.py", "__init__.py", "restorers/__init__.py")
# Module -> the extra that brings it
EXTRAS = {
    "huggingface_hub": "hub",
    "mlflow": "track",
    "ray": "ray",
    "torch.utils.tensorboard": "track",
    "uvicorn": "serve",
}
# (file, function, module) -> why not at the head
REASONS = {
    ("datasets/ixi.py", "_table", "xlrd"): "may be missing: the table is read as CSV, too",
    ("design/figures.py", "blank", "matplotlib.figure"): ".5 s of training, inspect and evaluate,"
    " which may end before they draw",
    ("detection/domain.py", "grouped", "scipy.cluster.vq"): ".2 s of every detection, for what a"
    " training does once",
    ("io/dicom_pixels.py", "_gdcm", "gdcm"): "may be missing, which CODEC says",
    ("io/mask.py", "_at_edges", "scipy"): "doubles what `import pseudohealthy.io` takes, for some"
    " masks",
    ("io/read.py", "_nearest", "scipy"): "as in io/mask.py",
    ("progress.py", "__init__", "rich.console"): "below everything, and on a terminal alone",
    ("progress.py", "__init__", "rich.progress"): "as rich.console",
    ("report/case_volumes.py", "nifti64", "nibabel.nifti1"): "pages of pictures do without a"
    " format's library",
    ("runs/recipe.py", "_no_memory", "torch"): "recipes are listed and checked without it",
    ("serve/server.py", "serve", "pseudohealthy.serve"): "needs the extra serve, whose absence is"
    " said first",
    ("serve/server.py", "serve", "pseudohealthy.serve.app"): "as pseudohealthy.serve",
}
# Files that import what a table names, each with its table
TABLES = {
    "data/folders.py": "FORMATS",
    "detection/outputs.py": "OUTPUTS",
    "evaluation/protocols/__init__.py": "PROTOCOLS",
    "io/discover.py": "FORMATS",
    "io/objects.py": "its readers of other libraries' images",
    "io/read.py": "FORMATS",
    "io/write.py": "FORMATS",
    "registry.py": "whatever registers",
    "runs/recipe.py": "CLASSES",
}
# Others that call importlib: the helper, what is added from outside, lazy packages, and a test for
# the extra serve
DYNAMIC = {"lazy.py", "registry.py", "__init__.py", "serve/server.py"}
# Names of a table that lie above it: writers that draw
UPWARD = {"report.panel:save", "report.case_page:save"}


def inside(tree: ast.AST, function: str = "") -> Iterator[tuple[str, str]]:
    """(function, module) of every import in a function's body."""
    for node in ast.iter_child_nodes(tree):
        if function and isinstance(node, ast.Import):
            yield from ((function, alias.name) for alias in node.names)
        elif function and isinstance(node, ast.ImportFrom):
            yield function, "." * node.level + (node.module or "")
        named = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from inside(node, node.name if named else function)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


FOUND = {
    (file, *place)
    for file, path in FILES.items()
    if not file.startswith(ROOMS[:2]) and file not in ROOMS
    for place in inside(parsed(path))
}


def test_an_import_is_inside_a_function_only_for_an_extra_or_a_reason_that_is_written_down():
    assert not {place for place in FOUND - REASONS.keys() if place[2] not in EXTRAS}


def test_no_reason_is_left_over_and_every_extra_is_one():
    assert not REASONS.keys() - FOUND
    assert EXTRAS.keys() <= {module for _, _, module in FOUND}
    assert set(EXTRAS.values()) <= PROJECT["project"]["optional-dependencies"].keys()


def test_imports_are_found_wherever_they_stand_in_a_function():
    code = """
import a
try:
    import b
except ImportError:
    b = None
class C:
    import c
    def m(self):
        try:
            import d.e, f
        except ImportError:
            from .g import h
    async def n(self):
        def o():
            with x: from i import j
"""
    found = {("m", "d.e"), ("m", "f"), ("m", ".g"), ("o", "i")}
    assert set(inside(ast.parse(code))) == found


def called(tree: ast.AST) -> set[str]:
    """The names of what is called."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {getattr(func, "attr", getattr(func, "id", "")) for func in calls}


def test_modules_are_imported_by_name_in_one_helper_and_for_these_tables_alone():
    calls = {file: called(parsed(path)) for file, path in FILES.items()}
    importing = {"import_module", "__import__"}
    assert {file for file, names in calls.items() if names & importing} == DYNAMIC
    assert {file for file, names in calls.items() if "lazy" in names} == TABLES.keys()


def layer(name: str) -> int:
    """How far down a room stands in pyproject's contract, 0 the highest."""
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    return next(n for n, row in enumerate(layers) if name in re.split(r"\W+", row))


def named_in(tree: ast.AST) -> set[str]:
    """Strings "module:name" of modules there are."""
    texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    words = (text for text in texts if isinstance(text, str) and re.fullmatch(r"[\w.]+:\w+", text))
    return {text for text in words if text.split(":")[0].replace(".", "/") + ".py" in FILES}


NAMES = [(file, name) for file, path in FILES.items() for name in sorted(named_in(parsed(path)))]


@pytest.mark.parametrize("name", sorted({name for _, name in NAMES}))
def test_what_a_table_names_is_there(name):
    module, function = name.split(":")
    tree = parsed(FILES[module.replace(".", "/") + ".py"])
    assert function in {getattr(node, "name", "") for node in tree.body}


def test_what_a_table_names_lies_below_it_but_for_the_writers_that_draw():
    # FORMATS stands at the root because help lists it, and is asked by io
    above = {
        name
        for file, name in NAMES
        if file != "formats.py"
        and layer(name.split(".")[0]) < layer(file.split("/")[0].removesuffix(".py"))
    }
    assert above == UPWARD
    assert {name.split(".")[0] for file, name in NAMES if file == "formats.py"} == {"io"}
