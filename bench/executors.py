"""Where comparisons run: worker processes on this machine."""

import os
import signal
from collections.abc import Callable
from concurrent.futures import TimeoutError as Timeout
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Any

from pebble import ProcessExpired, ProcessPool

from bench.worker import start_worker


class WorkerDied(Exception):
    """A worker process ended before its result came. Its text says how."""


class LocalExecutor:
    """One worker process: reused while it is healthy, replaced when it dies.

    Args:
        log: File that gets what the worker would print: TensorFlow's messages, a crash's trace.
    """

    def __init__(self, log: str | Path = os.devnull) -> None:
        self._pool = ProcessPool(
            max_workers=1,
            initializer=start_worker,
            initargs=(str(log),),
            # Spawned, not forked: TensorFlow's threads do not survive a fork.
            context=get_context("spawn"),
        )

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = None) -> Any:
        """Calls a function in the worker.

        Raises:
            WorkerDied: The worker was killed, crashed, or ran longer than `timeout` seconds.
        """
        future = self._pool.schedule(function, args=args, timeout=timeout)
        try:
            return future.result()
        except Timeout:
            raise WorkerDied(f"took longer than the {timeout:g} s of --timeout") from None
        except ProcessExpired as error:
            raise WorkerDied(_cause(error.exitcode)) from None

    def close(self) -> None:
        """Ends the worker at once."""
        self._pool.stop()
        self._pool.join()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its worker process was ended by {name}{hint}"
    return f"its worker process ended with exit status {exitcode}"
