"""Progress with an estimate: a bar on a terminal, a plain line now and then elsewhere, nothing with
``--quiet``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
quiet = False  # set once by the command line, as is:
debug = False  # show tracebacks
every = 20.0  # seconds between lines where there is no terminal
# What is said, as data, for a program that started this one: the app's worker sets it
sink: Callable[[dict[str, Any]], None] | None = None


def say(text: str, *, error: bool = False) -> None:
    """One line for the user, on standard error (standard output belongs to results); ``--quiet``
    leaves errors."""
    if error or not quiet:
        print(text, file=sys.stderr, flush=True)


def tell(**facts: Any) -> None:
    """Facts for the program that listens, if one does; plain values under words of its own."""
    if sink:
        sink(facts)


def say_error(error: object) -> None:
    """The one line of an error, for the user and for the program that listens."""
    say(str(error), error=True)
    tell(error=str(error))


def duration(seconds: float) -> str:
    """Seconds as people say them: "0.4 s", "45 s", "12 min", "2 h 40 min", "3 d 4 h"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(hours + minutes / 60), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


class Progress:
    """``with Progress("training", 1000) as bar: bar.advance(note="loss 0.1")``; works without a
    terminal, too."""

    def __init__(self, label: str, total: int, *, start: int = 0):
        self.label, self.total, self.done = label, total, start
        self.first, self.begun = start, time.monotonic()
        self.last = self.begun
        self.bar = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Bar(
                *columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)
            )
            self.task = self.bar.add_task(label, total=total, completed=start, note="")

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self.bar:
            self.bar.update(self.task, completed=self.done, note=note)
        elif not quiet and time.monotonic() - self.last > every:
            self.last = time.monotonic()
            rate = (self.done - self.first) / (self.last - self.begun)
            left = (self.total - self.done) / rate if rate else 0
            done = f"{self.label}: {self.done}/{self.total}"
            say(f"{done}, about {duration(left)} left {note}".rstrip())
            tell(doing=self.label, done=self.done, total=self.total, seconds_left=round(left, 1))

    def to(self, done: int) -> None:
        """`done` of the total, however many steps that is."""
        self.advance(done - self.done)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.bar:
            self.bar.stop()


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """Iterate with progress."""
    with Progress(label, total) as bar:
        for item in items:
            yield item
            bar.advance()
