"""What a run and its comparisons leave behind, field by field.

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
    cell        layers, units, batch_size, precision, device, engine, bias, data, and where they
                differ from the default, activation, loss and norm
    status      "ok" or "failed"
    reason      why it failed, else empty
    arms        {name of arm: {"samples": seconds per example, one of each round it was in,
                "compile_seconds", "input_seconds", "parameters",
                "accuracies": test accuracy, one of each seed,
                "histories": [{"loss": [], "accuracy": [], "val_accuracy": []}], one of each seed,
                "weights": what the first seed's training did to them, see ``weights``,
                and whatever else was learnt of the arm}}
    order       of each round, the arms in the order in which they were timed
    stop        why the rounds ended: "precision", "time", ...
    before      ``machine.read_state()`` before the comparison
    after       and after it
    notes       sentences for the reader: throttling, short samples, ...
    extra       whatever else was learnt of the comparison: ceiling, threads, memory, ...
    started     when, UTC, ISO 8601
    ended
"""

import re
import types
import typing
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.encoding import plain

SCHEMA = 1


class BadRecord(ValueError):
    """A file that is not a whole and valid record: ``path`` and ``reason``."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Document:
    """Fields made plain (tuples and arrays to lists, NumPy numbers to Python's) and checked."""

    schema: int = SCHEMA

    def __post_init__(self) -> None:
        check_schema(self.schema)
        for item in fields(self):
            value = plain(getattr(self, item.name))
            if not isinstance(value, _classes(item.type)):
                raise ValueError(f"{item.name} has the wrong type. Received: {value!r:.80}")
            object.__setattr__(self, item.name, value)


@dataclass(frozen=True, kw_only=True)
class Run(Document):
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
        for key in self.plan:
            _check_key(key)
        if len(set(self.plan)) < len(self.plan):
            twice = next(key for key in self.plan if self.plan.count(key) > 1)
            raise ValueError(f"plan has a comparison twice. Received: {twice!r}")


@dataclass(frozen=True, kw_only=True)
class Record(Document):
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
        _check_key(self.key)
        if self.status not in ("ok", "failed") or (self.status == "failed") != bool(self.reason):
            raise ValueError(
                "status must be 'ok' without a reason or 'failed' with one. "
                f"Received: status={self.status!r}, reason={self.reason!r}"
            )
        # Some few orders, again and again: as lists of their own they are half of a record.
        known: dict[tuple[str, ...], list[str]] = {}
        self.order[:] = [known.setdefault(tuple(turn), turn) for turn in self.order]
        for turn in known.values():
            if len(set(turn)) < len(turn) or not set(turn) <= self.arms.keys():
                raise ValueError(f"a round must time known arms, each once. Received: {turn!r}")
        for name, arm in self.arms.items():
            samples, due = arm.get("samples", []), sum(name in turn for turn in self.order)
            if not all(isinstance(sample, int | float) for sample in samples):
                raise ValueError(f"samples must be numbers. Received: {samples!r:.80}")
            if len(samples) > due or (len(samples) < due and self.status == "ok"):
                raise ValueError(f"arm {name!r} has {len(samples)} samples but {due} rounds")


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not re.fullmatch(r"\w[\w.,=~-]{0,199}", key, re.ASCII):
        raise ValueError(f"key cannot name a file. Received: key={key!r}")


def utc_now() -> str:
    """This moment, as ``created``, ``started`` and ``ended`` have it.

    >>> len(utc_now()) == len("2030-01-31T12:34:56.789Z")
    True
    """
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_schema(schema: Any) -> None:
    """Raises ValueError, by name, for a format that this version does not read."""
    if schema != SCHEMA:
        raise ValueError(f"has schema {schema!r}, and this version reads schema {SCHEMA} only")


def _classes(kind: Any) -> tuple[type, ...]:
    """The classes for ``isinstance`` of an annotation such as ``dict[str, Any] | None``."""
    members = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return tuple(typing.get_origin(member) or member for member in members)
