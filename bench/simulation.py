"""A plan on many workers, simulated event by event: queue, stragglers, failures, restarts."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ATTEMPTS = 3
"""On a cluster a comparison that has cost so many workers is recorded as failed; here one is
enough.
"""


@dataclass(frozen=True)
class Conditions:
    """Under which a plan is carried out; all times in seconds.

    Args:
        begin: From the command to the first comparison handed out.
        end: From the last record to the end of the command: the report.
        start: Of a worker process, until it can measure.
        handout: Of a comparison, beside measuring it: to the worker, and its record back.
        handling: What the driver does for every record; one at a time.
        cluster: Whether a single worker too is a cluster's.
        per_worker: Comparisons after which a worker process is replaced.
        spread: Standard deviation of the log of a comparison's time, about its predicted one.
        stragglers: Share of comparisons that take `slowdown` times as long.
        slowdown: Times as long.
        failures: Of a worker, per hour of its work. What it was doing is begun again.
    """

    begin: float = 0.0
    end: float = 0.0
    start: float = 0.0
    handout: float = 0.0
    handling: float = 0.0
    cluster: bool = False
    per_worker: int = 4
    spread: float = 0.0
    stragglers: float = 0.0
    slowdown: float = 3.0
    failures: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Of one trial.

    Args:
        seconds: From the command to its end.
        busy: Seconds that workers spent measuring or starting, those that a failure wasted too.
        done: Comparisons that were measured.
        failed: Comparisons that were given up.
        deaths: Workers that failed.
    """

    seconds: float
    busy: float
    done: int
    failed: int
    deaths: int


def simulate(
    times: Sequence[float], workers: int, conditions: Conditions, rng: np.random.Generator
) -> Outcome:
    """One trial of a plan.

    Workers take comparisons in the order of the plan, one at a time. A single worker is the local
    pool, unless it is said to be a cluster's: it waits while the driver writes. A cluster's do not,
    but the driver handles one record at a time, and the run ends with its last.

    Args:
        times: Seconds that each comparison is predicted to take, in the order of the plan.
        workers: How many.
        conditions: The conditions.
        rng: Draws what is left to chance.

    Example:

    >>> simulate([5.0, 3.0, 2.0], 2, Conditions(begin=1.0), np.random.default_rng(0)).seconds
    6.0
    """
    import simpy

    environment = simpy.Environment()
    queue: Any = simpy.PriorityStore(environment)  # what failed is begun again before the rest
    driver = simpy.Resource(environment, 1)
    finished = environment.event()
    attempts = [0] * len(times)
    local = workers == 1 and not conditions.cluster
    busy, done, failed, deaths, handled = 0.0, 0, 0, 0, 0

    def duration(job: int) -> float:
        spread = conditions.spread
        factor = float(np.exp(spread * rng.standard_normal() - spread**2 / 2))  # 1 on average
        if rng.random() < conditions.stragglers:
            factor *= conditions.slowdown
        return times[job] * factor

    def handle() -> Generator[Any, Any, None]:
        nonlocal handled
        with driver.request() as turn:
            yield turn
            yield environment.timeout(conditions.handling)
        handled += 1
        if handled == len(times):
            finished.succeed()

    def work() -> Generator[Any, Any, None]:
        nonlocal busy, done, failed, deaths
        left = 0
        while True:
            job: int = yield queue.get()
            needed = duration(job)
            starting = conditions.handout + (0.0 if left else conditions.start)
            left = left or conditions.per_worker
            death = rng.exponential(3600 / conditions.failures) if conditions.failures else np.inf
            lasted = min(starting + needed, death)
            yield environment.timeout(lasted)
            busy += lasted
            left -= 1
            if lasted < starting + needed:
                deaths, left = deaths + 1, 0
                attempts[job] += 1
                if not local and attempts[job] < ATTEMPTS:
                    queue.put(job)
                    continue
                failed += 1
            else:
                done += 1
            handling = environment.process(handle())
            if local:
                yield handling

    def run() -> Generator[Any, Any, None]:
        yield environment.timeout(conditions.begin)
        for job in range(len(times)):
            queue.put(job)
        for _ in range(min(workers, len(times))):
            environment.process(work())
        yield finished
        yield environment.timeout(conditions.end)

    if times:
        environment.run(until=environment.process(run()))
    return Outcome(float(environment.now), busy, done, failed, deaths)


def trials(
    times: Sequence[float], workers: int, conditions: Conditions, *, seed: int, number: int
) -> list[Outcome]:
    """Independent trials; equal seeds give equal trials."""
    seed %= 2**32  # NumPy takes none below zero
    return [
        simulate(times, workers, conditions, np.random.default_rng([seed, workers, trial]))
        for trial in range(number)
    ]
