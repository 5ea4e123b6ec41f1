"""A cluster's workers, what each is doing, and what a comparison has cost so far."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from bench.executors import WorkerDied
from bench.plan import Comparison

DEATHS = 3
"""Workers that a comparison may cost; then it is recorded as failed."""
LOST = "its worker was lost"


@dataclass(frozen=True)
class Worker:
    """A worker as the scheduler lists it. One that is started again has another name."""

    address: str
    name: str
    host: str
    kinds: tuple[str, ...]
    """Of `cpu` and `gpu`, what it offers."""
    ready: bool
    """Whether it takes work: not closing, not paused."""


@dataclass(eq=False)
class Task:
    """A comparison that is to be made, and what workers died of while they made it."""

    comparison: Comparison
    deaths: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)
    """Where workers died of it."""

    @property
    def kind(self) -> str:
        """What it needs, `cpu` or `gpu`."""
        return self.comparison.cell.device.partition(":")[0]


@dataclass
class Busy:
    """What a worker is doing: a task, or (None) being checked."""

    worker: Worker
    task: Task | None
    future: Any
    misses: int = 0
    """How often its result could not be fetched."""


def suits(task: Task, worker: Worker, workers: list[Worker]) -> bool:
    """Whether a worker may have a task: not where it died, unless there is nowhere else."""
    if task.kind not in worker.kinds:
        return False
    elsewhere = {w.host for w in workers if w.ready and task.kind in w.kinds} - task.hosts
    return worker.host not in task.hosts or not elsewhere


def note_death(busy: Busy, how: str) -> None:
    """Counts against a worker's task that the worker died."""
    assert busy.task is not None
    busy.task.deaths.append(how)
    busy.task.hosts.add(busy.worker.host)


def died(task: Task) -> Future:
    """What comes of a task that was too much for its workers."""
    future: Future = Future()
    future.set_exception(
        WorkerDied(f"{task.deaths[-1]}, as happened {len(task.deaths)} times with this comparison")
    )
    return future


def verdict_on(outcome: Future, worker: Worker) -> tuple[str, str]:
    """Why a worker is not used, empty if it is fit, and its host, from how its check ended."""
    error = outcome.exception()
    if error is not None:
        return f"{type(error).__name__}: {error}", worker.host
    why, host = outcome.result()
    return why, host
