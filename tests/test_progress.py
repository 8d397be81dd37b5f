"""Progress says how far and how long: a bar on a terminal, a line now and then elsewhere, nothing
when quiet."""

from __future__ import annotations

import io

import pytest

from pseudohealthy import progress
from pseudohealthy.errors import Fault
from pseudohealthy.progress import Progress, duration, say, say_error, tell, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.34, "0.3 s"),
        (9.96, "10 s"),
        (45, "45 s"),
        (99.6, "2 min"),
        (12 * 60 + 20, "12 min"),
        (3599, "1 h"),
        (9720, "2 h 42 min"),
        (9600, "2 h 40 min"),
        (47 * 3600, "47 h"),
        (76 * 3600, "3 d 4 h"),
        (72 * 3600, "3 d"),
    ],
)
def test_times_are_told_as_people_do(seconds, said):
    assert duration(seconds) == said


def test_without_a_terminal_a_line_comes_when_its_time_has_come(clock, capsys):
    with Progress("training", 100) as bar:
        clock[0] = progress.every - 1
        bar.advance(9)
        assert capsys.readouterr().err == ""
        clock[0] = progress.every + 5
        bar.advance(16, note="loss 0.1")
        bar.advance()  # not again at once
    out, err = capsys.readouterr()
    assert err == "training: 25/100, about 75 s left loss 0.1\n" and out == ""


def test_a_program_that_listens_is_told_as_data(clock, capsys, monkeypatch):
    told: list[dict] = []
    monkeypatch.setattr(progress, "sink", told.append)
    with Progress("detecting", 8) as bar:
        bar.advance()  # too early
        clock[0] = 30.0
        bar.advance(2, note="head")
    tell(beside="a table")
    say("news")
    say_error(Fault("TRUNCATED", "half a file", "copy it again", case="a"))
    assert told == [
        {"doing": "detecting", "done": 3, "total": 8, "seconds_left": 50.0},
        {"beside": "a table"},
        {"error": "error[TRUNCATED] case=a: half a file; copy it again"},
    ]
    assert capsys.readouterr().err.splitlines()[1:] == ["news", told[-1]["error"]]


def test_the_estimate_of_a_resumed_run_counts_only_what_was_done_since(clock, capsys):
    with Progress("training", 100, start=80) as bar:
        clock[0] = 30.0
        bar.to(90)
    assert "90/100, about 30 s left" in capsys.readouterr().err


def test_nothing_done_yet_is_no_division_by_zero(clock, capsys):
    with Progress("training", 10) as bar:
        clock[0] = 60.0
        bar.advance(0)
    assert "0/10, about 0 s left" in capsys.readouterr().err


def test_quiet_leaves_errors_only(clock, capsys, monkeypatch):
    monkeypatch.setattr(progress, "quiet", True)
    with Progress("training", 10) as bar:
        clock[0] = 60.0
        bar.advance(5)
    say("news")
    say("bad news", error=True)
    assert capsys.readouterr().err == "bad news\n"


def test_a_terminal_gets_a_bar_that_reaches_its_end(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    assert list(track(iter("abc"), "reading", 3)) == ["a", "b", "c"]
    assert "reading" in screen.getvalue() and "3/3" in screen.getvalue()
