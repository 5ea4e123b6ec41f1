"""The command as typed: one small run on real digits, with layers in it that misbehave."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from bench import grid as driver
from bench.machine import describe_machine
from bench.records import read_run

LAYERS = """
import os, signal
import keras

class Explodes(keras.layers.Dense):
    def build(self, shape):
        raise RuntimeError("I am not <b>well</b>")

class Starves(keras.layers.Dense):
    def build(self, shape):
        import tensorflow as tf
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

class Kills(keras.layers.Dense):
    def build(self, shape):
        super().build(shape)
        if self.units == 9:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def grid(*argv: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.grid", *map(str, argv)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two cells, of 8 and 9 units; two layers fail in both, another kills the worker of 9."""
    cwd = tmp_path_factory.mktemp("elsewhere")
    (cwd / "mine.py").write_text(LAYERS)
    small = "--layers 2 --units 8 9 --epochs 2 --seeds 2 --time-cap 1 --halfwidth 0.5"
    layers = ["--layer", "mine.py:Explodes", "mine.py:Starves", "mine.py:Kills"]
    rest = ["--arms", "fixed", "--device", "cpu", "--data", "digits", "--results", "runs"]
    rest += ["--time-breakdown"]
    done = grid(*small.split(), *layers, *rest, cwd=cwd)
    (folder,) = (cwd / "runs").iterdir()
    return done, folder


def test_the_run_goes_on_past_layers_that_fail_and_says_so(run):
    done, folder = run
    assert done.returncode == 1  # something failed
    assert "units=9" in done.stdout
    assert "ended by SIGKILL" in done.stdout
    assert "I am not <b>well</b>" in done.stdout
    _, records, problems = read_run(folder)
    assert not problems
    small, killed = records
    assert (small.status, killed.status) == ("ok", "failed")
    assert "RuntimeError" in small.arms["Explodes"]["error"]
    assert small.arms["Starves"]["error"].startswith("out of memory on the device, Resource")
    known = {"dense", "fixed", "Explodes", "Starves", "Kills", "dense (A/A)"}
    assert set(small.arms) == known


def test_what_differs_between_devices_by_default_is_recorded(run):
    _, folder = run
    _, (record, _), _ = read_run(folder)
    runtime = record.extra["runtime"]
    assert runtime.keys() == {"tf32", "memory_growth", "op_determinism"}
    assert runtime["tf32"] is False
    assert all(runtime["memory_growth"])


def test_nothing_but_the_report_is_on_the_terminal(run):
    done, _ = run
    assert done.stderr == ""
    assert "Traceback" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 comparisons on cpu, digits: runs")
    table = [line for line in lines if line.startswith("2     8 dense ")]
    assert len(table) == 1
    # An error may be long, the table is not.
    assert (
        max(map(len, lines[lines.index(table[0]) : lines.index("", lines.index(table[0]))])) <= 80
    )


def test_the_record_holds_what_was_measured(run):
    _, folder = run
    header, (record, _), _ = read_run(folder)
    arms = {name: arm for name, arm in record.arms.items() if "error" not in arm}
    for arm in arms.values():
        assert len(arm["samples"]) == record.rounds
        assert min(arm["samples"]) > 0
    for name in ("dense", "fixed"):
        assert len(arms[name]["accuracies"]) == 2
        assert [len(h["loss"]) for h in arms[name]["histories"]] == [2, 2]
        assert arms[name]["compile_seconds"] > 0
    assert all(sorted(order) == sorted(arms) for order in record.order)
    assert arms["fixed"]["parameters"] - arms["fixed"]["trainable_parameters"] == 8
    assert header.machine["id"] == describe_machine()["id"]
    assert header.argv[:3] == ["python", "-m", "bench.grid"]
    assert header.plan == [record.key, record.key.replace("U8", "U9")]


def test_a_stand_in_data_set_is_never_called_mnist(run):
    _, folder = run
    header, (record, _), _ = read_run(folder)
    assert header.dataset["name"] == record.cell["data"] == "digits"
    assert len(header.dataset["checksum"]) == 64
    assert "mnist" not in (folder / "run.json").read_text().lower()


def test_tensorboard_shows_every_arm_that_was_trained(run):
    _, folder = run
    boards = sorted(path.name for path in (folder / "board").glob("*/*"))
    assert boards == ["Kills", "dense", "fixed"]
    for arm in boards:
        (path,) = (folder / "board").glob(f"*/{arm}")
        events = EventAccumulator(str(path)).Reload()
        _, (record, _), _ = read_run(folder)
        history = record.arms[arm]["histories"][0]
        for tag, values in {"accuracy/test": "val_accuracy", "loss/train": "loss"}.items():
            shown = [make_ndarray(event.tensor_proto).item() for event in events.Tensors(tag)]
            assert shown == pytest.approx(history[values])
            assert [event.step for event in events.Tensors(tag)] == [1, 2]


def test_says_where_the_time_went(run):
    done, _ = run
    last = done.stdout.splitlines()[-1]
    found = re.fullmatch(
        r"(.+) s: training (.+), timing (.+), compiling (.+), building (.+), starting, writing "
        r"(.+); neither training nor timing: \d+%",
        last,
    )
    assert found, last
    wall, *parts = map(float, found.groups())
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(wall, abs=0.3)


def test_resume_measures_what_is_missing_and_nothing_else(run):
    _, folder = run
    kept, gone = sorted((folder / "records").iterdir(), key=lambda p: "U8" in p.name)
    before = kept.read_bytes()
    gone.unlink()
    again = grid("--resume", folder, cwd=folder.parent.parent)
    assert again.returncode == 1
    assert kept.read_bytes() == before
    assert json.loads(gone.read_text())["status"] == "ok"
    assert again.stdout.count("rounds") == 1  # one line, for the one that was measured


def test_interrupted_while_the_table_is_made_it_says_where_the_records_are(
    run, monkeypatch, capsys
):
    def interrupted(*args):
        raise KeyboardInterrupt

    _, folder = run
    monkeypatch.chdir(folder.parent.parent)
    monkeypatch.setattr(driver, "_show", interrupted)
    assert driver.main(["--resume", str(folder)]) == 130
    assert f"all records are in {folder}" in capsys.readouterr().out


def test_what_a_resumed_run_measures_on_another_machine_is_told_apart(run):
    _, folder = run
    header = json.loads((folder / "run.json").read_text())
    header["machine"]["versions"]["tensorflow"] = "1.0"
    (folder / "run.json").write_text(json.dumps(header))
    (gone,) = (path for path in (folder / "records").iterdir() if "U8" in path.name)
    gone.unlink()
    again = grid("--resume", folder, cwd=folder.parent.parent)
    assert "told apart from what was" in again.stdout
    worker = json.loads(gone.read_text())["extra"]["worker"]
    assert worker["machine"]["versions"]["tensorflow"] != "1.0"


def test_resume_of_what_is_no_run_is_refused(tmp_path):
    done = grid("--resume", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --resume must name the folder of a run")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(bool(describe_machine()["gpus"]), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["gpu", "gpu:0"])
def test_a_gpu_that_is_not_there_is_refused_with_the_cure(device, tmp_path):
    done = grid("--device", device, "--data", "digits", cwd=tmp_path)
    assert done.returncode == 2
    assert f"--device {device} needs a GPU that TensorFlow sees, and it sees none" in done.stderr
    assert "pip install" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())  # no empty run is left behind
