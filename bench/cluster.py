"""Where comparisons run: the workers of a Dask cluster.

Dask knows which workers there are and carries calls and results. Which comparison goes where is
decided here, one to a worker, so that it is known what a worker died of: with more than one task
on it, Dask would blame them all. Any worker may come and go at any time, and so may the scheduler.
"""

import logging
import queue
import secrets
import time
import urllib.request
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any

from distributed import Client, KilledWorker

from bench.config import Options
from bench.executors import RunStopped, TookTooLong, WorkerDied
from bench.handout import DEATHS, LOST, Busy, Task, Worker, died, note_death, suits, verdict_on
from bench.node import call_here, check_here, code_digest, file_digests, stop_here
from bench.plan import Comparison
from bench.rules import UsageError
from fixedbias.datasets import Located

_ANSWER = 10.0
"""Seconds in which a scheduler that is there answers."""
_PATIENCE = 600.0
"""Seconds to wait for a scheduler that went away."""
_LOOK = 1.0
"""Seconds between two looks at which workers there are."""
_MISSES = 3
"""Tries at a result, `_ANSWER` seconds each."""


class ClusterExecutor:
    """The workers of a Dask cluster, each with one comparison at a time.

    Args:
        address: The scheduler's.
        say: Gets sentences for the user.

    Raises:
        RunStopped: The scheduler does not answer.
    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        # What Dask logs about connections that break is told here, once and in other words.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._address, self._say = address, say
        self._token = secrets.token_hex(8)
        self._expected: dict[str, Any] = {}
        self._busy: dict[str, Busy] = {}
        self._checked: dict[str, str] = {}
        """Of each worker that was asked, why it is not used; empty if it is."""
        self._hosts: dict[str, str] = {}
        self._events: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._scheduler = ""
        self._client = self._connect()

    @property
    def dashboard(self) -> str | None:
        """The address of Dask's dashboard, where the scheduler has one and lets it be seen."""
        if "dashboard" not in self._info()["services"]:
            return None
        link = self._client.dashboard_link
        # Without bokeh a 404; ValueError where what Dask is told to show is no whole address.
        with suppress(OSError, ValueError), urllib.request.urlopen(link, timeout=2):
            return link
        return None

    def workers(self) -> list[Worker]:
        """Which workers there are."""
        found = []
        for address, info in self._info()["workers"].items():
            # A nanny gives the next worker the old one's name, and not its port.
            name = f"{info['name']} {address}"
            kinds = tuple(kind for kind in ("cpu", "gpu") if info["resources"].get(kind))
            # Behind a tunnel all addresses are loopback: what the worker calls its host goes first.
            host = self._hosts.get(name, info["host"])
            found.append(Worker(address, name, host, kinds, info["status"] == "running"))
        return found

    def devices(self, wanted: str) -> list[str]:
        """The devices that `--device` asks for: a GPU is every worker's first, its only one.

        Raises:
            UsageError: `auto`, and there is no worker yet to ask.
        """
        if wanted == "all":
            return ["cpu", "gpu:0"]
        if wanted != "auto":
            return ["gpu:0" if wanted == "gpu" else wanted]
        kinds = {kind for worker in self.workers() for kind in worker.kinds}
        if not kinds:
            raise UsageError(
                "--device auto goes by the cluster's workers, and it has none yet: start one with "
                f"python -m bench.node {self._address}, or say --device cpu or gpu."
            )
        return ["gpu:0" if "gpu" in kinds else "cpu"]

    def expect(self, options: Options, located: Located, dataset: dict[str, str]) -> None:
        """Says what every worker must have before it is given a comparison."""
        numbers = [number for number in options.threads if number != "all"]
        self._expected = {
            "code": code_digest(),
            "data": located.name,
            "folder": located.data_dir,
            "task": options.task,
            "dataset": dataset,
            "layer": options.layer,
            "files": file_digests(options),
            "threads": 1 if options.accuracy_only else max(numbers, default=1),
        }

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        *,
        timeout: float,
        started: Callable[[Any], None],
    ) -> Iterator[tuple[Any, Future]]:
        """As `Executor.map`. One that `DEATHS` workers died of comes back as `WorkerDied`.

        Raises:
            RunStopped: The scheduler is gone for too long, or no worker is fit for the run.
        """
        waiting: dict[str, deque[Task]] = defaultdict(deque)
        for task in map(Task, items):
            waiting[task.kind].append(task)
        workers: list[Worker] = []
        looked, idle = 0.0, False

        def give() -> None:
            """Gives all workers that are free something to do."""
            # What a worker's host calls itself may have been heard since they were looked for.
            fit = [
                replace(worker, host=self._hosts.get(worker.name, worker.host))
                for worker in workers
                if not self._checked.get(worker.name)
            ]
            for worker in fit:
                if worker.ready and worker.name not in self._busy:
                    self._give(worker, fit, waiting, function, timeout, started)

        while any(waiting.values()) or any(busy.task for busy in self._busy.values()):
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                try:
                    workers, same = self._look()
                except (OSError, RuntimeError):  # as RuntimeError: the client has given up
                    workers, same = self._wait_for_scheduler(), False
                for task in self._clear_dead(workers, same):
                    if len(task.deaths) < DEATHS:
                        waiting[task.kind].appendleft(task)
                    else:
                        yield task.comparison, died(task)
                wanted = {kind for kind, tasks in waiting.items() if tasks}
                self._refuse_to_wait(workers, wanted)
                missing = wanted - {kind for worker in workers for kind in worker.kinds}
                if bool(missing) > idle:
                    self._say(f"waiting for workers that offer {' and '.join(sorted(missing))}")
                idle = bool(missing)
            give()
            with suppress(queue.Empty):
                name = self._events.get(timeout=_LOOK)
                finished, outcome = self._collect(name)
                if finished is not None and outcome is not None:
                    # Whoever was given something works while the record of this is written.
                    give()
                    yield finished.comparison, outcome
                elif finished is not None:
                    waiting[finished.kind].appendleft(finished)

    def _give(
        self,
        worker: Worker,
        workers: list[Worker],
        waiting: dict[str, deque[Task]],
        function: Callable[..., Any],
        timeout: float,
        started: Callable[[Comparison], None],
    ) -> None:
        """Gives a worker that is free something to do, if there is anything for it."""
        queued = (task for kind in worker.kinds for task in waiting[kind])
        task = next((task for task in queued if suits(task, worker, workers)), None)
        if task is None:
            return
        if worker.name not in self._checked:
            expected = self._expected | {"gpu": task.kind == "gpu"}
            self._submit(worker, None, task.kind, check_here, expected, timeout)
            return
        waiting[task.kind].remove(task)
        started(task.comparison)
        self._submit(worker, task, task.kind, function, task.comparison, timeout)

    def _submit(
        self,
        worker: Worker,
        task: Task | None,
        kind: str,
        function: Callable[..., Any],
        argument: Any,
        timeout: float,
    ) -> None:
        future = self._client.submit(
            call_here,
            self._token,
            function,
            argument,
            timeout=timeout,
            key=f"{function.__name__}-{secrets.token_hex(8)}",
            workers=[worker.address],
            resources={kind: 1},  # another driver on this cluster waits its turn
            pure=False,
        )
        self._busy[worker.name] = Busy(worker, task, future)
        future.add_done_callback(lambda _: self._events.put(worker.name))

    def _collect(self, name: str) -> tuple[Task | None, Future | None]:
        """What a worker has finished: a task, and how it ended or None to have it run again."""
        busy = self._busy.get(name)
        # Also an event of a future that was given up meanwhile.
        if busy is None or not busy.future.done():
            return None, None
        outcome: Future = Future()
        try:
            # What the call raised is returned here, and what is raised is the network's.
            raised = busy.future.exception(timeout=_ANSWER)
            if raised is None:
                outcome.set_result(busy.future.result(timeout=_ANSWER))
        except (OSError, TimeoutError):  # on its way from a worker that may be gone: look again
            busy.misses += 1
            if busy.misses < _MISSES:
                self._events.put(name)
                return None, None
            raised = WorkerDied("its worker cannot be reached")
        except Exception as error:
            raised = error
        if raised is not None:
            outcome.set_exception(raised)
        del self._busy[name]
        cancelled = busy.future.cancelled()  # it went down with the scheduler
        if busy.task is None:
            if not cancelled:
                why, self._hosts[name] = verdict_on(outcome, busy.worker)
                self._checked[name] = why
                if why:
                    self._say(f"a worker on {busy.worker.host} is not used: {why}")
            return None, None
        if cancelled:
            return busy.task, None
        raised = outcome.exception()
        if isinstance(raised, TookTooLong) or not isinstance(raised, WorkerDied | KilledWorker):
            return busy.task, outcome
        note_death(busy, str(raised) if isinstance(raised, WorkerDied) else LOST)
        return busy.task, died(busy.task) if len(busy.task.deaths) >= DEATHS else None

    def _clear_dead(self, workers: list[Worker], same: bool) -> list[Task]:
        """Tasks of workers that are no more; of a new scheduler, all: they are not to blame."""
        present = {worker.name for worker in workers}
        lost = [name for name in self._busy if not same or name not in present]
        tasks = []
        for busy in (self._busy.pop(name) for name in lost):
            with suppress(Exception):
                busy.future.cancel()
            if busy.task is not None:
                if same:
                    note_death(busy, LOST)
                tasks.append(busy.task)
        return tasks

    def _refuse_to_wait(self, workers: list[Worker], wanted: set[str]) -> None:
        able = [worker for worker in workers if wanted.intersection(worker.kinds)]
        if able and not self._busy and all(self._checked.get(worker.name) for worker in able):
            raise RunStopped("none of the cluster's workers is fit for this run")

    def _look(self) -> tuple[list[Worker], bool]:
        """Which workers there are, and whether the scheduler is the one of the last look."""
        workers = self.workers()
        before, self._scheduler = self._scheduler, self._info_id
        return workers, self._scheduler == before

    def _info(self) -> Any:
        client = self._client
        if client.status not in ("running", "connecting") or client.scheduler is None:
            raise OSError("no scheduler")
        # Not `scheduler_info()`: it may give what it last knew, and that without the workers.
        info: Any = client.sync(
            client.scheduler.identity, n_workers=-1, callback_timeout=3 * _ANSWER
        )
        self._info_id = info["id"]
        return info

    def _connect(self) -> Client:
        try:
            self._client = Client(self._address, timeout=_ANSWER, set_as_default=False)
            self._scheduler = self._info()["id"]
        except (OSError, TypeError, ValueError) as error:
            why = "no answer" if isinstance(error, OSError) else str(error)
            raise RunStopped(f"the scheduler cannot be used, {why}") from None
        return self._client

    def _wait_for_scheduler(self) -> list[Worker]:
        self._say("the scheduler does not answer: waiting for it")
        with suppress(Exception):
            self._client.close(timeout=1)
        begin = time.monotonic()
        while True:
            try:
                self._client = self._connect()
                with suppress(Exception):  # what was given up, where only the connection was lost
                    self._client.run(stop_here, self._token, on_error="ignore")
                return self.workers()
            except (RunStopped, OSError):
                if time.monotonic() - begin > _PATIENCE:
                    raise RunStopped("the scheduler is gone") from None
            time.sleep(_LOOK)

    def __enter__(self) -> "ClusterExecutor":
        return self

    def __exit__(self, *_: Any) -> None:
        """Ends this driver's comparisons on all workers, and leaves the cluster as it was."""
        addresses = [busy.worker.address for busy in self._busy.values()]
        with suppress(Exception):
            if addresses and self._client.status == "running":
                self._client.run(stop_here, self._token, workers=addresses, on_error="ignore")
        with suppress(Exception):
            self._client.close(timeout=5)
