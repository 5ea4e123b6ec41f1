"""Options: the command line, TOML under it, and what is refused with one sentence."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.config import Options, parse, restore
from bench.rules import UsageError


def test_the_command_line_overrides_toml_and_toml_the_defaults(tmp_path: Path):
    config = tmp_path / "grid.toml"
    config.write_text('layers = [2]\nunits = [32, 64]\nbias = "ramp"\nquick = false\n')
    options = parse(["--config", str(config), "--units", "16"])
    assert options.layers == (2,)
    assert options.units == (16,)
    assert options.bias == ("ramp",)
    assert options.epochs == Options().epochs


def test_quick_changes_defaults_and_not_what_was_asked_for():
    options = parse(["--quick", "--epochs", "7"])
    assert options.epochs == 7
    assert options.units == (64, 128)


def test_a_run_from_before_threads_were_an_option_goes_on_with_all():
    assert restore({}, "a run").threads == ("all",)
    assert restore({"threads": [1]}, "a run").threads == (1,)


def test_dense_is_always_among_the_arms():
    assert parse(["--arms", "fixed"]).arms == ("dense", "fixed")


REFUSED = {
    "unknown arm": (["--arms", "desne"], "--arms: An arm must be one of dense"),
    "no values": (["--layers"], "--layers needs at least one value"),
    "twice": (["--units", "8", "8"], "must not name a value twice"),
    "zero": (["--epochs", "0"], "--epochs must be a positive whole number. Received: 0"),
    "negative": (["--layers", "-3"], "--layers must be a positive whole number. Received: -3"),
    "not finite": (["--margin", "nan"], "--margin must be a positive number"),
    "target": (["--target", "97"], "--target must be an accuracy between 0 and 1, such as 0.97"),
    "device": (["--device", "tpu"], "--device must be cpu, gpu, gpu:N, all or auto"),
    "preset": (["--bias", "rmap"], "A bias preset must be one of zeros"),
    "setting": (["--bias", "ramp:slope=2"], "settings of bias preset `ramp`"),
    "results": (["--results", "README.md"], "--results must be a folder"),
    "config": (["--config", "absent.toml"], "--config must be a readable file"),
    "threads": (["--threads", "0"], "--threads must be a positive whole number. Received: 0"),
    "more threads than cores": (["--threads", "99999"], "--threads must not be more than the "),
    "layer": (["--layer", "nonsense"], "--layer must be module:Class"),
    "layer module": (["--layer", "no_such_module:X"], "--layer must name a module"),
}


@pytest.mark.parametrize(("argv", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refuses_with_a_sentence(argv, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").touch()
    with pytest.raises(UsageError) as refusal:
        parse(argv)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lyers = [2]", "an option that does not exist, 'lyers'"),
        ("layers = [", "must be a TOML file"),
        ("layers = [[2]]", "must be of values and lists of values"),
        ("resume = 'x'", "an option that does not exist, 'resume'"),
    ],
)
def test_refuses_a_toml_file_with_a_sentence(text, sentence, tmp_path):
    config = tmp_path / "bad.toml"
    config.write_text(text)
    with pytest.raises(UsageError) as refusal:
        parse(["--config", str(config)])
    assert sentence in str(refusal.value)
    assert str(config) in str(refusal.value)


def test_a_toml_file_that_is_not_utf8_is_refused(tmp_path):
    config = tmp_path / "bad.toml"
    config.write_bytes(b"data = '\xff'")
    with pytest.raises(UsageError, match="UTF-8"):
        parse(["--config", str(config)])


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["--dry-run"], 0),
        (["--layers", "two"], 2),
        (["--lyers", "2"], 2),
        (["--precision", "int8"], 2),
        (["--threads", "some"], 2),
        (["--arms", "desne"], 2),
    ],
)
def test_answers_before_tensorflow_is_imported(argv, status):
    code = (
        "import sys, bench.grid\n"
        "try: status = bench.grid.main(sys.argv[1:])\n"
        "except SystemExit as end: status = end.code\n"
        "print('TensorFlow' if 'tensorflow' in sys.modules or 'keras' in sys.modules else 'none')\n"
        "sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status
    assert done.stdout.splitlines()[-1] == "none"
    assert "Traceback" not in done.stderr


@pytest.mark.alone
def test_help_answers_at_once():
    """Beside an interpreter that imports NumPy alone, so that a slow machine does not matter."""

    def seconds(code: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
        return time.perf_counter() - begin

    pairs = [
        (seconds("import bench.grid; bench.grid.main(['--help'])"), seconds("import numpy"))
        for _ in range(3)
    ]
    # TensorFlow alone takes some thirty times as long as NumPy.
    assert min(ours / theirs for ours, theirs in pairs) < 8
