"""Stopping a run by a signal: at once where it waits, and never while it writes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# SIGHUP comes when the terminal is closed; Windows has none.
_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupted(BaseException):
    """The run is to stop: ``signum`` says by which signal. What is written is whole."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def status(self) -> int:
        """The exit status, as shells count it: 130 for Ctrl-C."""
        return 128 + self.signum


class Interrupts:
    """Signals that came; `catch_signals` makes one."""

    def __init__(self) -> None:
        self.signum = 0
        self._waiting = False

    def check(self) -> None:
        """Raises `Interrupted` if a signal has come."""
        if self.signum:
            raise Interrupted(self.signum)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it, a signal raises `Interrupted` at once; elsewhere `check` does so later."""
        self._waiting = True
        try:
            self.check()
            yield
        finally:
            self._waiting = False

    def receive(self, signum: int, frame: FrameType | None) -> None:
        """The handler. The second signal ends the process as if there were no handler."""
        if self.signum:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        self.signum = signum
        if self._waiting:
            raise Interrupted(signum)


@contextmanager
def catch_signals() -> Iterator[Interrupts]:
    """Has SIGINT, SIGTERM and SIGHUP received as above; one that is ignored stays so (`nohup`)."""
    interrupts = Interrupts()
    before: dict[int, Any] = {}
    for signum in _SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, interrupts.receive)
    try:
        yield interrupts
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
