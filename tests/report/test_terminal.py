"""Tables for people stay whole for programs: no line is torn where there is no terminal."""

from __future__ import annotations

import sys

from rich.text import Text

from pseudohealthy.report.terminal import columns, text

LONG = "a/path/that/is/" + "long/" * 60 + "case[0] :tada:"


def test_columns_stand_below_one_another_without_lines_or_spaces_at_the_end():
    said = text(columns([("a", "12", "x"), ("bcd", "3", "")], ("name", "n", ""), right=(1,)))
    assert said.splitlines() == ["name   n", "a     12  x", "bcd    3"]
    assert text(columns([("a", "b")])) == "a  b"


def test_nothing_is_torn_or_taken_for_a_mark_where_there_is_no_terminal():
    said = text("first", columns([("[bold]a", LONG)]), f"  {LONG}")
    assert said.splitlines() == ["first", f"[bold]a  {LONG}", f"  {LONG}"]


def test_a_terminal_gets_its_width_and_loses_no_letter(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    lines = text(columns([("name", LONG)]), LONG).splitlines()
    assert lines[-1] == LONG, "a text is not wrapped: it may be a command to copy"
    assert max(map(len, lines[:-1])) <= 40 and len(lines) > 5
    assert "".join("".join(line[6:] for line in lines[:-1]).split()) == "".join(LONG.split())


def test_styles_are_for_terminals_alone(monkeypatch):
    assert text(Text("bold", style="bold")) == "bold"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert text(Text("bold", style="bold")) == "\x1b[1mbold\x1b[0m"
