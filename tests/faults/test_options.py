"""Options of every kind, on the command line and in TOML: planned, or refused with a sentence."""

import contextlib
import io
import json
import math
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import grid, memory, rules
from bench.config import Options, parse, restore
from bench.memory import estimate_bytes, estimate_parts, free_bytes
from bench.rules import UsageError

EXAMPLES = int(os.environ.get("FIXEDBIAS_FUZZ_OPTIONS", "150"))

WHOLE = st.sampled_from([1, 2, 3, 5, 64]) | st.sampled_from([0, -1, 10**9, 10**30, True, 2.5])
REAL = st.sampled_from([0.5, 1.0, 2, 30.0]) | st.sampled_from(
    [0, -1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf, "", "x"]
)
TEXT = st.text(max_size=6) | st.sampled_from(
    ["--help", "--dry-run", "-h", "-1", "ü", "\0", "a\nb", "\udcff", "{", "@x", "None", " ", ""]
)


def several(one: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(one, max_size=3) | one


PRESETS = [
    "ramp",
    "zeros",
    "ramp:step=9",
    "constant:value=nan",
    "constant:value=1e39",
    "linspace:low=2,high=1",
    "file:",
    "file:/dev/zero",
    "normal:stddev=-1",
    "uniform:seed=0.5",
]
VALUES: dict[str, st.SearchStrategy] = {
    "device": st.sampled_from(["cpu", "auto", "gpu", "all", "gpu:1", "gpu:-1", "gpu:٣"]) | TEXT,
    "layers": several(WHOLE),
    "units": several(WHOLE),
    "batch_size": several(WHOLE),
    "epochs": WHOLE,
    "seeds": WHOLE,
    "arms": several(st.sampled_from(["dense", "fixed", "dense-nobias", "dense-frozen"]) | TEXT),
    "layer": several(st.sampled_from(["json:JSONDecoder", "no.such:X", "a=1", "json:1"]) | TEXT),
    "engine": several(st.sampled_from(["compiled", "fit", "fit-xla", "jit"])),
    "precision": several(st.sampled_from(["float32", "tf32", "mixed_float16", "float64"])),
    "threads": several(WHOLE | st.sampled_from(["all", "some"])),
    "activation": several(st.sampled_from(["relu", "tanh", "mish", "none"]) | TEXT),
    "loss": several(st.sampled_from(["auto", "hinge", "huber", "none"])),
    "norm": several(st.sampled_from(["none", "layer", "batch"])),
    "task": several(st.sampled_from(["images", "line", "odd", "even"])),
    "bias": several(st.sampled_from(PRESETS) | TEXT),
    "data": st.sampled_from(["auto", "mnist", "digits", "synthetic:0", "synthetic:9"]) | TEXT,
    "data_dir": st.sampled_from(["/nowhere", "/dev/null", "x" * 300]) | TEXT,
    "results": st.sampled_from(["runs", "/dev/null", "/dev/null/x", "x" * 300]) | TEXT,
    "quick": st.booleans() | TEXT,
    "dry_run": st.booleans() | st.just(1),
    "accuracy_only": st.booleans() | TEXT,
    "cluster": st.sampled_from(["tcp://127.0.0.1:1", "tcp://8.8.8.8:1", "tls://a:1"]) | TEXT,
    "plan_cost": st.booleans() | TEXT,
    "workers": several(WHOLE),
    "evidence": st.sampled_from(["runs", "/dev/null", "x" * 300]) | TEXT,
    "failure_rate": REAL,
    "straggler_rate": REAL,
    "watts": REAL,
    "halfwidth": REAL,
    "time_cap": REAL,
    "timeout": REAL,
    "floor": REAL,
    "builds": WHOLE,
    "margin": REAL,
    "target": REAL,
    "order_seed": st.sampled_from([0, -1, 10**30, 1.5]),
}
TABLE = st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
)


def test_every_option_is_tried():
    assert VALUES.keys() == set(Options.__dataclass_fields__) - {
        "config",
        "resume",
        "force",
        "time_breakdown",
        "profile",
    }


def toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float):
        return repr(value)  # inf and nan are TOML's words too
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def run(argv: list[str]) -> tuple[int, str, str]:
    """The driver's exit status, and what it prints; what it plans is not run."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = grid.main([*argv, "--dry-run"])
        except SystemExit as end:  # from the parser of the command line
            status = int(end.code or 0)
    return status, out.getvalue(), err.getvalue()


def check(argv: list[str]) -> int:
    status, out, err = run(argv)
    if status == 0:
        assert "comparisons of dense" in out, argv
        assert err == ""
    else:
        assert status == 2, argv
        assert "Traceback" not in err
        sentence = err.removeprefix("error: ").strip()
        assert len(sentence) > 10, argv
        # One line of our own, or the parser's box.
        assert sentence.isprintable() or "For full helptext" in err, err
    return status


quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@quick
@given(TABLE)
def test_any_command_line(table):
    argv = []
    for name, value in table.items():
        flag = rules.flag(name)
        if isinstance(value, bool):
            argv += [flag] if value else []
        else:
            argv += [flag, *map(str, value if isinstance(value, list) else [value])]
    if "--help" not in argv and "-h" not in argv:
        check(argv)


@quick
@given(TABLE)
def test_any_toml_file(table):
    text = "\n".join(f"{name} = {toml(value)}" for name, value in table.items())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "options.toml")
        path.write_bytes(text.encode(errors="surrogateescape"))
        check(["--config", str(path)])


@quick
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_as_a_toml_file(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "options.toml")
        path.write_bytes(data)
        check(["--config", str(path)])


@quick
@given(TABLE)
def test_any_header_that_is_resumed(table):
    refusal, options = None, None
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            options = restore(table, "--resume here")
        except (UsageError, SystemExit) as error:
            refusal = error
    if options is not None:
        assert options.arms[0] == "dense"
    else:
        assert getattr(refusal, "code", 2) == 2
        assert str(refusal).isprintable()


@pytest.mark.parametrize(
    "text", ["layers = " + "[" * 20_000, "units = 1" + "0" * 5000, "a." * 9000 + "b = 1"]
)
def test_toml_beyond_reason(text, tmp_path):
    path = tmp_path / "options.toml"
    path.write_text(text)
    assert check(["--config", str(path)]) == 2


@pytest.mark.parametrize("name", ["folder", "pipe"])
def test_a_config_that_is_no_file(name, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert check(["--config", str(tmp_path / name)]) == 2


def test_a_text_in_toml_never_becomes_an_option(tmp_path):
    path = tmp_path / "options.toml"
    path.write_text('data = "--help"')
    with pytest.raises(UsageError, match="without a dash before it"):
        parse(["--config", str(path)])


CONTRADICTIONS = {
    "--resume x --layers 3": "--resume takes no other option than --cluster",
    "--resume x --dry-run": "--resume takes no other option than --cluster",
    "--time-cap 100 --timeout 50": "--timeout must be more than --time-cap",
    "--time-cap 1 --floor 2": "--floor must not be more than --time-cap",
    "--device cpu --precision tf32": "--precision tf32 is for GPUs",
    "--device all --precision float32 tf32": "--precision tf32 is for GPUs",
    "--data nonsense": "--data: A dataset must be",
    "--halfwidth 1e-200": "--halfwidth must be at least 1e-06",
    "--units 1" + "0" * 160: "--units must be below 2\\^63",
}


@pytest.mark.parametrize(("argv", "sentence"), CONTRADICTIONS.items())
def test_contradictions_are_refused(argv, sentence):
    with pytest.raises(UsageError, match=sentence):
        parse(argv.split())


@pytest.mark.parametrize("option", ["--units", "--layers"])
def test_what_cannot_fit_is_refused_before_it_is_allocated(option):
    import psutil

    before = psutil.Process().memory_info().rss
    with pytest.raises(UsageError, match=r"GiB are free: ask for less, or insist with --force"):
        parse([option, str(10**9)])
    assert psutil.Process().memory_info().rss - before < 100 * 2**20


def test_one_may_insist(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2**20)
    with pytest.raises(UsageError, match="insist"):
        parse(["--layers", "2"])
    assert parse(["--layers", "2", "--force"]).force
    assert parse(["--resume", "x", "--force"]).force
    with pytest.raises(UsageError, match="insist"):
        restore({"layers": [2]}, "--resume x")
    assert restore({"layers": [2]}, "--resume x", force=True).force


@pytest.mark.timeout(60)
@pytest.mark.parametrize("option", ["--units", "--layers"])
def test_what_others_are_to_hold_is_checked_at_once(option):
    pytest.importorskip("distributed")
    assert parse(["--cluster", "tcp://127.0.0.1:1", option, str(10**12)])


def test_files_that_were_read_do_not_count_as_used(monkeypatch, tmp_path):
    files = {
        "/proc/self/cgroup": ["0::/box"],
        "/sys/fs/cgroup/box/memory.max": ["4000"],
        "/sys/fs/cgroup/box/memory.current": ["3900"],
        "/sys/fs/cgroup/box/memory.stat": ["anon 900", "file 3000", "inactive_file 2900"],
    }
    monkeypatch.setattr(memory, "_lines", lambda file: files.get(str(file), []))
    assert free_bytes("cpu") == 3000
    old = {
        "/proc/self/cgroup": ["5:memory:/box"],
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": ["4000"],
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": ["3900"],
        "/sys/fs/cgroup/memory/memory.stat": ["inactive_file 1", "total_inactive_file 2900"],
    }
    files.clear()
    files.update(old)
    assert free_bytes("cpu") == 3000


def test_a_gpu_and_its_host_must_each_hold_their_part(monkeypatch):
    host, device = estimate_parts(layers=3, units=64, batch_size=32, arms=3, examples=60_000)
    free = {"host": host, "gpus": [device - 1, device]}
    monkeypatch.setattr(memory, "free_bytes", lambda device: free["host"])
    monkeypatch.setattr(memory, "gpu_free", lambda: free["gpus"])
    small = ["--layers", "3", "--units", "64"]
    assert parse([*small, "--device", "gpu"])
    with pytest.raises(UsageError, match="memory on the host"):  # the CPU's part comes on top
        parse([*small, "--device", "all"])
    free["gpus"] = [device - 1]
    with pytest.raises(UsageError, match="memory on the GPU"):
        parse([*small, "--device", "gpu"])
    free |= {"host": host - 1, "gpus": [device]}
    with pytest.raises(UsageError, match="memory on the host"):
        parse([*small, "--device", "gpu"])
    free |= {"host": host + device, "gpus": []}
    assert parse([*small, "--device", "cpu"])


def test_more_of_anything_needs_more_memory():
    base = {"layers": 3, "units": 64, "batch_size": 32, "arms": 3, "examples": 60_000}
    for name, more in [("layers", 9), ("units", 65), ("arms", 4), ("examples", 70_000)]:
        assert estimate_bytes(**base | {name: more}) > estimate_bytes(**base)
    assert estimate_bytes(**base | {"batch_size": 4096}) > estimate_bytes(**base)
    assert free_bytes("cpu") > 0


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [({"0": [1.0] * 7}, "must be 8 numbers"), ({}, "without an array 0")],
)
def test_a_file_preset_of_the_wrong_length_is_refused(arrays, sentence, tmp_path):
    import numpy as np

    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(UsageError, match=sentence):
        parse(["--units", "8", "--layers", "2", "--bias", f"file:{tmp_path / 'b.npz'}"])


def test_bytes_that_are_no_utf8_are_refused():
    with pytest.raises(UsageError, match="printable"):
        parse(["--results", os.fsdecode(b"\xff")])
