"""A session: whatever a step does, the others get their turn, and nothing that is done is lost."""

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.arms import AGAIN
from bench.gpu_session import Session, main, parse_budget
from bench.records import Record, write_record
from bench.rules import UsageError
from bench.session_steps import Step, make_steps
from bench.targets import find_targets
from tests.bench.conftest import make_record, write_run_folder

GOOD = ("platform",)
BAD = ("json.tool", "no such file")
SLOW = ("timeit", "-n1", "-r1", "import time; time.sleep(600)")


def states(folder: Path) -> dict[str, str]:
    summary = json.loads((folder / "session.json").read_text())
    return {name: step["state"] for name, step in summary["steps"].items()}


def test_a_step_that_fails_or_overruns_costs_itself_alone(tmp_path):
    steps = [
        Step("bad", BAD, 60),
        Step("slow", SLOW, 1),
        Step("absent", GOOD, 60, "it is not installed"),
        Step("good", GOOD, 60),
    ]
    begin = time.monotonic()
    Session(tmp_path, "cpu").run(steps, 60)
    assert time.monotonic() - begin < 300  # and not 600
    wanted = {"bad": "failed", "slow": "over time", "absent": "cannot run", "good": "ok"}
    assert states(tmp_path) == wanted
    text = (tmp_path / "session.md").read_text()
    assert "| absent | cannot run |  | it is not installed |" in text
    assert "exit status" in text
    assert "Linux" in (tmp_path / "good" / "output.txt").read_text()


def test_the_budget_is_kept(tmp_path):
    session = Session(tmp_path, "cpu")
    begin = time.monotonic()
    session.run([Step("slow", SLOW, 600), Step("late", GOOD, 60)], 11)
    assert time.monotonic() - begin < 300  # and not 600
    assert states(tmp_path) == {"slow": "over time", "late": "no time left"}


def test_a_session_goes_on_where_it_was_ended(tmp_path):
    steps = [Step("good", GOOD, 60), Step("bad", BAD, 60)]
    Session(tmp_path, "cpu").run(steps, 60)
    before = (tmp_path / "good" / "output.txt").stat().st_mtime_ns
    again = Session(tmp_path, "cpu")
    again.run([steps[0], Step("bad", GOOD, 60)], 60)
    assert states(tmp_path) == {"good": "ok", "bad": "ok"}
    assert (tmp_path / "good" / "output.txt").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_what_is_no_session_is_refused(content, tmp_path):
    (tmp_path / "session.json").write_text(content)
    with pytest.raises(UsageError, match="damaged"):
        Session(tmp_path, "cpu")


def test_a_session_on_another_device_is_refused(tmp_path):
    Session(tmp_path, "cpu").write()
    with pytest.raises(UsageError, match="holds a session on cpu"):
        Session(tmp_path, "gpu")


@pytest.mark.parametrize("text", ["8", "0s", "m", "-1m", "8 m", "nan"])
def test_budgets_that_are_none(text):
    with pytest.raises(UsageError, match="--budget must be a duration"):
        parse_budget(text)


@pytest.mark.parametrize("argv", [["--budget=x"], ["--device=all"], ["--results=/dev/null/x"]])
def test_bad_input_is_one_sentence_and_status_2(argv, capsys):
    assert main(["--device", "cpu", *argv]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("device", ["cpu", "gpu:1"])
def test_every_step_is_a_command_that_accepts_its_options(device, tmp_path):
    from bench.config import parse
    from bench.peers.config import parse as parse_peers

    names = set()
    for step in make_steps(device, tmp_path, "digits"):
        names.add(step.name)
        module, *argv = step.argv
        if step.missing.startswith("on a CPU"):
            continue
        if module == "bench.grid":
            # Whether it fits is a matter of the machine.
            assert parse([*argv, "--force"]).device == (
                "all" if step.name == "crossover" else device
            )
        elif module == "bench.peers":
            assert parse_peers(argv).device == device
        else:
            assert device in argv or module == "pytest"
    assert {"doctor", "tests", "epochs", "fit", "rates", "stacking", "peers", "profile"} <= names


def peers_record(**speeds: float) -> Record:
    record = make_record(units=128, **speeds)
    arms = {("fit_compiled" if n == "dense" else n): a for n, a in record.arms.items()}
    arms.pop(AGAIN)
    cell = record.cell | {"engine": "peers", "batch_size": 128, "precision": "float32"}
    order = [list(arms)] * record.rounds
    return Record(key="peers", cell=cell, status="ok", arms=arms, order=order)


@pytest.mark.parametrize("absent", ["pytest", "pytest_timeout", "hypothesis"])
def test_tests_that_cannot_be_run_say_why(absent, tmp_path, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == absent else there(name)
    )
    (tests,) = (s for s in make_steps("gpu:0", tmp_path, "digits") if s.name == "tests")
    assert tests.missing == f"{absent} is not installed"


def test_targets_come_from_the_records(tmp_path):
    def run(step: str, record: Record) -> None:
        (tmp_path / step).mkdir()
        write_run_folder(tmp_path / step / "run", []).exists()
        write_record(tmp_path / step / "run", record)

    run("fit", peers_record(fit=1 / 40, jax=1.5))
    flat = [1e-6] * 20
    cell = {"engine": "stacked", "data": "digits"}
    stacks = {"1": {"samples": flat}, "16": {"samples": [1.5e-6] * 20}}
    stacks["64"] = {"samples": [5e-6] * 20}
    run("stacking", Record(key="s", cell=cell, status="ok", arms=stacks, order=[list(stacks)] * 20))
    epochs = make_record(units=128, fixed=1.0)
    epochs.cell.update(batch_size=128, data="mnist")
    epochs.arms["fixed"]["histories"] = [{"loss": [1.0] * 20, "seconds": [0.04] * 20}]
    run("epochs", epochs)
    found = {t.what: t for t in find_targets(tmp_path, on_gpu=True)}

    def state(words: str) -> str:
        (target,) = (t for what, t in found.items() if words in what)
        return target.state

    assert state("Keras fit") == "reached"
    assert state("JAX") == "missed"
    assert state("PyTorch") == "not measured"
    assert state("16 stacked") == "reached"
    assert state("64 stacked") == "missed"
    assert state("one epoch") == "reached"
    assert state("twenty") == "reached"  # 0.8 s
    assert state("4096") == "not measured"
    assert {t.state for t in find_targets(tmp_path, on_gpu=False)} == {"for a GPU", "not measured"}


def test_the_width_from_which_a_gpu_pays_is_in_the_summary(tmp_path):
    records = []
    for device, speeds in {"cpu": {64: 1.0, 512: 1.0}, "gpu:0": {64: 0.5, 512: 3.0}}.items():
        for units, speed in speeds.items():
            record = make_record(units=units)
            record.cell["device"] = device
            record.arms["dense"]["samples"] = [1e-5 / speed] * record.rounds
            records.append(dataclasses.replace(record, key=f"{device[:3]}-{units}"))
    (tmp_path / "crossover").mkdir()
    write_run_folder(tmp_path / "crossover" / "run", records)
    Session(tmp_path, "gpu").write()
    said = (
        "Devices: dense is faster on gpu:0 than on cpu from 512 units on (0.5 to 3 times) at T=3."
    )
    assert said in (tmp_path / "session.md").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.alone
def test_the_whole_path_on_a_cpu(tmp_path):
    """As the README has it, with time for a slower machine than one that needs two minutes."""
    argv = ["--device", "cpu", "--budget", "9m", "--data", "digits", "--results", "here"]
    command = [sys.executable, "-m", "bench.gpu_session", *argv]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=580)
    found = states(tmp_path / "here")
    steps = make_steps("cpu", tmp_path, "digits")
    expected = {step.name: "cannot run" if step.missing else "ok" for step in steps}
    assert found == expected, done.stdout
    assert list(found) == list(expected)
    assert done.returncode == 0
    shown = (tmp_path / "here" / "session.md").read_text()
    assert "| 16 stacked seeds | < 2 times the time of one |" in shown
    assert "| fixed against dense | a verdict in every cell, never slower | 1 cells: " in shown
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size < 5 * 2**20


@pytest.mark.slow
def test_a_session_that_is_ended_keeps_what_is_done(tmp_path):
    code = (
        "from pathlib import Path; from bench.gpu_session import Session; "
        "from bench.session_steps import Step; import signal; "
        "signal.signal(signal.SIGTERM, signal.default_int_handler); "
        f"Session(Path('s'), 'cpu').run([Step('a', {GOOD!r}, 60), Step('b', {SLOW!r}, 60)], 100)"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    output = tmp_path / "s" / "b" / "output.txt"
    end = time.monotonic() + 120
    while not output.exists():
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1)
    os.kill(driver.pid, signal.SIGTERM)
    driver.communicate(timeout=60)
    assert states(tmp_path / "s") == {"a": "ok"}
