"""Several devices against one: what is said of known times, what is refused; then the command."""

import re
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from bench import devices
from bench.peers.registry import OURS
from bench.records import Record, read_run
from bench.replicas import find_replicas, main, parse, peer_name
from bench.rules import UsageError
from bench.scaling import conclusions, print_report, scalings


def record(units: int, batch_size: int = 128, **faster: float) -> Record:
    """A record of so many devices being so many times as fast as one."""
    rng = np.random.default_rng(units)
    speeds = {OURS: 1.0} | {peer_name(int(n[1:])): speed for n, speed in faster.items()}
    arms = {
        name: {"samples": list(1e-5 / speed * np.exp(rng.normal(0, 0.002, 30)))}
        for name, speed in speeds.items()
    }
    cell = {"layers": 3, "units": units, "batch_size": batch_size, "device": "cpu"}
    key = f"U{units}-B{batch_size}"
    return Record(key=key, cell=cell, status="ok", arms=arms, order=[list(arms)] * 30)


def test_efficiency_is_the_ratio_over_the_number():
    (two, four) = scalings([record(64, n2=1.5, n4=2.0)], margin=0.02)
    assert (two.replicas, four.replicas) == (2, 4)
    assert two.judgement.ratio.estimate == pytest.approx(1.5, rel=0.01)
    assert [two.efficiency, four.efficiency] == pytest.approx([0.75, 0.5], rel=0.01)
    assert two.rate == pytest.approx(1e5, rel=0.01)


def test_says_from_which_size_it_pays():
    records = [record(64, n2=0.5), record(512, n2=1.4), record(128, n2=0.8), record(2048, n2=1.8)]
    (line,) = conclusions(scalings(records, margin=0.02))
    assert line.startswith("2 devices paid from T=3 units=512 batch=128 up, by the work of a step")
    assert "at best 1.80 times as fast as one, at T=3 units=2048 batch=128" in line


def test_says_that_it_never_paid():
    lines = conclusions(
        scalings([record(64, n2=0.5, n4=1.5), record(128, n2=1.001, n4=1.5)], margin=0.02)
    )
    assert lines[0].startswith("2 devices never paid in the sizes tried: at best 1.00 times")
    assert lines[1].startswith("4 devices paid from T=3 units=64 batch=128 up")


def test_says_that_it_paid_but_not_at_the_largest():
    (line,) = conclusions(scalings([record(64, n2=1.5), record(128, n2=0.9)], margin=0.02))
    assert "paid at 1 of 2 sizes, but not at the largest" in line


def test_the_report_says_what_the_devices_are_and_what_xla_compiles(capsys):
    ill = record(128, n2=1.0)
    ill.arms["2 replicas"] = {"error": "died"}
    ill.order[:] = [[OURS]] * 30
    print_report([record(64, n2=0.8), ill], Console(width=40), margin=0.02)
    out = capsys.readouterr().out
    assert "logical ones on the same CPU" in out
    assert "XLA compiles the whole epoch on one device" in out
    assert re.search(r"3 +64 +128 .* 2 +(0.79\d|0.80\d) .*slower +40%", out)
    assert max(map(len, out.splitlines()[:2])) <= 80


def test_more_gpus_than_there_are_is_refused(monkeypatch):
    monkeypatch.setattr(devices, "_gpus", lambda: ["gpu:0", "gpu:1"])
    assert find_replicas("gpu", 2) == "gpu:0,1"
    assert find_replicas("cpu", 8) == "cpu"
    with pytest.raises(UsageError, match="--replicas 3 needs so many GPUs, and TensorFlow sees 2"):
        find_replicas("gpu", 3)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--replicas 1", "--replicas needs a number above 1"),
        ("--replicas 0", "--replicas must be a positive whole number"),
        ("--replicas 64 --batch-size 32", "--batch-size counts the examples of all devices"),
        ("--device gpu:1", "--device must be cpu, gpu or auto"),
        ("--images bytes", "--images must be float32 or uint8"),
        ("--units 0", "--units must be a positive whole number"),
    ],
)
def test_refuses_with_a_sentence(argv, sentence, capsys):
    assert main(argv.split()) == 2
    assert sentence in capsys.readouterr().err
    assert parse(["--replicas", "2"]).replicas == (1, 2)


@pytest.mark.slow
def test_the_command_as_typed(tmp_path):
    argv = "--layers 2 --units 8 16 --batch-size 32 --data digits --device cpu --time-cap 1"
    command = [sys.executable, "-m", "bench.replicas", *argv.split(), "--results", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert (done.returncode, done.stderr) == (0, "")
    (folder,) = (tmp_path / "runs").iterdir()
    run, records, problems = read_run(folder)
    assert not problems
    assert [record.key for record in records] == run.plan
    for found in records:
        assert set(found.arms) == {OURS, "2 replicas"}
        assert all(len(arm["samples"]) == found.rounds >= 6 for arm in found.arms.values())
    accuracies = records[0].extra["accuracies"]
    assert accuracies[OURS] == pytest.approx(accuracies["2 replicas"], abs=0.01)
    assert "2 devices " in done.stdout
    assert "logical ones on the same CPU" in done.stdout
