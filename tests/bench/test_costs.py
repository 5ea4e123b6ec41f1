"""A cost model that is right about records made by a known law."""

from dataclasses import replace

import numpy as np
import pytest

from bench.config import parse
from bench.costs import predict
from bench.evidence import find_evidence, read_evidence
from bench.machine import describe_machine
from bench.plan import make_plan
from tests.bench.finished_runs import OPTIONS, law, plan_of


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
