"""The coverage-guided fuzzer runs, learns, notices, and finds nothing."""

from __future__ import annotations

import pytest

from fuzz import drive

needs_atheris = pytest.mark.skipif(
    not drive.available(), reason="atheris is not installed (the extra `fuzz`)"
)


@pytest.mark.slow
@needs_atheris
@pytest.mark.parametrize("target", drive.TARGETS)
def test_twenty_seconds_of_fuzzing_find_nothing(target):
    found = drive.fuzz(target, 20)
    assert found.crash is None, found.log[-3000:]
    assert found.executions > 5 and found.coverage > 50


@pytest.mark.slow
@needs_atheris
def test_a_defect_is_found_and_kept(tmp_path, monkeypatch):
    """A reader that fails at any input: the fuzzer says so and keeps the input."""
    (tmp_path / "sitecustomize.py").write_text(
        "import tomllib\n\ndef loads(text, **_):\n    raise KeyError(text)\n\ntomllib.loads ="
        " loads\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = drive.fuzz("recipe", 5, corpus=tmp_path / "corpus")
    assert found.crash is not None and found.crash.is_file() and "KeyError" in found.log
