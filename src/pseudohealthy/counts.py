"""Counts in words: one thing is called in the singular."""

from __future__ import annotations


def many(count: int, one: str, several: str = "") -> str:
    """The count with what is counted: "1 plane", "1,200 planes", "0 planes".

    Args:
        count: how many.
        one: what a single one is called.
        several: what several are called where that is not `one` with an s.
    """
    return f"{count:,} {one if count == 1 else several or one + 's'}"
