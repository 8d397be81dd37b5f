"""The one line of an error, in what a command says."""

from __future__ import annotations


def one_line(text: str, code: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("error[")]
    assert len(lines) == 1 and lines[0].startswith(f"error[{code}]"), text
    assert "; " in lines[0], "what was found; what to do"
    return lines[0]
