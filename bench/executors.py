"""Where comparisons run: worker processes on this machine, or elsewhere behind the same methods."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, resource_tracker
from pathlib import Path
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Any, Protocol, Self

from pebble import ProcessExpired, ProcessPool

from bench.plan import Comparison
from bench.records import Record
from bench.startup import start_worker
from bench.worker import ran_out

COMPARISONS_PER_WORKER = 4


class WorkerDied(Exception):
    """A worker process ended before its result came. Its text says how."""


class TookTooLong(WorkerDied):
    """It was ended because its time was up."""


class NoWorker(WorkerDied):
    """None could be started."""


class RunStopped(Exception):
    """Nothing more can be measured; what is left is for another time. Its text says why."""


class Executor(Protocol):
    """Where comparisons run; `LocalExecutor`, and `bench.cluster.ClusterExecutor`."""

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        *,
        timeout: float,
        started: Callable[[Any], None],
    ) -> Iterator[tuple[Any, Future]]:
        """Calls a function with each item; yields each item once, with a future that is done.

        In whatever order they end. What the function raised, or that it was too much for its
        worker (`WorkerDied`), is in the future. `started` is called with an item whenever one is
        handed out, which can be more than once.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: Any) -> None:
        """Ends what is still running, at once."""


class LocalExecutor:
    """One worker process: reused while it is healthy, replaced when it dies.

    Args:
        log: File that gets what the worker would print: TensorFlow's messages, a crash's trace.
        max_calls: Calls after which the worker is replaced; 0 is never.
        spent: Says of a result that its worker is to be replaced.
        setting: Of a call's arguments, what a worker can be set up for only once: for another
            setting it is replaced.
    """

    def __init__(
        self,
        log: str | Path = os.devnull,
        *,
        max_calls: int = 0,
        spent: Callable[[Any], bool] = lambda result: False,
        setting: Callable[..., Any] = lambda *args: None,
    ) -> None:
        self._log, self._max_calls, self._spent = str(log), max_calls, spent
        self._setting = setting
        self._set: Any = None
        self._pool: ProcessPool | None = None
        self._running: Future | None = None

    def call(self, function: Callable[..., Any], *args: Any, timeout: float | None = None) -> Any:
        """Calls a function in the worker.

        Raises:
            WorkerDied: The worker was killed, crashed, ended itself, was ended by `close` in
                another thread, or ran longer than `timeout` seconds (`TookTooLong`).
            NoWorker: None could be started.
        """
        try:
            return self._call(function, args, timeout)
        except BrokenProcessPool:  # the worker died before it was given anything to do
            self.close()
        try:
            return self._call(function, args, timeout)
        except BrokenProcessPool as error:
            self.close()
            why = str(error) or "it ended before it was given anything to do"
            raise NoWorker(f"no worker process could be started: {why}") from None

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        *,
        timeout: float,
        started: Callable[[Any], None],
    ) -> Iterator[tuple[Any, Future]]:
        """As `Executor.map`: one after the other, in their order."""
        for item in items:
            started(item)
            future: Future = Future()
            try:
                future.set_result(self.call(function, item, timeout=timeout))
            except NoWorker as error:  # no fault of the item's, and the next would fare no better
                raise RunStopped(str(error)) from None
            except Exception as error:
                future.set_exception(error)
            yield item, future

    def _call(self, function: Callable[..., Any], args: tuple, timeout: float | None) -> Any:
        setting = self._setting(*args)
        if setting is not None:
            if self._set not in (None, setting):
                self.close()
            self._set = setting
        pool = self._pool or self._new_pool()
        try:
            future: Any = pool.schedule(function, args=args)
        except RuntimeError as error:  # it broke between two calls
            raise BrokenProcessPool(str(error)) from None
        self._running = future
        try:
            # Not Pebble's own time-out, which goes by a clock that can be set.
            raised = future.exception(None if timeout is None else min(timeout, TIMEOUT_MAX))
        except TimeoutError:
            self.close()
            raise TookTooLong(f"took longer than the {timeout:g} s of --timeout") from None
        except CancelledError:
            raise WorkerDied("its worker process was ended by the one who started it") from None
        if isinstance(raised, ProcessExpired):
            self.close()
            raise WorkerDied(_cause(raised.exitcode))
        if raised is not None and not isinstance(raised, Exception):
            raise WorkerDied(f"its worker process raised {type(raised).__name__}")
        result = future.result()
        if self._spent(result):
            self.close()
        return result

    def _new_pool(self) -> ProcessPool:
        _start_tracker()
        self._pool = ProcessPool(
            max_workers=1,
            max_tasks=self._max_calls,
            initializer=start_worker,
            initargs=(self._log,),
            # Spawned, not forked: TensorFlow's threads do not survive a fork.
            context=get_context("spawn"),
        )
        return self._pool

    def close(self) -> None:
        """Ends the worker at once; the next call starts another.

        From another thread too: a call that is under way there raises `WorkerDied`.
        """
        pool, self._pool = self._pool, None
        if self._running is not None:
            self._running.cancel()  # a pool that is stopped leaves what was running for ever
        if pool is not None:
            pool.stop()
            pool.join()

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()


def comparison_executor(log: str | Path) -> LocalExecutor:
    """One worker process for comparisons, replaced as often as they ask for it.

    TensorFlow keeps every program that it compiled, some 10 MB each, for as long as the process
    lives, and a comparison compiles dozens. After one that ran out of a device's memory, what still
    holds some would starve the next. Its threads are as many as its first comparison asked for.
    """

    def spent(result: Any) -> bool:  # other things are called there too
        return isinstance(result, Record) and ran_out(result)

    def threads(*args: Any) -> Any:
        return next((item.cell.threads for item in args if isinstance(item, Comparison)), None)

    return LocalExecutor(log, max_calls=COMPARISONS_PER_WORKER, spent=spent, setting=threads)


def _start_tracker() -> None:
    """Starts multiprocessing's resource tracker so that a closed terminal does not kill it.

    It ignores SIGINT and SIGTERM by itself; of SIGHUP it dies, and is replaced with a traceback.
    """
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGHUP"):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        resource_tracker.ensure_running()  # what is ignored stays so in a new process
        signal.signal(signal.SIGHUP, before)


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", perhaps for lack of memory" if name == "SIGKILL" else ""
        return f"its worker process was ended by {name}{hint}"
    return f"its worker process ended with exit status {exitcode}"
