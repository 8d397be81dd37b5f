"""What a stop from outside does: a training ends its step and saves its state; `detect` writes the rows it has."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

PAUSE = 2.0  # seconds; a second signal within them is the same wish: Ctrl-C twice, or torchrun's after the terminal's


class Signals:
    """SIGTERM and SIGINT end the step, not the process, so that the state is saved; a second one ends at once."""

    def __init__(self) -> None:
        self.seen = False
        self.before: dict[int, Any] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def __enter__(self) -> Signals:
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self.handle)
            except ValueError:  # not the main thread: the caller handles signals
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


class Stop(contextlib.ContextDecorator):
    """SIGTERM, SIGINT and SIGHUP end what runs at once, by KeyboardInterrupt; `held` keeps them off what must be whole."""

    def __init__(self) -> None:
        self.seen, self.holding, self.last = False, False, 0.0
        self.before: dict[int, Any] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        again = self.seen and time.monotonic() - self.last < PAUSE
        self.seen, self.last = True, time.monotonic()
        if not (self.holding or again):
            raise KeyboardInterrupt

    def check(self) -> None:
        """End here if a signal came: a library may have swallowed the interruption."""
        if self.seen and not self.holding:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Whatever signal comes, this is done to its end."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False

    def install(self) -> None:
        """Take the signals; again after a library has taken them for itself."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        hangup = getattr(signal, "SIGHUP", None)  # a terminal that closes; not under nohup, nor on Windows
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        for number in numbers:
            try:
                before = signal.signal(number, self.handle)
            except ValueError:  # not the main thread: the caller handles signals
                return
            self.before.setdefault(number, before)

    def __enter__(self) -> Stop:
        self.seen = self.holding = False
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before.clear()
        self.seen = False


STOP = Stop()
