"""What a stop from outside does: a training ends its step and saves its state; `detect` writes the
rows it has."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

AGAIN = 0.2  # seconds until a signal that met an import is looked at again
# seconds; a second signal within them is the same wish: Ctrl-C twice, or torchrun's after the
# terminal's.
PAUSE = 2.0


class Signals:
    """SIGTERM and SIGINT end the step, not the process, so that the state is saved; a second one
    ends at once."""

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
    """SIGTERM, SIGINT and SIGHUP end what runs at once, by KeyboardInterrupt; `held` keeps them off
    what must be whole.

    An import is never interrupted: it would leave half a library behind, and what then fails looks
    like a bug.
    """

    def __init__(self) -> None:
        self.seen, self.holding, self.depth, self.last = False, False, 0, -PAUSE
        self.later: threading.Timer | None = None  # brings a signal back that met an import
        self.before: dict[int, Any] = {}

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.seen = True
        if self.holding or time.monotonic() - self.last < PAUSE:
            return
        if importing(frame):
            self.later = threading.Timer(AGAIN, signal.raise_signal, [number])
            self.later.daemon = True
            self.later.start()
            return
        self.last = time.monotonic()
        raise KeyboardInterrupt

    def check(self) -> None:
        """End here if a signal came: a library may have swallowed the interruption."""
        if self.seen and not self.holding:
            self.last = time.monotonic()
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Whatever signal comes, this is done to its end."""
        self.holding = True
        try:
            yield
        finally:
            self.holding = False

    def leave(self) -> None:
        """The process ends now, and no further signal changes that: Python's own end would fail
        half way."""
        self.holding = True
        self.before = dict.fromkeys(self.before, signal.SIG_IGN)

    def install(self) -> None:
        """Take the signals; again after a library has taken them for itself."""
        numbers = [signal.SIGTERM, signal.SIGINT]
        # A terminal that closes; not under nohup, nor on Windows.
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        for number in numbers:
            try:
                before = signal.signal(number, self.handle)
            except ValueError:  # not the main thread: the caller handles signals
                return
            self.before.setdefault(number, before)

    def __enter__(self) -> Stop:
        if not self.depth:
            self.seen, self.last = False, -PAUSE
            self.install()
        self.depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if not self.depth:
            # Otherwise it would come when nobody catches it, and set the exit code.
            if self.later:
                self.later.cancel()
                self.later.join()
                self.later = None
            for number, handler in self.before.items():
                signal.signal(number, handler)
            self.before.clear()
            self.seen = False


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported there."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


STOP = Stop()
