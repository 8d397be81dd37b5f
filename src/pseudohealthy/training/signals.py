"""What a stop from outside does to a training: the step ends, the state is saved, then the program."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


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
