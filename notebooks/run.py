"""``python notebooks/run.py [NOTEBOOK...]``: run notebooks top to bottom and store what they print and draw.

Without names: all of them. Progress (standard error) is not stored. Needs the extra ``docs``.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def executed(path: Path, timeout: int = 1800) -> Any:
    """The notebook after a fresh kernel ran all of it in an empty folder; nbclient's CellExecutionError where a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": empty}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
    return notebook


def main(names: list[str]) -> None:
    import nbformat

    for path in [Path(name) for name in names] or sorted(HERE.glob("*.ipynb")):
        begun = time.monotonic()
        nbformat.write(executed(path), path)
        print(f"{path.name}: {time.monotonic() - begun:.0f} s, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
