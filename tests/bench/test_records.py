"""Records: faithful, checked when made, and nothing unreadable passed over."""

import doctest
import json
import math
import pickle
import re
import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import documents, encoding, keys, records
from bench.records import BadRecord, RecordExists
from tests.bench.tiny import ARMS, ORDER, TEXT, header, record


def test_the_examples_hold() -> None:
    modules = (documents, encoding, keys)
    outcomes = [doctest.testmod(module) for module in modules]
    assert sum(outcome.attempted for outcome in outcomes) >= 6
    assert not any(outcome.failed for outcome in outcomes)


# --- faithful

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


def test_what_is_but_like_a_number_becomes_one() -> None:
    assert encoding.plain({1: Fraction(1, 2), "x": [Decimal("0.25")]}) == {"1": 0.5, "x": [0.25]}


def test_a_moment_is_of_utc_and_to_the_millisecond() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    moment = records.utc_now()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert before <= datetime.fromisoformat(moment) <= datetime.now(UTC)


def test_a_problem_survives_the_way_between_processes(run: Path) -> None:
    problem = pickle.loads(pickle.dumps(BadRecord(run / "x.json", "is cut short")))
    assert str(problem) == f"{run}/x.json: is cut short"
    assert (problem.path, problem.reason) == (run / "x.json", "is cut short")


def test_one_field_to_a_line(run: Path) -> None:
    lines = records.write_record(run, record(arms=ARMS, order=ORDER)).read_text().splitlines()
    assert lines[1:3] == ['"schema": 1,', '"key": "tiny",']
    assert len(lines) == 16


# --- refused when made


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"schema": 2}, "schema 2"),
        ({"key": "../x"}, "cannot name a file"),
        ({"key": ""}, "cannot name a file"),
        ({"key": "é"}, "cannot name a file"),
        ({"key": "x" * 201}, "cannot name a file"),
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
        "list": ("[]", "is not a record: no schema$"),
        "none": ("{}", "is not a record: no schema$"),
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


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"arms": {"a": {"samples": [0.0]}}, "order": [["a"]]}, "no times"),
        ({"arms": {"a": {"samples": [math.nan]}}, "order": [["a"]]}, "no times"),
        ({"arms": {"a": {"samples": [math.inf]}}, "order": [["a"]]}, "no times"),
        ({"arms": {"a": {"histories": [{"loss": [1.0]}]}}, "order": []}, "without loss or seconds"),
        ({"arms": {"a": {"histories": [3]}}, "order": []}, "malformed"),
        ({"extra": {"builds": [0, 5, 5]}}, "do not follow each other"),
        ({"extra": {"builds": ["x"]}}, "do not follow each other"),
        ({"extra": {"builds": 3}}, "malformed"),
    ],
)
def test_what_is_wrong_inside_costs_itself_and_not_the_run(run: Path, what: dict, why: str) -> None:
    good, bad = record(key="good"), record(key="bad", **what)
    records.write_run(run, header("good", "bad"))
    for one in (good, bad):
        records.write_record(run, one)
    _, found, problems = records.read_run(run)
    assert [one.key for one in found] == ["good"]
    assert [problem.path.stem for problem in problems] == ["bad"]
    assert why in problems[0].reason


def test_a_plan_names_files() -> None:
    with pytest.raises(ValueError, match="key cannot name a file"):
        header("../../elsewhere")


def test_a_run_without_a_good_header_is_refused(run: Path) -> None:
    with pytest.raises(FileNotFoundError):
        records.read_run(run)
    (run / "run.json").write_text('{"schema": 9}')
    with pytest.raises(BadRecord, match=r"run\.json: has schema 9"):
        records.read_run(run)
    with pytest.raises(RecordExists):
        records.write_run(run, header())


def test_recorded_keys_are_those_that_have_a_file(run: Path) -> None:
    assert records.recorded_keys(run) == set()
    records.write_record(run, record("a"))
    (run / "records/b.json").write_text("not readable")
    (run / "records/.c.1-0.tmp").write_text("")
    assert records.recorded_keys(run) == {"a", "b"}


def test_run_folders_are_never_shared(tmp_path: Path) -> None:
    moment = datetime(2030, 1, 31, 12, 34, 56)
    made = [records.new_run_folder(tmp_path / "new" / "results", moment).name for _ in range(3)]
    assert made == ["20300131-123456", "20300131-123456-2", "20300131-123456-3"]
