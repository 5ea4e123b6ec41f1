"""`python -m bench.compare`: what changed between two runs, and gating on it."""

import dataclasses

import pytest

from bench.compare import changes, main
from bench.records import cell_key
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
    from bench.machine import describe_machine

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


def test_the_interval_holds_the_true_change_as_often_as_it_says():
    held = 0
    for n in range(200):
        a, b = (
            make_record(seed=2 * n, rounds=60, x=1.0),
            make_record(seed=2 * n + 1, rounds=60, x=1.1),
        )
        ((_, _, change),) = [c for c in changes(a, b) if c[0] == "x"]
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
