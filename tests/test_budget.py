"""What starting the program costs, and what it may not need."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

import pseudohealthy

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
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_seconds(*line: str, times: int = 3) -> float:
    """Of the processor, by the leanest of some runs: what others do on the machine counts for
    little.

    Seconds by the clock are in benchmarks/speed/startup.py.
    """
    best = float("inf")
    for _ in range(times):
        before = spent()
        subprocess.run([sys.executable, *line], stdout=subprocess.DEVNULL, check=True)
        best = min(best, spent() - before)
    return best


def test_help_takes_less_than_half_a_second_of_the_processor():
    assert cpu_seconds("-m", "pseudohealthy", "--help") < 0.5


def test_importing_the_package_costs_next_to_nothing():
    assert cpu_seconds("-c", "import pseudohealthy") - cpu_seconds("-c", "pass") < 0.1


def test_the_measure_sees_an_import_that_costs():
    assert cpu_seconds("-c", "import numpy", times=1) > cpu_seconds("-c", "pass", times=1) + 0.02


def loaded(code: str) -> set[str]:
    """The packages that are imported after some code."""
    return {name.partition(".")[0] for name in modules(code)}


def modules(code: str) -> set[str]:
    return set(python(f"import sys\n{code}\nprint(*sys.modules)").split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["prepare", "--help"],
        ["recipes"],
        ["--version"],
        ["completion", "bash"],
    ],
)
def test_asking_for_help_or_the_recipes_imports_nothing_heavy(arguments):
    found = loaded(
        "import io\nfrom pseudohealthy.__main__ import main\nout, sys.stdout = sys.stdout,"
        f" io.StringIO()\nassert main({arguments!r}) == 0\nsys.stdout = out"
    )
    assert not found & HEAVY


@pytest.mark.parametrize(
    "arguments",
    [
        ["trian"],
        ["train", "--dta"],
        ["detect"],
        ["detect", "x", "brain-t1"],
        ["detect", "r", "", "--out", "o"],
    ],
)
def test_a_usage_error_imports_nothing_heavy(arguments):
    found = loaded(
        "import io\nfrom pseudohealthy.__main__ import main\nerr, sys.stderr = sys.stderr,"
        f" io.StringIO()\nassert main({arguments!r}) == 2\nsys.stderr = err"
    )
    assert not found & HEAVY


def test_import_pseudohealthy_imports_itself_and_its_version_alone():
    new = modules("import pseudohealthy") - modules("import typing, importlib")
    assert {name for name in new if name not in sys.stdlib_module_names} == {
        "pseudohealthy",
        "pseudohealthy.version",
    }


@pytest.mark.parametrize("name", pseudohealthy.__all__)
def test_every_public_name_is_there_and_is_called_so(name):
    value = getattr(pseudohealthy, name)
    assert name == "__version__" or (
        value.__name__ == name and value.__module__.startswith("pseudohealthy.")
    )


def test_names_are_listed_before_they_are_imported_and_listing_imports_nothing():
    said = python(
        "import sys, pseudohealthy\nprint(*dir(pseudohealthy))\nprint(*sys.modules)"
    ).splitlines()
    assert set(said[0].split()) == set(pseudohealthy.__all__) and len(said[0].split()) > 10
    assert not {name.partition(".")[0] for name in said[1].split()} & HEAVY
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        pseudohealthy.nothing  # noqa: B018


def test_training_and_restoring_need_no_image_format_and_no_command_line():
    python("""
import sys, importlib
for blocked in ("nibabel", "pydicom", "highdicom"):
    sys.modules[blocked] = None
from pseudohealthy.restorers import REGISTRY, restorer_class
for name in REGISTRY:
    restorer_class(name)
parts = "training.loop training.finish training.validation diffusion networks detection.detector"
for module in parts.split():
    importlib.import_module(f"pseudohealthy.{module}")
""")
