"""The instrument on this machine: an arm slowed by 5 % is slower, and an equal one is the same.

It times as the driver does by default, on one thread of a worker process. On a machine that is busy
with other things neither may be told within the cap: then it must say so. `FIXEDBIAS_SESSIONS` sets
how many sessions there are, and says that the machine is quiet: each must then come to its word.
"""

import dataclasses
import os
import random
import time

import pytest

from bench.arms import ARMS, REFERENCE
from bench.config import Options
from bench.executors import LocalExecutor
from bench.plan import Cell
from bench.ratios import paired_ratio
from bench.timing import measure_rounds
from bench.verdicts import Verdict, verdict

QUIET = "FIXEDBIAS_SESSIONS" in os.environ
SESSIONS = int(os.environ.get("FIXEDBIAS_SESSIONS", "1"))
CELL = Cell(3, 128, 128, "float32", "cpu", "compiled", "ramp", "synthetic", threads=1)
# About as long a sample as the driver's on 2 cores; and as many steps as 5 % more can be had of.
STEPS, STEPS_TO_SLOW = 12, 20


def _race(steps, other_steps, session):
    """Times `dense` of `steps` steps beside `dense` of `other_steps`, which owns up to `steps`.

    Returns:
        The verdict, and what was measured as a line of text.
    """
    from bench.engines import prepare_data, training_burst
    from bench.models import CellModel
    from bench.runtime import set_threads
    from fixedbias.datasets import load_dataset

    set_threads(CELL.threads)
    data = prepare_data("compiled", load_dataset("synthetic:60000"))
    shuffle = random.Random(session).shuffle

    def build():
        bursts = {}
        order = [(REFERENCE, steps), ("other", other_steps)]
        shuffle(order)  # as `bench.worker` does
        for name, count in order:
            model = CellModel(ARMS[REFERENCE], CELL, data).keras_model
            made = training_burst("compiled", model, data, 128, count * 128)
            made.wait(made.launch())
            bursts[name] = dataclasses.replace(made, examples=steps * 128)
        return bursts

    begin = time.perf_counter()
    first = build()
    timed = measure_rounds(
        first,
        reference=REFERENCE,
        compared=["other"],
        seed=session,
        floor=Options().floor,
        cap=60.0,
        rebuild=build,
        min_builds=Options().builds,
        build_seconds=time.perf_counter() - begin,
    )
    ratio = paired_ratio(timed.samples[REFERENCE], timed.samples["other"], builds=timed.builds)
    return verdict(ratio), (
        f"{ratio.estimate:.4f} [{ratio.low:.4f}, {ratio.high:.4f}] {verdict(ratio)}, "
        f"{ratio.rounds} rounds of {ratio.builds} builds, {timed.seconds:.0f} s, {timed.stop}, "
        f"{timed.repeats} launches a sample"
    )


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize("session", range(SESSIONS))
def test_an_arm_is_the_same_as_itself(session):
    _check(STEPS, STEPS, session, Verdict.SAME)


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize("session", range(SESSIONS))
def test_an_arm_that_does_5_percent_more_is_slower(session):
    _check(STEPS_TO_SLOW, STEPS_TO_SLOW * 21 // 20, session, Verdict.SLOWER)


def _check(steps, other_steps, session, right):
    if QUIET:
        assert _word(steps, other_steps, session) is right
        return
    # One 95 % interval in twenty leaves out the truth, and a wide one may then give a wrong word.
    # Two of two would refute the 95 %.
    words = (_word(steps, other_steps, seed) for seed in (session, session + 1))
    assert any(word in (right, Verdict.CANT_TELL) for word in words)


def _word(*what):
    with LocalExecutor() as executor:
        word, line = executor.call(_race, *what)
    print(line)
    return word
