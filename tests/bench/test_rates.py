"""Rates of bare products, and the time of stacked networks over that of one."""

import math

import pytest

from bench import rates, stacking
from bench.records import Record, read_run


def only_record(folder) -> Record:
    (run,) = folder.iterdir()
    _, (record,), problems = read_run(run)
    assert not problems
    return record


@pytest.mark.slow
def test_rates_of_every_precision_are_recorded(tmp_path, capsys):
    argv = ["--device", "cpu", "--size", "64", "--time-cap", "0.5", "--results", str(tmp_path)]
    assert rates.main(argv) == 0
    arms = only_record(tmp_path).arms
    assert arms.keys() == {"float32", "bfloat16", "float16"}  # a CPU has no TensorFloat-32
    for arm in arms.values():
        middle = sorted(arm["samples"])[len(arm["samples"]) // 2]
        assert arm["flops_per_second"] == pytest.approx(2 * 64**3 / middle, rel=0.5)
    assert "TFLOP/s" in capsys.readouterr().out


@pytest.mark.slow
def test_stacked_networks_are_timed_beside_one(tmp_path, monkeypatch, capsys):
    from fixedbias.stacked import StackedProgram

    class Starved(StackedProgram):
        def __init__(self, models, data) -> None:
            if len(models) == 9:
                raise MemoryError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
            super().__init__(models, data)

    monkeypatch.setattr("fixedbias.stacked.StackedProgram", Starved)
    argv = "--device cpu --layers 2 --units 8 --data digits --counts 2 9 --time-cap 1 --results"
    assert stacking.main([*argv.split(), str(tmp_path)]) == 1  # nine did not fit
    record = only_record(tmp_path)
    assert record.arms["9"]["error"].startswith("out of memory on the device, MemoryError")
    ((count, (low, estimate, high)),) = stacking.time_ratios(record).items()
    assert count == 2
    assert low <= estimate <= high
    assert len(record.arms["2"]["samples"]) == len(record.arms["1"]["samples"]) >= 6
    assert "9 networks: out of memory" in capsys.readouterr().out


def test_the_ratio_is_of_times_and_not_of_speeds():
    arms = {"1": {"samples": [1.0] * 8}, "4": {"samples": [3.0] * 8}, "9": {"error": "no"}}
    order = [["1", "4"]] * 8
    record = Record(key="s", cell={}, status="ok", arms=arms, order=order)
    ((count, ratio),) = stacking.time_ratios(record).items()
    assert count == 4
    assert ratio == pytest.approx((3.0, 3.0, 3.0))
    few = Record(
        key="s",
        cell={},
        status="ok",
        arms={
            name: {"samples": arm["samples"][:5]} for name, arm in arms.items() if "samples" in arm
        },
        order=order[:5],
    )
    assert stacking.time_ratios(few)[4][2] == math.inf


@pytest.mark.parametrize("main", [rates.main, stacking.main])
@pytest.mark.parametrize("argv", [["--device", "all"], ["--floor", "-1"], ["--time-cap", "0"]])
def test_bad_input_is_one_sentence_and_status_2(main, argv, capsys):
    assert main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
