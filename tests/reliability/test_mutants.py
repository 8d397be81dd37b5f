"""The list of mutations fits the code it mutates; `make mutants` runs it."""

from __future__ import annotations

import sys

import pytest

from reliability.mutants import MUTANTS, ROOT, main


@pytest.mark.parametrize("name", MUTANTS)
def test_the_line_to_mutate_is_there_once_and_so_are_its_tests(name):
    mutant = MUTANTS[name]
    assert (ROOT / "src" / "pseudohealthy" / mutant.file).read_text().count(mutant.old) == 1
    assert (ROOT / mutant.tests.split("::")[0]).is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills by signal")
def test_every_mutant_is_caught():
    assert main([]) == 0
