"""Many comparisons in a row: nothing piles up, and results are those of shorter runs.

`FIXEDBIAS_COMPARISONS` sets how many.
"""

import itertools
import os

import psutil
import pytest

from bench.executors import COMPARISONS_PER_WORKER, LocalExecutor
from bench.plan import Cell, Comparison
from bench.worker import measure

COMPARISONS = int(os.environ.get("FIXEDBIAS_COMPARISONS", "16"))
MIB = 2**20


def probe() -> tuple[int, int, int]:
    """Resident memory, threads and open files of this process."""
    process = psutil.Process()
    return process.memory_info().rss, process.num_threads(), process.num_fds()


def comparison(units: int, engine: str) -> Comparison:
    cell = Cell(2, units, 64, "float32", "cpu", engine, "linspace", "digits")
    return Comparison(
        cell,
        data_dir=None,
        arms=("dense", "fixed"),
        layer=(),
        epochs=1,
        seeds=1,
        floor=0.0,
        halfwidth=0.5,
        time_cap=0.01,
        builds=1,
        order_seed=0,
    )


def run(widths: range) -> tuple[list, list[tuple], list[tuple]]:
    """Accuracies and losses of comparisons in one worker; the state of worker and driver after."""
    results, worker, driver = [], [], []
    # A comparison and a probe are two calls.
    with LocalExecutor(max_calls=2 * COMPARISONS_PER_WORKER) as executor:
        for units, engine in zip(widths, itertools.cycle(["compiled", "fit"])):
            record = executor.call(measure, comparison(units, engine), timeout=600)
            assert record.status == "ok"
            results.append(
                {
                    name: (arm["accuracies"], [h["loss"] for h in arm["histories"]])
                    for name, arm in record.arms.items()
                }
            )
            worker.append(executor.call(probe))
            driver.append(probe())
    return results, worker, driver


@pytest.mark.slow
@pytest.mark.timeout(300 + 30 * COMPARISONS)
def test_nothing_piles_up_and_results_do_not_depend_on_what_came_before():
    widths, half = range(4, 4 + COMPARISONS), COMPARISONS // 2
    results, worker, driver = run(widths)
    for states, what in ((worker, "worker"), (driver, "driver")):
        early, late = states[:half], states[half:]
        memory = [max(rss for rss, _, _ in part) / MIB for part in (early, late)]
        threads, files = (
            [max(state[n] for state in part) for part in (early, late)] for n in (1, 2)
        )
        print(f"{what}: at most {memory} MiB, {threads=}, {files=}")
        assert threads[1] <= threads[0] + 2
        assert files[1] <= files[0] + 2
        assert memory[1] <= 1.05 * memory[0]
    apart = run(widths[:half])[0] + run(widths[half:])[0]
    assert results == apart
