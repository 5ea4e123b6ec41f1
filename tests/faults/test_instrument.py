"""The instrument on this machine: an arm slowed by 5 % is slower, and slower than an equal one.

Two arms that are built and compiled apart differ by about 1 % for as long as they live, though
their code is the same: between builds, not between rounds. That an A/A comparison says `same`, and
not only nothing wrong, therefore takes several builds of every arm, which is not done yet.
"""

import dataclasses
import os

import pytest

from bench.arms import AGAIN, ARMS, REFERENCE
from bench.engines import prepare_data, training_burst
from bench.models import build_model
from bench.plan import Cell
from bench.timing import measure_rounds
from bench.verdicts import Verdict, paired_ratio, verdict
from fixedbias.datasets import load_dataset

SESSIONS = int(os.environ.get("FIXEDBIAS_SESSIONS", "1"))
CELL = Cell(3, 128, 128, "float32", "cpu", "compiled", "ramp", "synthetic")
STEPS = 60


@pytest.mark.slow
@pytest.mark.timeout(120 * SESSIONS + 300)
@pytest.mark.parametrize("session", range(SESSIONS))
def test_five_per_cent_slower_is_slower_and_equal_is_not(session):
    data = prepare_data("compiled", load_dataset("synthetic:60000"))

    def burst(steps):
        model = build_model(ARMS[REFERENCE], CELL, 0)
        made = training_burst("compiled", model, data, 128, steps * 128)
        made.wait(made.launch())
        return made

    # Does 5 % more work than it owns up to.
    slowed = dataclasses.replace(burst(STEPS * 21 // 20), examples=STEPS * 128)
    bursts = {REFERENCE: burst(STEPS), AGAIN: burst(STEPS), "slowed": slowed}
    timed = measure_rounds(
        bursts, reference=REFERENCE, compared=[AGAIN, "slowed"], seed=session, cap=60.0
    )
    found, estimates = {}, {}
    for name in (AGAIN, "slowed"):
        ratio = paired_ratio(timed.samples[REFERENCE], timed.samples[name])
        found[name], estimates[name] = verdict(ratio), ratio.estimate
        print(
            f"{name}: {ratio.estimate:.4f} [{ratio.low:.4f}, {ratio.high:.4f}] {found[name]}, "
            f"{ratio.rounds} rounds, {timed.seconds:.0f} s, stopped on {timed.stop}"
        )
    assert found["slowed"] is Verdict.SLOWER
    # Not yet that it is `same`: see above.
    assert estimates["slowed"] < estimates[AGAIN]
