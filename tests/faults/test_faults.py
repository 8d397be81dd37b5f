"""Every row of the fault table, scored: none may fall below what it has reached, and none may do
harm."""

from __future__ import annotations

import pytest

from faults.scoring import BEST, Done, Row, Trial, fails, works
from faults.stage import Stage, play, table

pytestmark = pytest.mark.usefixtures("unpainted")

ROWS = table()
# What is not reached yet, with its cause; every other row scores 2.
SHORT: dict[str, int] = {}


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("faults")).build()


@pytest.mark.parametrize(
    "name",
    [name if ROWS[name].quick else pytest.param(name, marks=pytest.mark.slow) for name in ROWS],
)
def test_row(stage: Stage, name: str):
    result = play(ROWS[name], stage)
    assert result.score >= SHORT.get(name, BEST), f"{result.row.expected} -> {result.got}"


def test_the_table_has_no_gap():
    numbers: dict[str, list[int]] = {}
    for name in ROWS:
        numbers.setdefault(name[0], []).append(int(name[1:]))
    assert set(numbers) == set("NDPCKRSWVU") and len(ROWS) >= 146
    assert all(sorted(rows) == list(range(1, len(rows) + 1)) for rows in numbers.values())


CLEAR = "error[BAD] case=a: it is broken; mend it\n"


@pytest.mark.parametrize(
    "trial, score",
    [
        (fails(Done(3, err=CLEAR), "BAD"), 2),
        (fails(Done(4, err=CLEAR), "BAD"), 1),  # another exit code
        (fails(Done(3, err=CLEAR), "WORSE"), 1),  # another word
        (fails(Done(3, err="Traceback (most recent call last):"), "BAD"), 1),
        (fails(Done(3, err=CLEAR), "BAD", written=False), 0),  # failed, but a result was written
        (fails(Done(0, out="fine"), "BAD"), 0),
        (fails(Done(None), "BAD"), 0),  # hung
        (works(Done(0, out="WARNED"), "WARNED", right=True), 2),
        (works(Done(0), "WARNED", right=True), 1),
        (works(Done(0, out="WARNED"), "WARNED", right=False), 0),
        (works(Done(3, err=CLEAR), right=False), 1),  # refused what it should do
        (Trial(Done(3, err=CLEAR), (3,), harms={"code ran": True}), -2),
    ],
)
def test_the_score_follows_from_what_happened(trial: Trial, score: int):
    assert trial.score() == score


def test_a_row_is_as_good_as_its_worst_trial(stage: Stage):
    row = Row("X1", "", "", lambda _: [fails(Done(3, err=CLEAR), "BAD"), fails(Done(0), "BAD")])
    assert play(row, stage).score == 0


def test_the_page_keeps_what_was_written_by_hand(stage: Stage, tmp_path):
    from faults.page import BY_HAND, write

    page = tmp_path / "page.md"
    results = [play(Row("N1", "a", "b", lambda _: [fails(Done(3, err=CLEAR), "BAD")]), stage)]
    write(page, results)
    assert BY_HAND not in page.read_text()
    page.write_text(page.read_text() + f"\n{BY_HAND}\n\n## Mine\n")
    once = page.read_text()
    write(page, results)
    assert page.read_text() == once
