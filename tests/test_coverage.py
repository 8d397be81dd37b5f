"""The five documents, row by row: every difference is said where its row points, and every command
can be given."""

from __future__ import annotations

import shlex

import pytest

from coverage_page import ROOT, page, rows
from pseudohealthy.cli import parse

ROWS = rows()
OPEN: set[str] = set()


def test_no_row_is_missing_and_none_is_done_in_part():
    assert [row["row"] for row in ROWS] == [str(number) for number in range(1, 144)]
    assert {row["row"] for row in ROWS if row["verdict"] == "not measured yet"} == OPEN
    assert {row["verdict"] for row in ROWS} <= {"exactly", "differently", "not measured yet"}


def test_the_page_is_written_from_the_rows():
    assert (ROOT / "docs" / "coverage.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["verdict"] != "exactly"], ids=lambda row: row["row"]
)
def test_a_difference_is_said_where_the_row_points(row):
    name, _, words = row["said"].partition("#")
    assert words and words in (ROOT / name).read_text(encoding="utf-8")


COMMANDS = sorted({row["command"] for row in ROWS if row["command"]})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_can_be_given(line):
    program, *words = shlex.split(line)
    assert program == "pseudohealthy"
    parse(words)


@pytest.mark.parametrize("line", [line for line in COMMANDS if " recipes " in line])
def test_a_recipe_is_printed(line, capsys):
    from pseudohealthy.__main__ import main

    assert main(shlex.split(line)[1:]) == 0 and "[restorer]" in capsys.readouterr().out


def test_commands_of_the_pages_stand_there():
    """All but those with stand-ins (RUN, DATA, SOURCE, DIR) and of a recipe are lines of a page,
    which other tests run."""
    pages = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (ROOT / "docs").rglob("*.md")
        if path.name != "coverage.md"
    )
    plain = [
        c
        for c in COMMANDS
        if not {"RUN", "DATA", "SOURCE"} & set(shlex.split(c)) and " recipes " not in c
    ]
    assert not [line for line in plain if line not in pages]
