"""Records as tables."""

import math
from pathlib import Path

import pytest

from bench import records
from tests.bench.tiny import ARMS, ORDER, header, record


def test_load(run: Path) -> None:
    records.write_run(run, header("tiny", "broken"))
    records.write_record(run, record(arms=ARMS, order=ORDER, stop="time"))
    records.write_record(run, record("broken", status="failed", reason="out of memory"))
    frame = records.load(run)
    assert frame["key"].tolist() == ["tiny", "tiny", "broken"]
    dense, fixed, broken = (row for _, row in frame.iterrows())
    assert dense["arm"] == "dense"
    assert (dense["layers"], dense["bias"], dense["rounds"], dense["stop"]) == (
        3,
        "ramp",
        3,
        "time",
    )
    assert dense["seconds_per_example"] == 3e-6
    assert dense["examples_per_second"] == pytest.approx(1 / 3e-6)
    assert dense["accuracy"] == pytest.approx(0.85)
    assert (dense["seeds"], dense["compile_seconds"]) == (2, 1.5)
    assert (fixed["samples"], fixed["seconds_per_example"]) == (3, 2e-6)
    assert fixed["parameters"] == 101_770
    assert math.isnan(fixed["accuracy"])
    assert (broken["status"], broken["reason"]) == ("failed", "out of memory")
    assert frame["arm"].isna().tolist() == [False, False, True]


def test_load_samples(run: Path) -> None:
    records.write_run(run, header("tiny"))
    order = [*ORDER, ["fixed", "dense"]]
    arms = ARMS | {"fixed": {"samples": [1e-6, 2e-6, 3e-6, 4e-6]}}
    failed = record(arms=arms, order=order, status="failed", reason="killed in round 3")
    records.write_record(run, failed)
    frame = records.load_samples(run)
    assert len(frame) == 7
    fixed = frame[frame["arm"] == "fixed"]
    assert fixed["round"].tolist() == [0, 1, 2, 3]
    assert fixed["position"].tolist() == [1, 0, 1, 0]
    assert fixed["seconds_per_example"].tolist() == [1e-6, 2e-6, 3e-6, 4e-6]


def test_tables_of_an_empty_run_have_their_columns(run: Path) -> None:
    records.write_run(run, header("tiny"))
    assert {"key", "arm", "status", "seconds_per_example"} <= {*records.load(run).columns}
    assert list(records.load_samples(run).columns)[:2] == ["key", "arm"]
