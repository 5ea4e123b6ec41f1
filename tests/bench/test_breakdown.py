"""Where the time went adds up to the time there was."""

import pytest

from bench.breakdown import breakdown, breakdown_line
from bench.records import Record


def test_every_second_is_counted_once():
    arms = {
        "dense": {"training_seconds": 20.0, "compile_seconds": 2.0, "burst_compile_seconds": 1.0},
        "dense (A/A)": {"training_seconds": 0.0, "compile_seconds": float("nan")},
        "broken": {"error": "did not build"},
    }
    extra = {"timing_seconds": 50.0, "ceiling": {"seconds": 5.0}, "seconds": 80.0}
    extra |= {"rebuild_seconds": 10.0}
    record = Record(key="a", cell={}, status="ok", arms=arms, extra=extra)
    failed = Record(key="b", cell={}, status="failed", reason="its worker died")
    found = breakdown([record, failed], 100.0)
    assert found == pytest.approx(
        {"training": 20, "timing": 45, "compiling": 13, "building": 2, "starting, writing": 20}
    )
    assert sum(found.values()) == pytest.approx(100)
    assert breakdown_line([record], 100.0).endswith("neither training nor timing: 35%")
