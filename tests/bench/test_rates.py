"""Rates of bare products, and the time of stacked networks over that of one."""

import math
import subprocess
import sys

import pytest

from bench import rates, stacking
from bench.records import Record, read_run


def only_record(folder) -> Record:
    (run,) = folder.iterdir()
    _, (record,), problems = read_run(run)
    assert not problems
    return record


def as_typed(module: str, *argv: str) -> str:
    """What a command prints, which must be nothing of TensorFlow's."""
    command = [sys.executable, "-m", module, *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_rates_of_every_precision_are_recorded(tmp_path):
    argv = ["--device", "cpu", "--size", "64", "--time-cap", "0.5", "--results", str(tmp_path)]
    said = as_typed("bench.rates", *argv)
    arms = only_record(tmp_path).arms
    assert arms.keys() == {"float32", "bfloat16", "float16"}  # a CPU has no TensorFloat-32
    for arm in arms.values():
        middle = sorted(arm["samples"])[len(arm["samples"]) // 2]
        assert arm["flops_per_second"] == pytest.approx(2 * 64**3 / middle, rel=0.5)
    assert said.count("TFLOP/s") == 3


@pytest.mark.slow
def test_the_counts_of_this_machines_programs():
    said = as_typed("bench.programs", "--units", "8", "--arms", "dense", "fixed").splitlines()
    assert [line.split(":")[0] for line in said] == ["dense", "fixed"]
    assert all(line.endswith("no host transfer") for line in said)


@pytest.mark.slow
def test_stacked_networks_are_timed_beside_one(tmp_path):
    argv = "--device cpu --layers 2 --units 8 --data digits --counts 2 --time-cap 1 --results"
    assert "2 networks: " in as_typed("bench.stacking", *argv.split(), str(tmp_path))
    record = only_record(tmp_path)
    ((count, (low, estimate, high)),) = stacking.time_ratios(record).items()
    assert count == 2
    assert low <= estimate <= high


@pytest.mark.slow
def test_networks_too_many_for_the_memory_cost_themselves_alone(monkeypatch):
    from fixedbias.stacked_epochs import StackedProgram

    class Starved(StackedProgram):
        def __init__(self, models, data) -> None:
            if len(models) == 9:
                raise MemoryError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")
            super().__init__(models, data)

    monkeypatch.setattr("fixedbias.stacked_epochs.StackedProgram", Starved)
    options = stacking.Options(counts=(2, 9), time_cap=1.0)
    cell = {"layers": 2, "units": 8, "batch_size": 128, "precision": "float32", "device": "cpu"}
    cell |= {"engine": "stacked", "bias": "constant", "data": "digits"}
    record = stacking.measure(options, cell, None)
    assert record.arms["9"]["error"].startswith("out of memory on the device, MemoryError")
    assert len(record.arms["2"]["samples"]) == len(record.arms["1"]["samples"]) >= 6
    assert [line.split(":")[0] for line in stacking.lines(record)] == ["2 networks", "9 networks"]


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
