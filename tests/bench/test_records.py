"""Records: faithful, whole or not at all, written once, and nothing unreadable passed over."""

import doctest
import itertools
import json
import math
import os
import random
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import documents, encoding, keys, records
from bench.records import BadRecord, Record, RecordExists, Run

CELL = {
    "layers": 3,
    "units": 128,
    "batch_size": 64,
    "precision": "float32",
    "device": "cpu",
    "engine": "compiled",
    "bias": "ramp",
    "data": "mnist",
}
ARMS = {
    "dense": {
        "samples": [2e-6, 4e-6, 3e-6],
        "compile_seconds": 1.5,
        "accuracies": [0.9, 0.8],
        "histories": [{"loss": [0.5]}],
    },
    "fixed": {"samples": [1e-6, math.nan, 3e-6], "parameters": 101_770},
}
ORDER = [["dense", "fixed"], ["fixed", "dense"], ["dense", "fixed"]]


def record(key: str = "tiny", **fields: object) -> Record:
    return Record(**{"key": key, "cell": CELL, "status": "ok", **fields})  # type: ignore[arg-type]


def header(*plan: str) -> Run:
    return Run(
        created=records.utc_now(),
        argv=["python", "-m", "bench.grid"],
        options={"layers": [3]},
        machine={"id": "0"},
        git=None,
        dataset={"name": "mnist", "sha256": "0"},
        seed=1,
        plan=list(plan),
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return records.new_run_folder(tmp_path, datetime(2030, 1, 31, 12, 34, 56))


def test_the_examples_hold() -> None:
    modules = (documents, encoding, keys)
    outcomes = [doctest.testmod(module) for module in modules]
    assert sum(outcome.attempted for outcome in outcomes) == 6
    assert not any(outcome.failed for outcome in outcomes)


# --- faithful

TEXT = st.text() | st.sampled_from(["NaN", "Infinity", "-Infinity", "\\NaN", "\\\\-Infinity", "\\"])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
OBJECT = st.dictionaries(TEXT, PLAIN, max_size=4)


@settings(max_examples=60, deadline=None)
@given(cell=OBJECT, inner=OBJECT, notes=st.lists(TEXT), samples=st.lists(st.floats()), why=TEXT)
def test_what_is_written_is_read(
    cell: dict, inner: dict, notes: list, samples: list, why: str
) -> None:
    written = record(
        cell=cell,
        status="failed" if why else "ok",
        reason=why,
        arms={"a": inner | {"samples": samples}, "NaN": inner | {"samples": []}},
        order=[["a"]] * len(samples),
        notes=notes,
        extra=inner,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = records.write_record(folder, written)
        # repr, since a NaN differs from itself; it also tells 1 from 1.0 and -0.0 from 0.0.
        assert repr(records.read_record(path)) == repr(written)
        json.loads(path.read_text(), parse_constant=pytest.fail)


def test_numpy_and_tuples_become_plain(run: Path) -> None:
    given_ = record(
        arms={"a": {"samples": np.array([1, 2], np.float32), "parameters": np.int64(3)}},
        order=(("a",), ["a"]),
        extra={"ceiling": np.float64(np.inf)},
    )
    assert given_.arms == {"a": {"samples": [1.0, 2.0], "parameters": 3}}
    assert records.read_record(records.write_record(run, given_)) == given_


def test_one_field_to_a_line(run: Path) -> None:
    lines = records.write_record(run, record(arms=ARMS, order=ORDER)).read_text().splitlines()
    assert lines[1:3] == ['"schema": 1,', '"key": "tiny",']
    assert len(lines) == 16


# --- keys


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_two_cells_never_share_a_key(data: st.DataObject) -> None:
    others = ["ramp", "x" * 40, 3, -3, 3.0, True, None, math.nan, [3], 10**40]
    values = st.sampled_from(others) | st.text("a3-:=~.,_/A", max_size=3) | TEXT
    names = st.sampled_from([*CELL, "arms", ""])
    changes = st.dictionaries(names, values, max_size=2)
    missing = st.sets(names, max_size=1)
    one, other = (
        {k: v for k, v in (CELL | data.draw(changes)).items() if k not in data.draw(missing)}
        for _ in range(2)
    )
    keys = [records.cell_key(cell) for cell in (one, other)]
    # What a cell is after a round trip, which tells 3 from 3.0 and True from 1 as == does not.
    same = repr(sorted(one.items())) == repr(sorted(other.items()))
    assert (keys[0].lower() == keys[1].lower()) == same
    for key, cell in zip(keys, (one, other), strict=True):
        assert set(key) <= set(string.ascii_letters + string.digits + "-_.,=~")
        assert record(key, cell=cell).key == key


def test_no_two_short_values_share_a_key() -> None:
    values = ["".join(v) for n in range(4) for v in itertools.product("a3-:=~.,_A", repeat=n)]
    for pair in (("bias", "data"), ("engine", "precision")):
        keys = {records.cell_key(CELL | dict.fromkeys(pair, v)).lower() for v in values}
        keys |= {records.cell_key(CELL | {pair[0]: v, pair[1]: "a"}).lower() for v in values}
        assert len(keys) == 2 * len(values) - 1  # that of a, a twice


def test_keys_are_readable() -> None:
    assert records.cell_key(CELL) == "mnist-cpu-compiled-float32-ramp-L3-U128-B64"
    assert records.cell_key(dict(reversed(CELL.items()))) == records.cell_key(CELL)
    assert records.cell_key(CELL | {"bias": (1, 2)}) == records.cell_key(CELL | {"bias": [1, 2]})
    assert records.cell_key(CELL | {"bias": "file:my b.npy"}).startswith(
        "mnist-cpu-compiled-float32-file=my_b.npy-L3-U128-B64-"
    )
    assert len(records.cell_key({str(n): "x" * 30 for n in range(50)})) < 200


# --- refused when made


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"schema": 2}, "schema 2"),
        ({"key": "../x"}, "cannot name a file"),
        ({"key": ""}, "cannot name a file"),
        ({"cell": []}, "cell has the wrong type"),
        ({"status": "fine"}, "status must be"),
        ({"status": "failed"}, "status must be"),
        ({"reason": "but"}, "status must be"),
        ({"order": [["a"]]}, "known arms"),
        ({"order": [["a", "a"]], "arms": {"a": {"samples": [1]}}}, "each once"),
        ({"order": [["a"]], "arms": {"a": {}}}, "0 samples but 1 rounds"),
        ({"arms": {"a": {"samples": [1]}}}, "1 samples but 0 rounds"),
        ({"order": [["a"]], "arms": {"a": {"samples": [None]}}}, "must be numbers"),
    ],
)
def test_invalid_records_are_refused(fields: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        record(**fields)


def test_a_plan_has_no_key_twice() -> None:
    with pytest.raises(ValueError, match=r"twice. Received: 'b'"):
        header("a", "b", "b")


# --- once, and whole or not at all


def test_a_record_is_never_overwritten(run: Path) -> None:
    path = records.write_record(run, record())
    before = path.read_bytes()
    with pytest.raises(RecordExists, match=r"tiny\.json exists and is not overwritten"):
        records.write_record(run, record(status="failed", reason="other"))
    assert path.read_bytes() == before
    path.write_bytes(before[:40])
    with pytest.raises(RecordExists):
        records.write_record(run, record())
    assert path.read_bytes() == before[:40]
    assert os.listdir(path.parent) == ["tiny.json"]


def test_a_file_system_without_links(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    path = records.write_record(run, record())
    with pytest.raises(RecordExists):
        records.write_record(run, record(notes=["again"]))
    assert records.read_record(path) == record()
    assert os.listdir(path.parent) == ["tiny.json"]


WRITER = """
import io, os, signal, sys, time
from bench import documents, encoding, keys, records
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
def big(key): return records.Record(key=key, cell={}, status="ok", extra={"x": [0.1] * 20_000})
"""


def start(code: str, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER + code, *args]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("death", "left"),
    [
        ("records.os.fsync = die", 0),
        ("records.os.link = die", 0),
        ("link = os.link; records.os.link = lambda *a: (link(*a), die())", 1),
        ("sync = os.fsync; records.os.fsync = lambda f: die() if done() else sync(f)", 1),
    ],
)
def test_killed_at_each_step(run: Path, death: str, left: int) -> None:
    code = "def done(): return os.path.exists(sys.argv[1] + '/records/k.json')\n"
    with start(code + death + "\nrecords.write_record(sys.argv[1], big('k'))", str(run)) as writer:
        assert writer.wait() == -signal.SIGKILL
    records.write_run(run, header("k"))
    _, found, problems = records.read_run(run)
    assert (len(found), problems) == (left, [])
    if not left:
        records.write_record(run, record("k"))


def test_killed_at_any_moment(run: Path) -> None:
    moments, survived = random.Random(1), 0
    loop = """
class Slow(io.TextIOWrapper):  # so that most moments are in mid-write
    def write(self, text):
        for n in range(0, len(text), 10_000):
            super().write(text[n : n + 10_000])
            self.flush()
            time.sleep(0.001)
records.open = lambda path, mode, **more: Slow(open(path, mode + "b"), **more)
for n in range(10_000):
    records.write_record(sys.argv[1], big(f"{sys.argv[2]}-{n}"))
    print(n, flush=True)
"""
    for n in range(20):
        with start(loop, str(run), str(n)) as writer:
            assert writer.stdout
            writer.stdout.readline()  # the first is written: what follows are writes only
            time.sleep(moments.uniform(0, 0.1))
            writer.kill()
            survived += 1 + len(writer.stdout.read().splitlines())
    records.write_run(run, header())
    _, found, problems = records.read_run(run)
    assert problems == []
    # All that were announced are there, and of the others only those killed before they could.
    assert survived <= len(found) <= survived + 20


def test_of_two_writers_one_wins(run: Path) -> None:
    race = """
sys.stdin.readline()
for n in range(50):
    try:
        records.write_record(sys.argv[1], records.Record(
            key=f"k{n}", cell={}, status="ok", notes=[sys.argv[2]]))
        print(n)
    except records.RecordExists:
        pass
"""
    writers = [start(race, str(run), str(n)) for n in range(2)]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    won = [writer.communicate()[0].split() for writer in writers]
    assert sorted(map(int, won[0] + won[1])) == list(range(50))
    for n, names in enumerate(won):
        for key in names:
            assert records.read_record(run / f"records/k{key}.json").notes == [str(n)]
    assert len(os.listdir(run / "records")) == 50


@pytest.fixture
def read_only() -> Iterator[Path]:
    # Not in tmp_path, which is closed to others altogether.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        yield Path(folder)
        os.chmod(folder, 0o755)


def test_a_read_only_folder(read_only: Path, nobody: None) -> None:
    with pytest.raises(PermissionError, match=r"not written: Permission denied.*run\.json"):
        records.write_run(read_only, header())
    with pytest.raises(PermissionError, match=r"not written: Permission denied.*tiny\.json"):
        records.write_record(read_only, record())
    assert os.listdir(read_only) == []


def test_a_missing_folder_and_a_full_disk(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"not written.*elsewhere"):
        records.write_record(run / "elsewhere", record())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="not written: No space left"):
        records.write_record(run, record())
    assert os.listdir(run / "records") == []


# --- read


def test_a_run_is_read_in_the_order_of_its_plan(run: Path) -> None:
    records.write_run(run, header("b", "c", "a"))
    for key in ("a", "0", "b"):
        records.write_record(run, record(key))
    (run / "records" / ".c.1-0.tmp").write_text('{"schema"')
    read, found, problems = records.read_run(run)
    assert read.plan == ["b", "c", "a"]
    assert [r.key for r in found] == ["b", "a", "0"]
    assert problems == []


def test_what_is_no_record_is_reported_and_left(run: Path) -> None:
    records.write_run(run, header("good"))
    good = records.write_record(run, record("good")).read_text()
    fields = json.loads(good)
    bad = {
        "cut": (good[:-30], "Expecting|Unterminated|delimiter"),
        "empty": ("", "Expecting value"),
        "binary": ("\udcff\udcfe", "codec can't decode"),
        "deep": ("[" * 200_000, "recursion"),
        "list": ("[]", "no schema"),
        "nan": (good.replace("{}", '{"x": NaN}', 1), "not JSON: NaN"),
        "older": (json.dumps(fields | {"schema": 0}), "schema 0, .* reads schema 1 only"),
        "newer": (json.dumps({"schema": 2, "all": "new"}), "schema 2, .* reads schema 1 only"),
        "renamed": (good, "another key, 'good'"),
        "less": (json.dumps(fields | {"key": "less"}).replace("stop", "halt"), "halt, stop"),
        "type": (json.dumps(fields | {"order": [3]}), "malformed field: .* not iterable"),
        "arms": (json.dumps(fields | {"arms": {"a": 3}}), "malformed field: .* no attribute"),
    }
    for name, (text, _) in bad.items():
        (run / f"records/{name}.json").write_bytes(text.encode(errors="surrogateescape"))
    (run / "records/folder.json").mkdir()
    _, found, problems = records.read_run(run)
    assert [r.key for r in found] == ["good"]
    reasons = {problem.path.stem: problem.reason for problem in problems}
    assert reasons.pop("folder") == "cannot be read: Is a directory"
    assert reasons.keys() == bad.keys()
    for name, (text, reason) in bad.items():
        with pytest.raises(BadRecord, match=f"{name}.json: .*({reason})"):
            records.read_record(run / f"records/{name}.json")
        left = (run / f"records/{name}.json").read_bytes()
        assert left == text.encode(errors="surrogateescape")
    assert (records.load(run)["status"] == "unreadable").sum() == len(problems)


def test_a_run_without_a_good_header_is_refused(run: Path) -> None:
    with pytest.raises(FileNotFoundError):
        records.read_run(run)
    (run / "run.json").write_text('{"schema": 9}')
    with pytest.raises(BadRecord, match=r"run\.json: has schema 9"):
        records.read_run(run)
    with pytest.raises(RecordExists):
        records.write_run(run, header())


def test_run_folders_are_never_shared(tmp_path: Path) -> None:
    moment = datetime(2030, 1, 31, 12, 34, 56)
    made = [records.new_run_folder(tmp_path / "results", moment).name for _ in range(3)]
    assert made == ["20300131-123456", "20300131-123456-2", "20300131-123456-3"]


# --- tables


def test_load(run: Path) -> None:
    records.write_run(run, header("tiny", "broken"))
    records.write_record(run, record(arms=ARMS, order=ORDER, stop="time"))
    records.write_record(run, record("broken", status="failed", reason="out of memory"))
    frame = records.load(run)
    assert frame["key"].tolist() == ["tiny", "tiny", "broken"]
    dense, fixed, broken = (row for _, row in frame.iterrows())
    assert dense["arm"] == "dense"
    assert (dense["layers"], dense["bias"], dense["rounds"], dense["stop"]) == (
        3,
        "ramp",
        3,
        "time",
    )
    assert dense["seconds_per_example"] == 3e-6
    assert dense["examples_per_second"] == pytest.approx(1 / 3e-6)
    assert dense["accuracy"] == pytest.approx(0.85)
    assert (dense["seeds"], dense["compile_seconds"]) == (2, 1.5)
    assert (fixed["samples"], fixed["seconds_per_example"]) == (2, 2e-6)
    assert fixed["parameters"] == 101_770
    assert math.isnan(fixed["accuracy"])
    assert (broken["status"], broken["reason"]) == ("failed", "out of memory")
    assert frame["arm"].isna().tolist() == [False, False, True]


def test_load_samples(run: Path) -> None:
    records.write_run(run, header())
    order = [*ORDER, ["fixed", "dense"]]
    arms = ARMS | {"fixed": {"samples": [1e-6, math.nan, 3e-6, 4e-6]}}
    failed = record(arms=arms, order=order, status="failed", reason="killed in round 3")
    records.write_record(run, failed)
    frame = records.load_samples(run)
    assert len(frame) == 7
    fixed = frame[frame["arm"] == "fixed"]
    assert fixed["round"].tolist() == [0, 1, 2, 3]
    assert fixed["position"].tolist() == [1, 0, 1, 0]
    assert fixed["seconds_per_example"].tolist() == pytest.approx(
        [1e-6, math.nan, 3e-6, 4e-6], nan_ok=True
    )


def test_tables_of_an_empty_run_have_their_columns(run: Path) -> None:
    records.write_run(run, header("tiny"))
    assert {"key", "arm", "status", "seconds_per_example"} <= {*records.load(run).columns}
    assert list(records.load_samples(run).columns)[:2] == ["key", "arm"]
