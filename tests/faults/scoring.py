"""How a row of the fault table is scored: from exit code, message, files, memory and time, never by
hand.

2 = the expected outcome exactly; 1 = safe, but unclear or not as promised; 0 = silently wrong, a
hang, or exit 0 where there was a failure; -2 = data lost, code run or identifiers leaked. A row of
several trials is as good as its worst.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

BEST, SAFE, SILENT, HARM = 2, 1, 0, -2
ERROR = re.compile(r"^error\[(\w+)\]( case=[^:]*)?: .+; .+", re.M)


@dataclass
class Done:
    """One command as it ended. exit None: it hung and was ended; grown: MB of memory it needed at
    most."""

    exit: int | None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    grown: float = 0.0

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def codes(self) -> list[str]:
        return [match[1] for match in ERROR.finditer(self.err)]


@dataclass
class Trial:
    """What must be true of a command. exit: the codes that are right; says: words of message or
    result; facts: safety, by name; exact: promises, by name; harms: by name; code: the word in the
    brackets of an error line."""

    done: Done
    exit: tuple[int, ...] = (0,)
    says: tuple[str, ...] = ()
    facts: Mapping[str, bool] = field(default_factory=dict)
    exact: Mapping[str, bool] = field(default_factory=dict)
    harms: Mapping[str, bool] = field(default_factory=dict)
    code: str = ""
    absent: str = ""  # what the row attacks is not there

    def missed(self) -> list[str]:
        """Everything that is not as expected, in words."""
        done = self.done
        if self.absent:
            return [self.absent]
        found = [f"HARM {name}" for name, happened in self.harms.items() if happened]
        if done.exit is None:
            found.append("hung")
        elif done.exit not in self.exit:
            found.append(f"exit {done.exit}")
        found += [f"no error[{self.code}]"] if self.code and self.code not in done.codes else []
        found += [
            f"does not say '{word}'" for word in self.says if word.lower() not in done.text.lower()
        ]
        if "Traceback" in done.text:
            found.append("traceback")
        elif done.exit not in (0, None) and not done.codes:
            found.append("no clear line")
        return found + [
            name for group in (self.facts, self.exact) for name, held in group.items() if not held
        ]

    def score(self) -> int:
        done = self.done
        if any(self.harms.values()):
            return HARM
        if done.exit is None or self.absent:
            return SILENT
        if not self.missed():
            return BEST
        if done.exit != 0:
            return SAFE if 0 in self.exit or all(self.facts.values()) else SILENT
        return SAFE if 0 in self.exit and self.facts and all(self.facts.values()) else SILENT


@dataclass(frozen=True)
class Row:
    """A row of the table. act: stages it and yields its trials; quick: in-process and under a
    second or two; adapted: why another outcome is expected than the table's original wording."""

    id: str
    what: str
    expected: str
    act: Callable[..., Iterable[Trial]]
    quick: bool = True
    adapted: str = ""


@dataclass
class Result:
    """A row as it came out."""

    row: Row
    score: int
    got: str
    seconds: float


TABLE: dict[str, Row] = {}


def row(id: str, what: str, expected: str, *, quick: bool = True, adapted: str = "") -> Callable:
    """Enter a function (stage) -> trials as a row of the table."""

    def enter(act: Callable[..., Iterable[Trial]]) -> Callable[..., Iterable[Trial]]:
        assert id not in TABLE, id
        TABLE[id] = Row(id, what, expected, act, quick, adapted)
        return act

    return enter


def fails(done: Done, code: str, *words: str, exit: int = 3, **more: bool) -> Trial:
    """A command that must end with this code word and exit code."""
    return Trial(done, (exit,), words, facts=more, code=code)


def works(done: Done, *words: str, **facts: bool) -> Trial:
    """A command that must end well, with right results (facts) and these words of warning."""
    return Trial(done, (0,), words, facts=facts)
