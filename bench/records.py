"""What a comparison leaves behind, written once, whole or not at all, and read by everything else.

A run is a folder: ``run.json``, the header, and ``records/<key>.json``, one file per comparison.
They have one field to a line, to be read and compared by line.

The header, ``Run``:

    schema      version of this format
    created     when, UTC, ISO 8601
    argv        the command, a list of str
    options     what the command came to, all defaults filled in
    machine     ``machine.describe_machine()``
    git         ``machine.git_commit()``: commit and dirty, or null
    dataset     at least its name and checksum
    seed        of the run
    plan        keys of all comparisons, in the order in which they are to be made

A comparison, ``Record``:

    schema      version of this format
    key         name of the comparison, in the plan and of the file: ``cell_key(cell)``
    cell        layers, units, batch_size, precision, device, engine, bias, data
    status      "ok" or "failed"
    reason      why it failed, else empty
    arms        {name of arm: {"samples": seconds per example, one of each round it was in,
                "compile_seconds", "input_seconds", "parameters",
                "accuracies": test accuracy, one of each seed,
                "histories": [{"loss": [], "accuracy": [], "val_accuracy": []}], one of each seed,
                and whatever else was learnt of the arm}}
    order       of each round, the arms in the order in which they were timed
    stop        why the rounds ended: "precision", "time", ...
    before      ``machine.read_state()`` before the comparison
    after       and after it
    notes       sentences for the reader: throttling, short samples, ...
    extra       whatever else was learnt of the comparison: ceiling, threads, memory, ...
    started     when, UTC, ISO 8601
    ended

Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity", which most languages
read as numbers when asked for one; a text that is spelled so has a backslash before it.
"""

import errno
import hashlib
import json
import math
import os
import re
import secrets
import statistics
import types
import typing
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_CELL = ("data", "device", "engine", "precision", "bias", "layers", "units", "batch_size")
_LETTER = {"layers": "L", "units": "U", "batch_size": "B"}


class RecordExists(Exception):
    """There is a file for this comparison already, and it is left as it is."""


class BadRecord(ValueError):
    """A file that is not a whole and valid record: ``path`` and ``reason``."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class _Document:
    """Fields made plain (tuples and arrays to lists, NumPy numbers to Python's) and checked."""

    schema: int = SCHEMA

    def __post_init__(self) -> None:
        _check_schema(self.schema)
        for item in fields(self):
            value = _plain(getattr(self, item.name))
            if not isinstance(value, _classes(item.type)):
                raise ValueError(f"{item.name} has the wrong type. Received: {value!r:.80}")
            object.__setattr__(self, item.name, value)


@dataclass(frozen=True, kw_only=True)
class Run(_Document):
    """The header of a run; fields as in the module's description.

    Raises:
        ValueError: for a field of the wrong type, another schema, a plan with a key twice.
    """

    created: str
    argv: list[str]
    options: dict[str, Any]
    machine: dict[str, Any]
    git: dict[str, Any] | None
    dataset: dict[str, Any]
    seed: int
    plan: list[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.plan)) < len(self.plan):
            twice = next(key for key in self.plan if self.plan.count(key) > 1)
            raise ValueError(f"plan has a comparison twice. Received: {twice!r}")


@dataclass(frozen=True, kw_only=True)
class Record(_Document):
    """One comparison; fields as in the module's description.

    Raises:
        ValueError: for a field of the wrong type, another schema, a failure without a reason, a
            round that has an arm twice or an unknown one, an arm with more samples than rounds (or
            fewer, unless the comparison failed).

    >>> Record(key="tiny", cell={"layers": 2}, status="ok", order=[["a", "b"], ["b", "a"]],
    ...        arms={"a": {"samples": [1e-6, 2e-6]}, "b": {"samples": (3e-6, 3e-6)}}).rounds
    2
    """

    key: str
    cell: dict[str, Any]
    status: str
    reason: str = ""
    arms: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: list[list[str]] = field(default_factory=list)
    stop: str = ""
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    started: str = ""
    ended: str = ""

    @property
    def rounds(self) -> int:
        """Rounds begun; the last one of a failed comparison may be incomplete."""
        return len(self.order)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"\w[\w.,=~-]{0,199}", self.key, re.ASCII):
            raise ValueError(f"key cannot name a file. Received: key={self.key!r}")
        if self.status not in ("ok", "failed") or (self.status == "failed") != bool(self.reason):
            raise ValueError(
                "status must be 'ok' without a reason or 'failed' with one. "
                f"Received: status={self.status!r}, reason={self.reason!r}"
            )
        for turn in self.order:
            if len(set(turn)) < len(turn) or not set(turn) <= self.arms.keys():
                raise ValueError(f"a round must time known arms, each once. Received: {turn!r}")
        for name, arm in self.arms.items():
            samples, due = arm.get("samples", []), sum(name in turn for turn in self.order)
            if not all(isinstance(sample, int | float) for sample in samples):
                raise ValueError(f"samples must be numbers. Received: {samples!r:.80}")
            if len(samples) > due or (len(samples) < due and self.status == "ok"):
                raise ValueError(f"arm {name!r} has {len(samples)} samples but {due} rounds")


_D = TypeVar("_D", bound=_Document)


def utc_now() -> str:
    """This moment, as ``created``, ``started`` and ``ended`` have it.

    >>> len(utc_now()) == len("2030-01-31T12:34:56.789Z")
    True
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cell_key(cell: dict[str, Any]) -> str:
    """A name for a cell: readable, safe as a file name, and no other cell's.

    Parts are joined by ``-``, so within one ``~`` stands for ``-``; and ``=`` for ``:``, which some
    systems forbid. Where that cannot hold all of the cell (other characters, capitals, long texts,
    further fields) a hash of the cell follows.

    >>> cell = {"layers": 3, "units": 128, "batch_size": 64, "precision": "float32",
    ...         "device": "cpu", "engine": "compiled", "bias": "ramp", "data": "mnist"}
    >>> cell_key(cell)
    'mnist-cpu-compiled-float32-ramp-L3-U128-B64'
    >>> cell_key(cell | {"engine": "fit-xla", "bias": "normal:0.1"})
    'mnist-cpu-fit~xla-float32-normal=0.1-L3-U128-B64'
    >>> cell_key(cell | {"bias": "my bias.npy"})[:-12]
    'mnist-cpu-compiled-float32-my_bias.npy-L3-U128-B64-'
    """
    cell = _plain(cell)
    parts, exact = [], cell.keys() == set(_CELL)
    for name in [*(name for name in _CELL if name in cell), *sorted(cell.keys() - {*_CELL})]:
        kind, value = int if name in _LETTER else str, str(cell[name])
        shape = r"\d{1,9}" if kind is int else "[a-z0-9]([a-z0-9._,:-]{0,28}[a-z0-9])?"
        exact &= type(cell[name]) is kind and bool(re.fullmatch(shape, value, re.ASCII))
        clean = value.lower().replace(":", "=").replace("-", "~")
        clean = re.sub("[^a-z0-9._,=~]+", "_", clean).strip("._,=~")[:30]
        parts.append(_LETTER.get(name, "") + clean)
    slug = "-".join(filter(None, parts))
    if exact:
        return slug
    # Never the end of a key without hash, which is B and at most nine digits.
    canonical = json.dumps(_encode(cell), sort_keys=True, allow_nan=False)
    return f"{slug[:150] or 'cell'}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


def new_run_folder(results: str | Path, moment: datetime) -> Path:
    """Makes ``results/<YYYYMMDD-HHMMSS>``, with ``-2``, ``-3``, ... where that is taken.

    Two callers never get the same folder, also when they call at once.
    """
    Path(results).mkdir(parents=True, exist_ok=True)
    name, n = f"{moment:%Y%m%d-%H%M%S}", 1
    while True:
        folder = Path(results, name if n == 1 else f"{name}-{n}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            n += 1


def write_run(folder: str | Path, run: Run) -> Path:
    """Writes the header ``run.json`` into the run's folder; else as ``write_record``."""
    return _write_once(Path(folder, "run.json"), run)


def write_record(folder: str | Path, record: Record) -> Path:
    """Writes ``records/<key>.json`` into the run's folder, whole or not at all.

    On return the record is on the disk. A process that is killed, or two that write the same key at
    once, leave one whole record or none; at worst a ``.tmp`` file that no reader looks at.

    Raises:
        RecordExists: where there is a file for this key, readable or not. It is left as it is.
        OSError: where the folder is missing, read-only or full; nothing is left behind then.
    """
    return _write_once(Path(folder, "records", f"{record.key}.json"), record)


def read_record(path: str | Path) -> Record:
    """Reads one record.

    Raises:
        BadRecord: for a file cut short, damaged, renamed or of another schema.
        OSError: for a file that is not there or may not be read.
    """
    record = _read(Record, path := Path(path))
    if record.key != path.stem:
        raise BadRecord(path, f"holds the record of another key, {record.key!r}")
    return record


def read_run(folder: str | Path) -> tuple[Run, list[Record], list[BadRecord]]:
    """Reads a run: its header, its records in the order of the plan, and the files that are none.

    Those last are left as they are, and ``write_record`` does not write in their place: to have
    such a comparison made again, move its file away.

    Raises:
        BadRecord, OSError: when the header itself cannot be read.
    """
    run = _read(Run, Path(folder, "run.json"))
    records, problems = [], []
    for path in sorted(Path(folder, "records").glob("*.json")):
        try:
            records.append(read_record(path))
        except BadRecord as problem:
            problems.append(problem)
        except OSError as error:
            problems.append(BadRecord(path, f"cannot be read: {error.strerror}"))
    place = {key: n for n, key in enumerate(run.plan)}
    records.sort(key=lambda record: place.get(record.key, len(place)))
    return run, records, problems


def load(folder: str | Path) -> "pd.DataFrame":
    """A run as a table: one row for each arm of each comparison.

    Columns: ``key``, the fields of the cell, ``status``, ``reason``, ``rounds``, ``stop``, ``arm``,
    ``seconds_per_example`` (median of the finite samples), ``examples_per_second``, ``samples``
    (how many are finite), ``accuracy`` (mean over the seeds), ``seeds`` and all single values of
    the arm (``compile_seconds``, ``parameters``, ...). A failed comparison without arms, and an
    unreadable file (status ``unreadable``), are a row without an arm.
    """
    import pandas as pd

    _, records, problems = read_run(folder)
    rows = []
    for record in records:
        own = ("key", "status", "reason", "rounds", "stop")
        row = record.cell | {name: getattr(record, name) for name in own}
        arms = record.arms.items()
        rows += [_single(arm) | row | {"arm": name} | _summary(arm) for name, arm in arms] or [row]
    rows += [{"key": p.path.stem, "status": "unreadable", "reason": p.reason} for p in problems]
    first = ["key", "arm", "status", "seconds_per_example", "examples_per_second", "accuracy"]
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*first, *(c for c in frame.columns if c not in first)])


def load_samples(folder: str | Path) -> "pd.DataFrame":
    """A run's raw samples: ``key``, ``arm``, ``round``, ``position``, ``seconds_per_example``.

    ``round`` and the ``position`` in it count from 0.
    """
    import pandas as pd

    rows = []
    for record in read_run(folder)[1]:
        samples = {name: iter(arm.get("samples", ())) for name, arm in record.arms.items()}
        for number, turn in enumerate(record.order):
            for position, arm in enumerate(turn):
                # A failed comparison may end within a round: the rest of that was never timed.
                if (sample := next(samples[arm], None)) is not None:
                    rows.append((record.key, arm, number, position, sample))
    columns = ["key", "arm", "round", "position", "seconds_per_example"]
    return pd.DataFrame(rows, columns=columns)


def _single(arm: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arm.items() if not isinstance(value, list | dict)}


def _summary(arm: dict[str, Any]) -> dict[str, Any]:
    samples = [sample for sample in arm.get("samples", ()) if math.isfinite(sample)]
    accuracies = arm.get("accuracies", ())
    median = statistics.median(samples) if samples else math.nan
    return {
        "seconds_per_example": median,
        "examples_per_second": 1 / median if median else math.inf,
        "samples": len(samples),
        "accuracy": statistics.fmean(accuracies) if accuracies else math.nan,
        "seeds": len(accuracies),
    }


def _write_once(path: Path, document: _Document) -> Path:
    lines = (
        f"{json.dumps(name)}: {json.dumps(_encode(value), allow_nan=False)}"
        for name, value in vars(document).items()
    )
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(exist_ok=True)
        try:
            with open(temporary, "x", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            _name_once(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()
    except OSError as error:
        raise OSError(error.errno, f"not written: {error.strerror}", str(path)) from error
    # Else a crash of the machine may forget the name. Not every file system can do it.
    with suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return path


def _name_once(temporary: Path, path: Path) -> None:
    """Gives a whole file its name, unless that is taken: a link is made or not, in one step."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise RecordExists(f"{path} exists and is not overwritten") from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        # A file system without links, as FAT: still whole or not at all, but of two processes that
        # write the same key within these two lines the last would win.
        if path.exists():
            raise RecordExists(f"{path} exists and is not overwritten") from None
        os.replace(temporary, path)


def _read(kind: type[_D], path: Path) -> _D:
    try:
        data = json.loads(path.read_text("utf-8"), parse_constant=_not_json)
        if not isinstance(data, dict) or "schema" not in data:
            raise ValueError("is not a record: no schema")
        _check_schema(data["schema"])
        if wrong := data.keys() ^ {item.name for item in fields(kind)}:
            raise ValueError(f"has missing or unknown fields: {', '.join(sorted(wrong))}")
        return kind(**_decode(data))
    except (ValueError, RecursionError) as error:
        raise BadRecord(path, str(error)) from error
    except (TypeError, AttributeError) as error:  # of a field's inside
        raise BadRecord(path, f"has a malformed field: {error}") from error


def _check_schema(schema: Any) -> None:
    if schema != SCHEMA:
        raise ValueError(f"has schema {schema!r}, and this version reads schema {SCHEMA} only")


def _not_json(name: str) -> None:
    raise ValueError(f"is not JSON: {name}")


def _classes(kind: Any) -> tuple[type, ...]:
    """The classes for ``isinstance`` of an annotation such as ``dict[str, Any] | None``."""
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return tuple(typing.get_origin(member) or member for member in members)


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | None) and not hasattr(value, "tolist"):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else float(value)


def _encode(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _encode(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_encode(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("nan", "NaN").replace("inf", "Infinity")
    return f"\\{value}" if isinstance(value, str) and value.lstrip("\\") in _NUMBERS else value


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _decode(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_decode(inner) for inner in value]
    if isinstance(value, str) and value.lstrip("\\") in _NUMBERS:
        return _NUMBERS.get(value, value[1:])
    return value
