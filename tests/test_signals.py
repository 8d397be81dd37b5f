"""A first signal ends the step, a second one the process; afterwards the handlers are the old
ones."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from pseudohealthy.signals import Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_noted_and_the_second_ends_at_once(number):
    before = signal.getsignal(number)
    with Signals() as signals:
        assert not signals.seen
        os.kill(os.getpid(), number)
        assert signals.seen
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_a_training_in_a_thread_leaves_signals_to_its_caller():
    before, said = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with Signals() as signals:
            said.append((signals.before, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [({}, before)]
