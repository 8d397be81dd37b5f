"""The notebooks are whole, were run top to bottom, need nothing that the package does not need, and
run again."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDED = {"pseudohealthy", "numpy", "matplotlib", "PIL", "nibabel"}  # beside the standard library
MOST = 300_000  # bytes, pictures and all


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def code(path: Path) -> list[dict]:
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of all that is imported."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_both_notebooks_are_there():
    assert {path.stem for path in NOTEBOOKS} == {"splotch", "scan_to_anomaly"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_a_notebook_of_python_that_imports_only_what_the_package_needs(path):
    notebook = read(path)
    assert notebook["nbformat"] == 4 and notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["cells"][0]["cell_type"] == "markdown" and "Research use only" in source(
        notebook["cells"][0]
    )
    foreign = (
        imported(ast.parse("\n".join(map(source, code(path)))))
        - NEEDED
        - set(sys.stdlib_module_names)
    )
    assert foreign == set()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_was_stored_after_a_run_from_top_to_bottom_and_is_small(path):
    cells = code(path)
    if not any(cell["execution_count"] for cell in cells):
        pytest.skip("stored without having been run: python notebooks/run.py")
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert outputs and all(
        one["output_type"] != "error" and one.get("name") != "stderr" for one in outputs
    )
    assert any("image/png" in one.get("data", {}) for one in outputs)
    assert path.stat().st_size < MOST


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path):
    """nbclient raises where a cell does; the stored notebook stays as it is."""
    for name in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(
            name, reason=f"{name} is not installed: pip install 'pseudohealthy[docs]'"
        )
    spec = importlib.util.spec_from_file_location("notebook_runner", FOLDER / "runs/run.py")
    assert spec is not None and spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    cells = [cell for cell in runner.executed(path).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
