"""What the README shows works as shown."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

import fixedbias
from bench import node, replicas
from bench.config import parse
from bench.peers import config as peers

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PYTHON = [text for language, text in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("#")[0].strip()
    for language, text in BLOCKS
    if language == "sh"
    for line in text.splitlines()
    if line.strip()
]
GRID = [c.removeprefix("python -m bench.grid").strip() for c in COMMANDS if "bench.grid" in c]
NODES = [
    command.rpartition("bench.node ")[2].partition("&")[0].strip()
    for command in COMMANDS
    if "bench.node" in command
]
PEERS = [c[len("python -m bench.peers") :].strip() for c in COMMANDS if "bench.peers" in c.split()]
REPLICAS = [
    c.removeprefix("python -m bench.replicas").strip() for c in COMMANDS if "bench.replicas" in c
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder with the README's own layer in it."""
    (own,) = (text for text in PYTHON if text.startswith("# scaled.py"))
    (tmp_path / "scaled.py").write_text(own)
    (tmp_path / "studies").symlink_to(Path(__file__).parent.parent / "studies")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", GRID)
def test_the_drivers_commands_are_accepted(arguments, elsewhere):
    if "--help" in arguments:
        with pytest.raises(SystemExit, match="0"):
            parse(shlex.split(arguments))
    else:
        parse(shlex.split(arguments))


@pytest.mark.parametrize("arguments", NODES)
def test_the_commands_of_a_clusters_machine_are_accepted(arguments):
    assert node.parse(shlex.split(arguments)).host == "127.0.0.1"


def test_every_scheduler_that_is_shown_listens_to_this_machine_alone():
    from distributed.cli.dask_scheduler import main

    shown = [c.removeprefix("dask scheduler") for c in COMMANDS if c.startswith("dask scheduler")]
    assert shown
    for arguments in shown:
        settings = main.make_context("dask scheduler", shlex.split(arguments)).params
        assert settings["host"] == "127.0.0.1"
        assert settings["dashboard_address"].startswith("127.0.0.1:")


def test_the_preload_that_is_shown_is_there():
    (slurm,) = (text for text in PYTHON if text.startswith("# slurm.py"))
    assert re.search(r'"--preload", "bench.node"', slurm)
    assert callable(node.dask_setup)
    compile(slurm, "slurm.py", "exec")


@pytest.mark.parametrize("arguments", PEERS)
def test_the_commands_of_the_side_by_side_are_accepted(arguments):
    peers.parse(shlex.split(arguments))


@pytest.mark.parametrize("arguments", REPLICAS)
def test_the_commands_of_several_devices_are_accepted(arguments):
    replicas.parse(shlex.split(arguments))


OWN = [
    c
    for c in COMMANDS
    if re.search(r"bench\.(gpu_session|programs|stacking|rates|peers\.sessions)", c)
]


@pytest.mark.parametrize("command", OWN)
def test_the_commands_with_options_of_their_own_are_accepted(command):
    _, _, module, *argv = shlex.split(command)
    options = importlib.import_module(module).Options
    assert tyro.cli(options, args=argv)


def test_make_knows_its_targets():
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", " ".join(COMMANDS) + README.split("## Layout")[0]):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_librarys_example_trains(monkeypatch):
    (example,) = (text for text in PYTHON if "fit_compiled" in text)
    # Real digits that need no download, in place of MNIST.
    digits = fixedbias.load_dataset("digits")
    monkeypatch.setattr(fixedbias, "load_dataset", lambda name: digits, raising=False)
    names: dict = {}
    exec(example, names)
    assert len(names["history"].history["val_accuracy"]) == 5


@pytest.mark.slow
def test_the_layer_of_ones_own_races(elsewhere):
    (arguments,) = (a for a in GRID if "scaled.py" in a)
    small = "--data digits --epochs 1 --seeds 1 --time-cap 1 --device cpu"
    done = subprocess.run(
        [sys.executable, "-m", "bench.grid", *shlex.split(arguments), *small.split()],
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Scaled +[\d,]+ ", done.stdout)
