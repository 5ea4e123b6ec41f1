"""`--plan-cost`: what it goes by, what it says and what it refuses."""

import json
import math
import re
import subprocess
import sys

import pytest

from bench.config import parse, to_arguments
from bench.costs import predict
from bench.evidence import read_evidence
from bench.machine import describe_machine
from bench.rules import UsageError
from tests.bench.finished_runs import OPTIONS, on_workers, plan_of


def plan_cost(*more: object) -> int:
    from bench import grid

    return grid.main([*OPTIONS.split(), "--plan-cost", "--workers", "2", *map(str, more)])


def test_a_clusters_run_is_evidence_when_named(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    elsewhere = describe_machine() | {"id": "x"}
    elsewhere["cpu"] = elsewhere["cpu"] | {"model": "Other CPU", "usable_cores": 3}
    folder = finished(factor=2.0)
    on_workers(folder, [elsewhere, elsewhere])
    found = read_evidence(folder)
    assert found.workers == 2
    _, plan = plan_of(OPTIONS)
    recorded = sum(record.extra["seconds"] for record in found.records)
    assert sum(predict(plan, found).seconds) == pytest.approx(recorded, rel=1e-3)
    assert plan_cost("--evidence", folder) == 0
    out = capsys.readouterr().out
    assert "as each of the 2 of that run: Other CPU, with 3 cores of its own" in out
    assert "slow each other" not in out
    assert plan_cost("--evidence", folder, "--workers", "1") == 0
    assert "the times are those of 2 workers at once" in capsys.readouterr().out
    assert plan_cost("--evidence", folder, "--workers", "3") == 0
    assert "slow each other" in capsys.readouterr().out
    assert plan_cost("--evidence", folder, "--workers", "1", "3") == 0
    out = capsys.readouterr().out
    assert "slow each other" in out
    assert "fewer are faster" in out
    on_workers(folder, [elsewhere, elsewhere | {"id": "y"}])
    assert plan_cost("--evidence", folder) == 2
    assert "its comparisons ran on unlike machines" in capsys.readouterr().err


def test_workers_of_one_machine_are_said_not_to_be_foreseen(finished, tmp_path, capsys):
    finished()
    assert plan_cost("--results", tmp_path) == 0
    assert "workers on one machine slow each other" in capsys.readouterr().out
    assert plan_cost("--results", tmp_path, "--workers", "1") == 0
    assert "slow each other" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (OPTIONS.replace("16 64", "16"), "all of it has units 16"),
        (f"{OPTIONS} --engine fit", "nothing of cpu, compiled"),
        (f"{OPTIONS} --accuracy-only", "trains only"),
    ],
)
def test_named_evidence_that_does_not_fit_is_refused(arguments, why, finished, capsys):
    assert plan_cost("--evidence", finished("unfit", arguments)) == 2
    assert why in capsys.readouterr().err


def test_what_is_no_finished_run_is_no_evidence(finished, tmp_path, capsys):
    folder = finished()
    (folder / "wall.json").unlink()
    for path in (folder, tmp_path / "none", tmp_path):
        assert plan_cost("--evidence", path) == 2
        assert f"Received: {path}" in capsys.readouterr().err


def test_prints_a_line_for_every_number_of_workers(finished, tmp_path, capsys, monkeypatch):
    from bench import grid

    finished()
    monkeypatch.chdir(tmp_path)
    argv = [*OPTIONS.split(), "--results", str(tmp_path), "--plan-cost", "--workers", "1", "1000"]
    assert grid.main([*argv, "--watts", "100", "--failure-rate", "0"]) == 0
    out = capsys.readouterr().out
    assert "4 comparisons, predicted from 4 in" in out
    assert "200 simulated trials, seed 0" in out
    assert re.search(r"^ *1 +0:0\d:\d\d +0:0\d:\d\d to 0:0\d:\d\d +0\.\d\d +0\.0 ", out, re.M)
    assert re.search(r"^ *1,000 ", out, re.M)
    assert "100 W a device, from --watts" in out
    assert grid.main(argv) == 0
    assert "energy: not known" in capsys.readouterr().out


def test_options_become_a_command_line_that_gives_them():
    argv = "--layers 2 3 --layer json:JSONDecoder --data-dir /x --target 0.5 --force --floor 0"
    options = parse(argv.split())
    assert parse(to_arguments(options)) == options


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ("--workers 0", "--workers must be a positive whole number"),
        ("--failure-rate -1", "--failure-rate must be zero or a positive number"),
        ("--straggler-rate 2", "--straggler-rate must be a share of 1"),
        ("--watts 0", "--watts must be a positive number"),
        ("--plan-cost --cluster tcp://127.0.0.1:1", "asks no cluster: leave --cluster out"),
        ("--evidence results/x", "--evidence is for --plan-cost"),
    ],
)
def test_refuses_with_a_sentence(argv, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse(argv.split())


@pytest.mark.slow
def test_a_calibration_tells_what_a_run_takes(tmp_path):
    plan = "--data digits --device cpu --layers 2 --units 8 --arms dense fixed --epochs 1 --seeds 1"
    grid = [sys.executable, "-m", "bench.grid", *plan.split(), "--time-cap", "1"]
    told = subprocess.run(
        [*grid, "--plan-cost", "--workers", "1", "--straggler-rate", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "calibrating with 1 short comparisons" in told.stdout
    (hours, minutes, seconds) = re.search(r"^ *1 +(\d+):(\d\d):(\d\d) ", told.stdout, re.M).groups()
    predicted = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
    (wall,) = tmp_path.glob("results/calibration/*/wall.json")
    took = json.loads(wall.read_text())
    # The same work as the plan's: the parts must add up to what there was, whatever the machine.
    assert math.isclose(predicted, took["ended"] - took["began"], rel_tol=0.15, abs_tol=1.0)
