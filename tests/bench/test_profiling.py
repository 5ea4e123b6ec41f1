"""A profile: marked steps, the compiled program's operations, and no host's name."""

import json
import platform
from pathlib import Path

import pytest

from bench.config import Options, parse
from bench.executors import LocalExecutor
from bench.plan import make_plan
from bench.profiling import _longest, profile_arm, read_profiles, write_profile
from bench.rules import UsageError


@pytest.mark.slow
@pytest.mark.parametrize(("task", "operation"), [("images", "MatMul"), ("odd", "fusion")])
def test_a_trace_has_marked_steps_and_replaces_an_older_one(task, operation, tmp_path):
    raw_to_tool_data = pytest.importorskip("xprof.convert.raw_to_tool_data")
    options = Options(layers=(2,), units=(8,), task=(task,))
    (comparison,) = make_plan(options, ["cpu"], "digits", None)
    stale = tmp_path / "plugins" / "profile" / "old" / "cache.pb"
    stale.parent.mkdir(parents=True)
    stale.touch()
    with LocalExecutor() as executor:
        operations = executor.call(profile_arm, comparison, "fixed", str(tmp_path), timeout=240)
    (trace,) = (tmp_path / "plugins" / "profile").glob("*/*.xplane.pb")
    assert (trace.parent.name, trace.name) == ("steps", "cpu.xplane.pb")
    assert not stale.exists()
    assert platform.node() not in trace.name
    assert bytes(Path(__file__).parents[2]) not in trace.read_bytes()
    raw, _ = raw_to_tool_data.xspace_to_tool_data([str(trace)], "trace_viewer", {})
    names = {event.get("name") for event in json.loads(raw)["traceEvents"]}
    assert {f"train {step}" for step in range(5)} <= names
    assert 0 < len(operations) <= 10
    assert any(operation in found["name"] for found in operations)


def test_the_longest_operations_are_the_programs_own_without_its_loops():
    events = [
        {"name": "a", "dur": 5.0, "args": {"hlo_op": "MatMul.1"}},
        {"name": "a", "dur": 3.0, "args": {"hlo_op": "MatMul.1"}},
        {"name": "b", "dur": 99.0, "args": {"hlo_op": "while.5"}},
        {"name": "c", "dur": 50.0, "args": {"tf_op": "Host"}},
        {"name": "d", "dur": 70.0},
    ]
    assert _longest(events) == [{"name": "MatMul.1", "count": 2, "seconds": 8e-6}]
    assert _longest(events[3:]) == [{"name": "Host", "count": 1, "seconds": 5e-5}]


def test_profiles_are_read_back(tmp_path):
    write_profile(tmp_path, "cell", "dense", [])
    found = [{"name": "MatMul", "count": 1, "seconds": 1.0}]
    write_profile(tmp_path, "cell", "fixed", found)
    assert read_profiles(tmp_path) == {"cell": {"dense": [], "fixed": found}}
    (tmp_path / "profiles" / "cut.json").write_text('{"dense": [')  # a full disk, a kill
    assert read_profiles(tmp_path) == {"cell": {"dense": [], "fixed": found}}


def test_profile_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[profile\]'"):
        parse(["--profile"])
