"""What can go wrong, in one line: what was found, what to do, and the exit code of the contract."""

from __future__ import annotations

INTERNAL = 1
USAGE = 2
NO_INPUT = 3
SOME_FAILED = 4
BAD_MODEL = 5
BAD_OUTPUT = 6
RESOURCE = 7
REFUSED = 8
INTERRUPTED = 130


LONGEST = 600  # characters of a message: one quotes what a file holds, and a file may hold anything


def one_line(text: str) -> str:
    """The text on one line, its middle left out where it is long, and nothing in it that moves a
    cursor or turns text round."""
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 100]} ... {text[-95:]}"


class Fault(Exception):
    """A finding about the user's input, settings, model or machine; never a bug of ours.

    code: upper-case word such as ``TRUNCATED``; message: what was found, without patient data;
    cure: what to do;
    exit: the exit code when this ends the command (3 = no usable input); case: id of the case it
    concerns.
    """

    def __init__(
        self,
        code: str,
        message: str,
        cure: str = "",
        *,
        exit: int = NO_INPUT,
        case: str | None = None,
    ):
        super().__init__(code, message, cure)
        self.code, self.message, self.cure, self.exit, self.case = code, message, cure, exit, case

    def __str__(self) -> str:
        where = f" case={self.case}" if self.case else ""
        return f"error[{self.code}]{where}: {one_line(self.message)}" + (
            f"; {one_line(self.cure)}" if self.cure else ""
        )
