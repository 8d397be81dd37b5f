"""One thing is one thing, in every sentence that counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pseudohealthy
from pseudohealthy.counts import many

SOURCES = sorted(Path(pseudohealthy.__file__).parent.rglob("*.py"))
NOUNS = "patient|plane|case|image|input|scan|slice|channel|region|subject|file"


@pytest.mark.parametrize(
    "count, said",
    [(0, "0 planes"), (1, "1 plane"), (2, "2 planes"), (1_200, "1,200 planes"), (-1, "-1 planes")],
)
def test_one_is_singular(count, said):
    assert many(count, "plane") == said


def test_words_that_take_no_s():
    assert [many(count, "patient is", "patients are") for count in (1, 3)] == [
        "1 patient is",
        "3 patients are",
    ]


def test_no_message_leaves_the_number_open():
    """Neither "patient(s)", nor an s that is put on by hand, nor a bare plural behind what is
    counted by len()."""
    by_hand = re.compile(r"[a-z]\(s\)|\{'s' \* |\{'s' if ")
    plural = re.compile(r"\{len\([^{}]*\)(:,)?\} (?:[a-z]+ )?(?:" + NOUNS + r")s\b")
    found = [
        f"{path.name}: {line.strip()}"
        for path in SOURCES
        for line in path.read_text(encoding="utf-8").splitlines()
        if by_hand.search(line) or plural.search(line)
    ]
    assert not found
