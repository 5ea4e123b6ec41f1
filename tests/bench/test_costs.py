"""A cost model that is right about records made by a known law, and a command that uses it."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from bench.arms import AGAIN
from bench.config import parse, to_arguments
from bench.costs import predict
from bench.evidence import find_evidence, read_evidence
from bench.machine import describe_machine
from bench.plan import make_plan
from bench.records import Record
from bench.rules import UsageError

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
OPTIONS = "--device cpu --data digits --layers 2 4 --units 16 64 --epochs 2 --seeds 3 --time-cap 8"


def law(cell, epochs: int, arms: int, again: int = 1) -> float:
    """Seconds of training and building: so much per step, product, arm and layer."""
    products = 784 * cell.units + (cell.layers - 2) * cell.units**2 + 10 * cell.units
    epoch = 3e-9 * 1442 * products + 2e-5 * 1442 / cell.batch_size
    return (arms + again) * (1.5 + 0.5 * cell.layers) + arms * epochs * epoch


def plan_of(arguments: str):
    options = parse(arguments.split())
    return options, make_plan(options, ["cpu"], options.data, None)


def records_of(arguments: str, factor: float = 1.0) -> tuple[list[Record], dict]:
    """Records as the law would have them: each took 2 s more to come back, the first 9 s more."""
    options, plan = plan_of(arguments)
    now, records = BEGAN, []
    for comparison in plan:
        cell = comparison.cell
        epochs = options.seeds * options.epochs
        training = law(cell, epochs, 3) - law(cell, 0, 3)
        timed = not options.accuracy_only
        # Now more, now less of the cap: three quarters on average.
        timing = (0.5, 1.0)[len(records) % 2] * options.time_cap * timed
        seconds = law(cell, epochs + 1, 3, timed) + timing + timed
        names = (*options.arms, *[AGAIN] * timed)
        arms = {n: {"training_seconds": factor * training / 3 if n != AGAIN else 0} for n in names}
        end = now + timedelta(seconds=factor * seconds)
        records.append(
            Record(
                key=cell.key,
                cell=cell.recorded,
                status="ok",
                arms=arms,
                extra={
                    "seconds": factor * seconds,
                    "turnaround_seconds": factor * seconds + 2 + 7 * (not records),
                    "position_in_process": len(records) + 1,
                    "examples": 1442,
                    "timing_seconds": factor * timing,
                    "ceiling": {"seconds": factor * timed},
                },
                started=now.isoformat(),
                ended=end.isoformat(),
            )
        )
        now = end + timedelta(seconds=2)
    return records, {"options": {**vars(options), "results": "", "data_dir": None}}


@pytest.fixture
def finished(make_run):
    """A finished run, by its arguments."""

    def write(name: str = "a", arguments: str = OPTIONS, *, created=BEGAN, factor=1.0, **header):
        records, known = records_of(arguments, factor)
        header = {"argv": ["python", "-m", "bench.grid"], **known, **header}
        folder = make_run(name, records, created=created.isoformat(), **header)
        began, last = (
            moment.timestamp() for moment in (BEGAN, datetime.fromisoformat(records[-1].ended))
        )
        times = {"began": began - 4, "first": began, "last": last, "ended": last + 5}
        (folder / "wall.json").write_text(json.dumps(times | {"handling": 0.5}))
        return folder

    return write


def test_the_parts_of_the_wall_time_are_told_apart(finished):
    found = read_evidence(finished())
    parts = (found.begin, found.start, found.handout, found.handling, found.end)
    assert parts == pytest.approx((4, 7, 2, 0.5, 5))


def test_predicts_the_run_itself_and_one_that_was_never_made(finished):
    evidence = read_evidence(finished())
    _, same = plan_of(OPTIONS)
    found = predict(same, evidence)
    expected = [law(c.cell, 3 * 2 + 1, 3) + 0.75 * 8 + 1.0 for c in same]
    assert found.seconds == pytest.approx(expected, rel=1e-3)
    assert sum(found.seconds) == pytest.approx(sum(r.extra["seconds"] for r in evidence.records))
    # What the timing took varies, and so does the prediction.
    assert found.spread == pytest.approx(2 / np.mean(expected), rel=0.3)
    assert found.beyond == pytest.approx(1)
    assert not found.whole_cap

    more = OPTIONS.replace("64", "512").replace("--epochs 2", "--epochs 9") + " --batch-size 128"
    options, other = plan_of(more.replace("--time-cap 8", "--time-cap 40"))
    found = predict(other, evidence)
    # Nothing is known of how much of another cap is taken: all of it.
    told = [law(c.cell, 3 * 9 + 1, 3) + 40 + 1.0 * 5.0 / 2.0 for c in other]
    assert found.seconds == pytest.approx(told, rel=1e-3)
    assert found.whole_cap
    assert found.beyond > 10
    assert options.units == (16, 512)


def test_goes_by_the_newest_run_that_is_like_the_plan(finished, make_run, tmp_path):
    _, plan = plan_of(OPTIONS)
    machine = describe_machine()
    assert find_evidence(tmp_path, machine, plan) is None
    old = finished("old")
    assert find_evidence(tmp_path, machine, plan).folder == old
    new = finished("new", created=BEGAN + timedelta(days=1))
    finished("elsewhere", created=BEGAN + timedelta(days=2), machine=machine | {"id": "x"})
    finished("other", f"{OPTIONS} --precision mixed_float16", created=BEGAN + timedelta(days=2))
    records, header = records_of(OPTIONS)
    make_run("unfinished", records, created="2031-01-01", **header)
    assert find_evidence(tmp_path, machine, plan).folder == new
    both = plan_of(f"{OPTIONS} --precision float32 mixed_float16")[1]
    assert find_evidence(tmp_path, machine, both) is None


def test_trainings_alone_are_foretold_from_trainings_alone(finished, tmp_path):
    alone = f"{OPTIONS} --accuracy-only"
    machine, (_, plan), (_, timed) = describe_machine(), plan_of(alone), plan_of(OPTIONS)
    finished("timed")
    assert find_evidence(tmp_path, machine, plan) is None
    found = predict(plan, read_evidence(finished("alone", alone)))
    assert found.seconds == pytest.approx([law(c.cell, 7, 3, 0) for c in plan], rel=1e-3)
    assert not found.whole_cap
    assert find_evidence(tmp_path, machine, plan).folder.name == "alone"
    assert find_evidence(tmp_path, machine, timed).folder.name == "timed"


def test_what_says_nothing_of_an_axis_or_ran_elsewhere_is_no_evidence(finished, tmp_path):
    machine = describe_machine()
    finished("one-width", OPTIONS.replace("16 64", "16"))
    assert find_evidence(tmp_path, machine, plan_of(OPTIONS)[1]) is None
    assert find_evidence(tmp_path, machine, plan_of(OPTIONS.replace("16 64", "16"))[1])
    folder = finished("cluster")
    path = next((folder / "records").glob("*.json"))
    record = json.loads(path.read_text())
    record["extra"]["worker"] = {"host": "a", "cores": [0], "gpu": None, "machine": machine}
    path.write_text(json.dumps(record))
    assert find_evidence(tmp_path, machine, plan_of(OPTIONS)[1]) is None
    cpu = machine["cpu"] | {"usable_cores": 99}
    finished("fewer-cores", machine=machine | {"cpu": cpu})
    assert find_evidence(tmp_path, machine, plan_of(OPTIONS)[1]) is None


def on_workers(folder, machines: list[dict]) -> None:
    """Makes a run one of a cluster's workers, which take turns; each is a machine of its own."""
    for n, path in enumerate(sorted((folder / "records").glob("*.json"))):
        record = json.loads(path.read_text())
        turn = n % len(machines)
        worker = {"host": f"h{turn}", "cores": [0], "gpu": None, "machine": machines[turn]}
        record["extra"]["worker"] = worker
        path.write_text(json.dumps(record))


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


def test_what_a_dead_worker_was_given_tells_nothing(finished):
    folder = finished()
    on_workers(folder, [describe_machine()] * 2)
    path = sorted((folder / "records").glob("*.json"))[-1]
    record = json.loads(path.read_text()) | {"status": "failed", "arms": {}, "order": []}
    path.write_text(json.dumps(record | {"extra": {"turnaround_seconds": 1800.0}}))
    found = read_evidence(folder)
    assert found.workers == 2
    assert (found.start, found.handout) == pytest.approx((7, 2))


def test_what_a_device_means_goes_by_the_evidence(finished):
    found = read_evidence(finished())
    assert (found.devices("auto"), found.devices("gpu")) == (["cpu"], ["gpu:0"])
    both = [
        replace(record, cell=record.cell | {"device": device})
        for record, device in zip(found.records, ("cpu", "gpu:1", "gpu:0"), strict=False)
    ]
    # As a run has it: the first GPU, and `all` with those of which nothing was measured.
    machine = found.machine | {"gpus": [{}, {}, {}]}
    found = replace(found, records=both, machine=machine)
    assert found.devices("auto") == ["gpu:0"]
    assert found.devices("all") == ["cpu", "gpu:0", "gpu:1", "gpu:2"]
    assert replace(found, workers=2).devices("all") == ["cpu", "gpu:0"]
    flags = machine["flags"] | {"CUDA_VISIBLE_DEVICES": "2,0"}
    hidden = replace(found, machine=machine | {"flags": flags})
    assert hidden.devices("all") == ["cpu", "gpu:0", "gpu:1"]
    # Of a run of all devices, those that it had: TensorFlow may see fewer than NVML.
    run = replace(found.run, options=found.run.options | {"device": "all"})
    assert replace(found, run=run).devices("all") == ["cpu", "gpu:0", "gpu:1"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"began": "x", "ended": 1}', '{"began": NaN}', '{"further": 1}']
)
def test_a_damaged_file_is_no_evidence(text, finished, tmp_path):
    (finished() / "wall.json").write_text(text)
    assert find_evidence(tmp_path, describe_machine(), plan_of(OPTIONS)[1]) is None


@pytest.mark.parametrize("number", range(4))
def test_a_damaged_record_is_no_evidence(number, finished, tmp_path):
    folder = finished()
    path = sorted((folder / "records").glob("*.json"))[number]
    record = json.loads(path.read_text())
    record["extra"]["worker"] = {"host": "a"}
    path.write_text(json.dumps(record))
    assert read_evidence(folder) is None
    assert find_evidence(tmp_path, describe_machine(), plan_of(OPTIONS)[1]) is None


@pytest.mark.parametrize(
    ("visible", "worker", "expected"),
    [(None, None, 250), ("1,0", None, 9), (None, "1", 9), ("0", "1", 9), (None, "GPU-x", None)],
)
def test_energy_is_that_of_the_gpu_it_ran_on(visible, worker, expected, finished):
    evidence = read_evidence(finished())
    assert predict(plan_of(OPTIONS)[1], evidence).watts is None
    counted = [
        replace(
            record,
            cell=record.cell | {"device": "gpu:0", "threads": "all"},
            extra=record.extra | ({"worker": {"gpu": worker}} if worker else {}),
            before={"gpus": [{"energy_mj": 5000}, {"energy_mj": 0}]},
            after={
                "gpus": [
                    {"energy_mj": 5000 + 250_000 * record.extra["seconds"]},
                    {"energy_mj": 9_000 * record.extra["seconds"]},
                ]
            },
        )
        for record in evidence.records
    ]
    flags = evidence.machine["flags"] | ({"CUDA_VISIBLE_DEVICES": visible} if visible else {})
    options = parse(OPTIONS.split())
    plan = make_plan(options, ["gpu:0"], "digits", None)
    machine = evidence.machine | {"flags": flags}
    found = predict(plan, replace(evidence, records=counted, machine=machine))
    assert found.watts == (expected and pytest.approx(expected))


def test_the_energy_of_a_hosts_only_gpu_is_no_cpus(finished):
    evidence = read_evidence(finished())
    states = {
        "before": {"gpus": [{"energy_mj": 0}]},
        "after": {"gpus": [{"energy_mj": 1_000_000}]},
    }
    counted = replace(evidence, records=[replace(r, **states) for r in evidence.records])
    assert predict(plan_of(OPTIONS)[1], counted).watts is None


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
