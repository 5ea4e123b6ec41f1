"""Which runs tell what a plan takes, and what is read from them."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from bench.evidence import find_evidence, read_evidence
from bench.machine import describe_machine
from tests.bench.finished_runs import BEGAN, OPTIONS, on_workers, plan_of, records_of


def test_the_parts_of_the_wall_time_are_told_apart(finished):
    found = read_evidence(finished())
    parts = (found.begin, found.start, found.handout, found.handling, found.end)
    assert parts == pytest.approx((4, 7, 2, 0.5, 5))


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
    machine = found.machine | {"gpus": [{"index": n} for n in range(3)]}
    found = replace(found, records=both, machine=machine)
    assert found.devices("auto") == ["gpu:0"]
    assert found.devices("all") == ["cpu", "gpu:0", "gpu:1", "gpu:2"]
    assert replace(found, workers=2).devices("all") == ["cpu", "gpu:0"]
    flags = machine["flags"] | {"CUDA_VISIBLE_DEVICES": "2,0"}
    hidden = replace(found, machine=machine | {"flags": flags})
    assert hidden.devices("all") == ["cpu", "gpu:0", "gpu:1"]
    none = replace(found, machine=machine | {"flags": flags | {"CUDA_VISIBLE_DEVICES": "-1"}})
    assert none.devices("all") == ["cpu"]
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
