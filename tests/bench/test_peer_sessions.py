"""Several side-by-sides put together: the median over the runs of what each cell says."""

import copy

import pytest

from bench.machine import describe_machine
from bench.peers.report import rates
from bench.peers.sessions import main, medians, tables
from tests.bench.conftest import write_run_folder
from tests.bench.test_peers import make_record


def session(*, jax: float):
    """Two cells in which fit_compiled takes 1 s, and all others what is said."""
    common = {"fit_compiled": 1.0, "fit": 6.0, "fit-xla": 4.0, "products-numpy": 0.5}
    return [
        make_record(64, 32, **common, jax=jax),
        make_record(512, 128, **common, jax=2 * jax),
    ]


def row(lines, *words):
    (line,) = [line for line in lines if all(word in line for word in words)]
    return [part.strip() for part in line.strip("|").split("|")]


def test_each_cell_is_the_median_of_its_runs():
    lines = tables([session(jax=9.0), session(jax=1.0), session(jax=1.5)])
    means = row(lines, "JAX scan", "at T=")
    # The median run is 1.5 in one cell and 3 in the other.
    # The bare products take half the time: nothing could be more than twice as fast as it is.
    assert means[:3] == ["JAX scan", "2.12 (4.24)", "12.73, 1.41, 2.12"]
    assert means[3:] == ["1.50 (3.00)", "3.00 (6.00)", "1.50 (3.00) at T=3, 64 units, batch 32"]
    # The faster of XLA on and off.
    assert row(lines, "Keras fit, 1 step", "at T=")[1] == "4.00 (8.00)"
    assert row(lines, "| 64 | 32 |")[3:] == ["1", "4.00 [4.00, 4.00]", "1.50 [1.00, 9.00]", "50%"]


def test_speeds_are_the_medians_of_the_runs():
    for record, factor in zip(
        medians([session(jax=j) for j in (1.0, 9.0, 3.0)]), (1, 2), strict=True
    ):
        assert rates(record)["jax"] == pytest.approx(1 / (3.0 * factor), rel=0.01)
        assert rates(record)["fit_compiled"] == pytest.approx(1, rel=0.01)


def test_a_peer_that_failed_once_is_known_from_the_others():
    broken = session(jax=1.0)
    broken[0].arms["jax"] = {"error": "it did not start"}
    assert row(tables([broken, session(jax=3.0)]), "| 64 | 32 |")[5] == "3.00"


def test_the_command_draws_what_it_prints(tmp_path, capsys):
    folders = [
        write_run_folder(tmp_path / name, session(jax=jax))
        for name, jax in (("a", 1.0), ("b", 2.0))
    ]
    figure = tmp_path / "peers.png"
    assert main([*map(str, folders), "--figure", str(figure)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown == tables([session(jax=1.0), session(jax=2.0)])
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_unlike_machines_are_not_put_together(tmp_path, capsys):
    other = copy.deepcopy(describe_machine())
    other["versions"]["keras"] = "0"
    write_run_folder(tmp_path / "a", session(jax=1.0))
    write_run_folder(tmp_path / "b", session(jax=1.0), machine=other)
    assert main([str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "must be of one machine" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["nowhere"], ["."]])
def test_what_is_no_run_is_one_sentence_and_status_2(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
