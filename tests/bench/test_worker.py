"""A worker whose device runs out of memory: what was done is kept, and the reason is clear."""

from dataclasses import replace
from typing import Any

import pytest

from bench.config import Options
from bench.plan import make_plan
from bench.runtime import ran_out_of_memory
from bench.worker import describe_error, measure, ran_out


def starve(*_: Any, **__: Any) -> None:
    import tensorflow as tf

    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["bench.timing.measure_rounds", "bench.ceilings.step_products"])
def test_out_of_memory_after_the_trainings_keeps_them(where, monkeypatch):
    options = Options(layers=(2,), units=(4,), epochs=1, seeds=1, time_cap=0.5, arms=("dense",))
    options = replace(options, threads=("all",))  # this process has its threads already
    (comparison,) = make_plan(options, ["cpu"], "digits", None)
    monkeypatch.setattr(where, starve)
    record = measure(comparison)
    said = "out of memory on the device, ResourceExhaustedError: OOM when allocating tensor"
    assert len(record.arms["dense"]["accuracies"]) == 1
    assert ran_out(record)
    if "rounds" in where:
        assert (record.status, record.reason, record.rounds) == ("failed", said, 0)
    else:
        assert record.status == "ok"
        assert f"no ceiling: {said}" in record.notes
        assert len(record.arms["dense"]["samples"]) == record.rounds > 0


@pytest.mark.parametrize(
    "text",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4 bytes",
        "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "OOM when allocating tensor with shape[4]",
    ],
)
def test_every_way_to_say_it_is_known(text):
    assert ran_out_of_memory(RuntimeError(text))
    assert (
        describe_error(RuntimeError(text)) == f"out of memory on the device, RuntimeError: {text}"
    )


def test_other_errors_are_not_taken_for_it():
    assert not ran_out_of_memory(MemoryError("the host's"))
    assert describe_error(ValueError("room")) == "ValueError: room"
