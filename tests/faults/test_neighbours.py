"""A busy neighbour on every core, started in mid-session: the verdict is right, or `can't tell`.

`FIXEDBIAS_SESSIONS` sets how many sessions there are.
"""

import dataclasses
import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

from bench.arms import ARMS, REFERENCE
from bench.engines import prepare_data, training_burst
from bench.models import build_model
from bench.plan import Cell
from bench.ratios import paired_ratio
from bench.timing import measure_rounds
from bench.verdicts import Verdict, verdict
from fixedbias.datasets import load_dataset

SESSIONS = int(os.environ.get("FIXEDBIAS_SESSIONS", "3"))
SECONDS = 10.0
CELL = Cell(3, 128, 128, "float32", "cpu", "compiled", "ramp", "synthetic")
STEPS = 60


class Neighbours:
    """Spins on every core from some moment on."""

    def __init__(self, after: float) -> None:
        self._processes: list[subprocess.Popen] = []
        self._timer = threading.Timer(after, self._start)

    def _start(self) -> None:
        spin = [sys.executable, "-c", "while True: pass"]
        for _ in range(os.cpu_count() or 1):
            self._processes.append(subprocess.Popen(spin))

    def __enter__(self) -> "Neighbours":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(60 + 60 * SESSIONS)
def test_a_busy_neighbour_makes_no_wrong_verdict():
    data = prepare_data("compiled", load_dataset("synthetic:60000"))

    def burst(steps):
        model = build_model(ARMS[REFERENCE], CELL, 0)
        made = training_burst("compiled", model, data, 128, steps * 128)
        made.wait(made.launch())
        return made

    # Does 5 % more work than it owns up to.
    slowed = dataclasses.replace(burst(STEPS * 21 // 20), examples=STEPS * 128)
    bursts = {REFERENCE: burst(STEPS), "slowed": slowed}
    words: Counter = Counter()
    for session in range(SESSIONS):
        with Neighbours(after=SECONDS / 2):
            timed = measure_rounds(
                bursts,
                reference=REFERENCE,
                compared=["slowed"],
                seed=session,
                halfwidth=1e-9,  # all of the time, so that the neighbours have their half
                cap=SECONDS,
            )
        ratio = paired_ratio(timed.samples[REFERENCE], timed.samples["slowed"])
        words[verdict(ratio)] += 1
        print(
            f"{ratio.estimate:.4f} [{ratio.low:.4f}, {ratio.high:.4f}] {verdict(ratio)}, "
            f"{ratio.rounds} rounds"
        )
    assert words.keys() <= {Verdict.SLOWER, Verdict.CANT_TELL}
    assert words.total() == SESSIONS
