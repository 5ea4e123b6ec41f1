"""Growth is read off the records: exponents of known laws, the right things held fixed."""

import json
from dataclasses import replace

import pytest

from bench.growth import curves, main
from tests.bench.conftest import make_record


def records(law, examples=1442):
    made = []
    for units in (64, 128, 512):
        record = make_record(units, dense={"samples": [law(units)] * 60}, fixed=1.0)
        made.append(
            replace(
                record,
                extra={"examples": examples},
                started="2030-01-01T00:00:00Z",
                ended="2030-01-01T00:01:00Z",
            )
        )
    return made


def test_finds_the_exponent_of_a_power_law():
    (units,) = [c for c in curves([records(lambda n: 1e-8 * n**1.5)]) if c.axis == "units"]
    assert units.exponent == pytest.approx(1.5)
    assert units.points[0] == (64, pytest.approx(1e-2 * 64**1.5))
    assert "units" not in units.fixed
    assert units.fixed["layers"] == 3


def test_runs_of_other_sizes_make_the_examples_axis():
    few, many = records(lambda n: 1e-6), records(lambda n: 2e-6, examples=144_200)
    found = [c for c in curves([few, many]) if c.axis == "examples"]
    assert len(found) == 3  # one for each number of units
    # log(2) / log(100)
    assert [c.exponent for c in found] == pytest.approx([0.1505] * 3, abs=1e-4)


def test_seconds_per_cell_are_those_since_the_first_without_those_of_measuring():
    made = [
        replace(
            r,
            started=f"2030-01-01T00:00:0{n}Z",
            ended=f"2030-01-01T00:00:0{n + 1}Z",
            extra=r.extra | {"seconds": 0.75 - 0.25 * n},
        )
        for n, r in enumerate(records(lambda n: 1e-6))
    ]
    (cells,) = [c for c in curves([made]) if c.axis == "cells"]
    assert cells.points == [(1, 0.25), (2, 0.375), (3, 0.5)]


def test_the_command_writes_both_files(make_run, tmp_path, capsys):
    run = make_run("run", records(lambda n: 1e-8 * n))
    assert main([str(run), "--output", str(tmp_path / "g")]) == 0
    assert "units 64 to 512: 0.64 to 5.12 us per example, exponent 1.00" in capsys.readouterr().out
    assert json.loads((tmp_path / "g.json").read_text())[0]["exponent"] == pytest.approx(1)
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")


def test_refuses_what_has_no_growth(make_run, tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert main([str(make_run("one", records(lambda n: 1e-6)[:1]))]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line[:6] for line in errors] == ["error:"] * 2
    assert "differ in one axis" in errors[1]
