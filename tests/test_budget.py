"""What starting the program costs, and what it may not need."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

HEAVY = {
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "skimage",
    "matplotlib",
    "nibabel",
    "pydicom",
    "highdicom",
    "PIL",
}


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fastest(*line: str, times: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    best = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *line], stdout=subprocess.DEVNULL, check=True)
        best = min(best, time.perf_counter() - begun)
    return best


busy = pytest.mark.skipif(os.getloadavg()[0] > (os.cpu_count() or 1), reason="the machine is busy: times mean nothing")


@busy
def test_help_answers_within_half_a_second():
    assert fastest("-m", "pseudohealthy", "--help") < 0.5


@busy
def test_importing_the_package_costs_next_to_nothing():
    assert fastest("-c", "import pseudohealthy") - fastest("-c", "pass") < 0.15


def loaded(code: str) -> set[str]:
    return set(python(f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})").split())


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["train", "--help"], ["prepare", "--help"], ["recipes"], ["--version"], ["completion", "bash"]],
)
def test_asking_for_help_or_the_recipes_imports_nothing_heavy(arguments):
    found = loaded(f"import io\nfrom pseudohealthy.__main__ import main\nout, sys.stdout = sys.stdout, io.StringIO()\n"
                   f"assert main({arguments!r}) == 0\nsys.stdout = out")  # fmt: skip
    assert not found & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [["trian"], ["train", "--dta"], ["detect"], ["detect", "x", "brain-t1"], ["detect", "r", "", "--out", "o"]],
)
def test_a_usage_error_imports_nothing_heavy(arguments):
    found = loaded(f"import io\nfrom pseudohealthy.__main__ import main\nerr, sys.stderr = sys.stderr, io.StringIO()\n"
                   f"assert main({arguments!r}) == 2\nsys.stderr = err")  # fmt: skip
    assert not found & HEAVY


def test_import_pseudohealthy_imports_nothing_heavy():
    assert not loaded("import pseudohealthy") & HEAVY


def test_every_public_name_is_there():
    import pseudohealthy

    for name in pseudohealthy.__all__:
        assert getattr(pseudohealthy, name) is not None
    assert set(pseudohealthy.__all__) <= set(dir(pseudohealthy))
    with pytest.raises(AttributeError):
        pseudohealthy.nothing  # noqa: B018


def test_training_and_restoring_need_no_image_format_and_no_command_line():
    python(
        """
import sys, importlib
for blocked in ("nibabel", "pydicom", "highdicom"):
    sys.modules[blocked] = None
from pseudohealthy.restorers import WHERE, restorer_class
for name in WHERE:
    restorer_class(name)
for module in ("training.loop", "training.finish", "training.validation", "diffusion", "networks", "detection.detector"):
    importlib.import_module(f"pseudohealthy.{module}")
"""
    )
