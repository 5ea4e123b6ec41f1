"""`python -m bench.compare`: what changed between two runs, and gating on it."""

import dataclasses
import math

import pytest

from bench.compare import change_of, main, pairs_of
from bench.machine import describe_machine
from bench.records import Record, cell_key
from tests.bench.conftest import make_record


def run_pair(make_run, before, after, **header):
    a = make_run("a", [make_record(seed=1, rounds=200, fixed=before)])
    b = make_run("b", [make_record(seed=2, rounds=200, fixed=after)], **header)
    return [str(a), str(b)]


def test_an_arm_that_became_slower_fails_the_gate(make_run, capsys):
    argv = run_pair(make_run, 1.0, 0.9)
    assert main([*argv, "--fail-on", "slower"]) == 1
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " fixed " in line)
    assert "slower" in line
    assert main(argv) == 0


def test_no_change_is_the_same_whatever_the_machine_did_meanwhile(make_run, capsys):
    """The records drift by a factor of two each, independently."""
    assert main([*run_pair(make_run, 1.0, 1.0), "--fail-on", "slower"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " fixed " in line)
    assert "same" in line


def test_dense_itself_is_held_against_the_bare_products(make_run, capsys):
    main(run_pair(make_run, 1.0, 1.0))
    out = capsys.readouterr().out
    assert "numpy's products" in out
    assert "tensorflow's products" in out


def test_different_machines_are_said_first(make_run, capsys):
    a = make_run("a", [make_record(fixed=1.0)])
    b = make_run("b", [make_record(fixed=1.0)], machine=describe_machine() | {"id": "other"})
    main([str(a), str(b)])
    assert capsys.readouterr().out.startswith("different machines")


def test_cells_of_one_run_only_are_counted(make_run, capsys):
    a = make_run("a", [make_record(8), make_record(16)])
    b = make_run("b", [make_record(8)])
    main([str(a), str(b)])
    assert "1 cells are in one run only" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["missing", "nothing shared", "margin"])
def test_bad_input_ends_with_status_2_and_a_sentence(what, make_run, capsys):
    a = str(make_run("a", [make_record(8)]))
    b = str(make_run("b", [make_record(16)]))
    argv = {
        "missing": [a, a + "-missing"],
        "nothing shared": [a, b],
        "margin": [a, a, "--margin", "-1"],
    }[what]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_what_failed_is_said_and_does_not_pass_the_gate(make_run, capsys):
    good = make_record(8, seed=1, rounds=60, fixed=1.0)
    raised = make_record(8, seed=2, rounds=60, fixed={"error": "RuntimeError: no"})
    gone = Record(key=good.key, cell=good.cell, status="failed", reason="SIGKILL")
    a = str(make_run("a", [good]))
    for name, record, line in [
        ("raised", raised, f"failed in RUN_B: {good.key}, fixed: RuntimeError: no"),
        ("gone", gone, f"failed in RUN_B: {good.key}, SIGKILL"),
    ]:
        b = str(make_run(name, [record]))
        assert main([a, b, "--fail-on", "slower"]) == 1
        out = capsys.readouterr().out
        assert line in out
        assert "in one run only" not in out
        assert main([a, b]) == 0
        capsys.readouterr()
    damaged = make_run("damaged", [good])
    (path,) = (damaged / "records").glob("*.json")
    path.write_text("{")
    assert main([a, str(damaged), "--fail-on", "slower"]) == 1
    assert "not read: " in capsys.readouterr().out


def test_a_training_that_does_not_work_is_not_the_same_as_before(make_run, capsys):
    nan = {"histories": [{"loss": [math.nan], "seconds": [1.0]}], "accuracies": [0.1]}
    fixed = make_record(8, seed=1, rounds=200, fixed=1.0).arms["fixed"]
    record = make_record(8, seed=1, rounds=200, fixed=fixed | nan)
    argv = [str(make_run(name, [record])) for name in "ab"]
    assert main(argv) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if " fixed " in line)
    assert "can't tell" in line


def test_workers_with_more_cores_are_no_change_of_the_code(make_run, capsys):
    machine = describe_machine()
    more = machine | {"cpu": machine["cpu"] | {"usable_cores": 99}}
    a, b = (
        make_run(n, [make_record(fixed=1.0)], machine=m) for n, m in (("a", machine), ("b", more))
    )
    main([str(a), str(b)])
    assert "different numbers of cores for a comparison: " in capsys.readouterr().out


def test_the_interval_holds_the_true_change_as_often_as_it_says():
    held = 0
    for n in range(200):
        a, b = (
            make_record(seed=2 * n, rounds=60, x=1.0),
            make_record(seed=2 * n + 1, rounds=60, x=1.1),
        )
        change = change_of(*{name: pair for name, _, pair in pairs_of(a, b)}["x"])
        held += change.low <= 1.1 <= change.high
    # Of 200 at 95 %, fewer than 180 hold once in a thousand times.
    assert held >= 180


def test_cells_of_other_threads_are_not_compared_and_the_sentence_says_why(make_run, capsys):
    a = make_record(8)
    cell = a.cell | {"threads": 1}
    b = dataclasses.replace(a, cell=cell, key=cell_key(cell))
    assert main([str(make_run("a", [a])), str(make_run("b", [b]))]) == 2
    said = "have no cell in common: they were timed on other numbers of --threads."
    assert said in capsys.readouterr().err
