"""Numbers that go wrong: recorded with what happened, shown, and never called `same`."""

import math
import subprocess
import sys

import pytest

from bench.records import read_run
from bench.summary import summarise
from bench.verdicts import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LAYERS = """
import keras

class Explodes(keras.layers.Dense):
    def call(self, x):
        return super().call(x) * 1e25

class NotANumber(keras.layers.Dense):
    def call(self, x):
        y = super().call(x)
        return y / (y - y)
"""
COMMON = "--layers 3 --seeds 1 --builds 1 --time-cap 1 --halfwidth 0.5 --device cpu --data digits"


def run(cwd, words):
    """A run of the command as typed: what it printed, its header, records and problems."""
    (cwd / "mine.py").write_text(LAYERS)
    argv = [sys.executable, "-m", "bench.grid", *COMMON.split(), *words.split()]
    argv += ["--results", "runs"]
    done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=280)
    assert "Traceback" not in done.stdout + done.stderr
    (folder,) = (cwd / "runs").iterdir()
    return done, *read_run(folder)


def rows(records):
    summary = summarise(records, margin=0.02)
    return {(row.cell["units"], row.arm): row for row in summary}


def check_shown(done, row):
    """The table has the row, and what happened stands below it."""
    assert row.flags
    assert row.verdict in (None, Verdict.CANT_TELL)
    for flag in row.flags:
        assert flag[:40] in done.stdout
    lines = [line for line in done.stdout.splitlines() if f" {row.arm} " in line]
    assert any("can't tell" in line or "failed" in line for line in lines)


def test_training_that_fails_is_flagged_and_gets_no_verdict(tmp_path):
    """Biases that kill every unit, and layers that explode."""
    words = "--units 16 --epochs 2 --bias constant:value=-1000 --arms fixed dense-frozen "
    words += "--layer mine.py:Explodes mine.py:NotANumber"
    done, _, (record,), problems = run(tmp_path, words)
    assert (record.status, problems) == ("ok", [])
    table = rows([record])
    assert table[16, "dense"].flags == []  # the reference beside them is as it is
    for arm, flag in {
        "fixed": "learnt nothing",
        "dense-frozen": "learnt nothing",
        "Explodes": "the loss was not finite",
        "NotANumber": "the loss was not finite",
    }.items():
        row = table[16, arm]
        assert flag in row.flags, arm
        assert row.verdict is Verdict.CANT_TELL
        check_shown(done, row)
        assert record.arms[arm]["samples"]  # that it was timed is kept


def test_float16_that_overflows_is_recorded_and_the_run_goes_on(tmp_path):
    # 16 * 4096 is more than float16 holds; 15 * 4096 is not, and its sums are.
    words = "--units 16 17 --epochs 2 --precision mixed_float16 --bias ramp:step=4096 "
    done, header, records, problems = run(tmp_path, words + "--arms fixed dense-frozen")
    assert [record.key for record in records] == header.plan
    assert not problems
    table = rows(records)
    # The bias itself is too large: the layer refuses it by name, and a `Dense` computes infinity.
    assert "must be finite in float16" in records[1].arms["fixed"]["error"]
    for units in (16, 17):
        frozen = records[units - 16].arms["dense-frozen"]
        assert not all(map(math.isfinite, frozen["histories"][0]["loss"])) or (
            frozen["accuracies"][0] < 0.2
        )
        for arm in ("fixed", "dense-frozen"):
            check_shown(done, table[units, arm])
