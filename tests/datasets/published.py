"""What `prepare` has found in published lists."""

from __future__ import annotations


def findings(out):
    return (out / "published_leaks.txt").read_text().splitlines()
