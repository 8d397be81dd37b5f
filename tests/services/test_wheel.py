"""The package as others install it: a wheel of what is stored here, alone in an environment that
has what it needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.services
ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.egg-info")


def run(*line: object, cwd: Path) -> str:
    """Standard output of a program that knows nothing of this checkout."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")
    }
    done = subprocess.run(
        [str(word) for word in line],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that no folder of an earlier build is taken along; nothing is
    fetched."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", source / "src", ignore=LEFT_OUT)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return built(source, out)


def built(source: Path, out: Path) -> Path:
    """The wheel of a folder, made with what is installed here."""
    line = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
    ]
    run(sys.executable, *line, out, ".", cwd=source)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Callable[..., str]:
    """Run a program of a fresh environment: the wheel, and below it, by a path file, the packages
    that are pinned here.

    The environment of the tests holds this checkout by a path file of its own, which is not
    followed from there.
    """
    folder, elsewhere = tmp_path_factory.mktemp("fresh"), tmp_path_factory.mktemp("elsewhere")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=elsewhere)
    python = folder / "bin" / "python"
    site = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=elsewhere
        ).strip()
    )
    (site / "pinned.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}) + "\n"
    )
    line = ("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", *line, cwd=elsewhere)
    where = run(
        python, "-P", "-c", "import pseudohealthy; print(pseudohealthy.__file__)", cwd=elsewhere
    ).strip()
    assert Path(where) == site / "pseudohealthy" / "__init__.py", "not the wheel's"
    return lambda program, *words: run(folder / "bin" / program, *words, cwd=elsewhere)


def test_a_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = [
        path.relative_to(ROOT / "src")
        for path in (ROOT / "src" / "pseudohealthy").rglob("*")
        if path.is_file()
    ]
    assert names == {path.as_posix() for path in package if "__pycache__" not in path.parts}


def test_the_program_says_its_version_and_what_it_has(installed):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert installed("pseudohealthy", "--version").split()[-1] == version
    said = json.loads(installed("pseudohealthy", "info", "--json"))
    assert said["version"] == version and said["models"] == ["brain-t1"]
    assert said["recipes"] == sorted(
        path.stem for path in (ROOT / "src/pseudohealthy/recipes").glob("*.toml")
    )


def test_a_picture_is_examined_with_the_model_that_comes_along(installed, tmp_path):
    rows, columns = np.mgrid[-1:1:96j, -1:1:80j]
    head = np.clip(200 * (1 - rows**2 - columns**2), 0, 255) * (
        0.8 + 0.2 * np.cos(9 * rows) * np.cos(7 * columns)
    )
    Image.fromarray(head.astype(np.uint8)).save(tmp_path / "head.png")
    installed(
        "pseudohealthy", "detect", "brain-t1", tmp_path / "head.png", "--out", tmp_path / "found"
    )
    (finding,) = json.loads((tmp_path / "found" / "findings.json").read_text())["findings"]
    assert finding["case_id"] == "head" and finding["score"] > 0 and finding["status"] != "failed"
    with Image.open(tmp_path / "found" / "head" / "pseudo_healthy.png") as healthy:
        assert healthy.size == (80, 96)
    assert {"report.html", "findings.csv"} <= {path.name for path in (tmp_path / "found").iterdir()}
    assert (
        tmp_path / "found" / "head" / "case.html"
    ).stat().st_size > 100_000  # the viewer comes from the wheel


def test_a_package_of_somebody_elses_adds_its_method(installed, tmp_path):
    """The page's method as a wheel of its own: trained and used from the command line, without a
    flag."""
    page = (ROOT / "docs" / "how-to" / "add-a-method.md").read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    method = next(text for kind, text in fences if kind == "python")
    recipe, project = (text for kind, text in fences if kind == "toml")
    source, data = tmp_path / "source", tmp_path / "data"
    source.mkdir()
    (source / "sharpened.py").write_text(method, encoding="utf-8")
    (source / "pyproject.toml").write_text(project, encoding="utf-8")
    wheel = built(source, tmp_path / "wheels")
    (tmp_path / "r.toml").write_text(recipe.replace('plugin = "sharpened.py"\n', ""))
    python = installed("python", "-c", "import sys; print(sys.executable)").strip()
    line = ("--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", *line, cwd=tmp_path)
    assert "sharpened" in json.loads(installed("pseudohealthy", "info", "--json"))["restorers"]
    installed("pseudohealthy", "prepare", "digits", ".", "--out", data, "--quiet")
    line = ("--data", data, "--out", tmp_path / "run", "--steps", "3", "--quiet")
    installed("pseudohealthy", "train", tmp_path / "r.toml", *line)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["plugins"][0]["name"] == "sharpened 1.0"
    image = next((data / "splotched").glob("*.png"))
    installed("pseudohealthy", "detect", tmp_path / "run", image, "--out", tmp_path / "found")
    assert (tmp_path / "found" / "findings.csv").is_file()
