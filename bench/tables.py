"""A run as tables, for pandas."""

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def load(folder: str | Path) -> "pd.DataFrame":
    """A run as a table: one row for each arm of each comparison.

    Columns: ``key``, the fields of the cell, ``status``, ``reason``, ``rounds``, ``stop``, ``arm``,
    ``seconds_per_example`` (median of the finite samples), ``examples_per_second``, ``samples``
    (how many are finite), ``accuracy`` (mean over the seeds), ``seeds`` and all single values of
    the arm (``compile_seconds``, ``parameters``, ...); of a cluster's run also ``host`` and
    ``machine``, which is equal for machines that are alike (never pool speeds over others). A
    failed comparison without arms, and an unreadable file (status ``unreadable``), are a row
    without an arm.
    """
    import pandas as pd

    from bench.places import likeness
    from bench.records import BadRecord, each_record, read_header

    rows: list[dict[str, Any]] = []
    for record in each_record(folder, read_header(folder)):
        if isinstance(record, BadRecord):
            why = {"status": "unreadable", "reason": record.reason}
            rows.append({"key": record.path.stem} | why)
            continue
        own = ("key", "status", "reason", "rounds", "stop")
        row = record.cell | {name: getattr(record, name) for name in own}
        if worker := record.extra.get("worker"):
            row |= {"host": worker["host"], "machine": likeness(worker["machine"], worker)}
        arms = record.arms.items()
        rows += [_single(arm) | row | {"arm": name} | _summary(arm) for name, arm in arms] or [row]
    first = ["key", "arm", "status", "seconds_per_example", "examples_per_second", "accuracy"]
    frame = pd.DataFrame(rows)
    return frame.reindex(columns=[*first, *(c for c in frame.columns if c not in first)])


def load_samples(folder: str | Path) -> "pd.DataFrame":
    """A run's raw samples: ``key``, ``arm``, ``round``, ``position``, ``seconds_per_example``.

    ``round`` and the ``position`` in it count from 0.
    """
    import pandas as pd

    from bench.records import BadRecord, each_record, read_header

    columns = ["key", "arm", "round", "position", "seconds_per_example"]
    frames = []
    for record in each_record(folder, read_header(folder)):
        if isinstance(record, BadRecord):
            continue
        rows = []
        samples = {name: iter(arm.get("samples", ())) for name, arm in record.arms.items()}
        for number, turn in enumerate(record.order):
            for position, arm in enumerate(turn):
                # A failed comparison may end within a round: the rest of that was never timed.
                if (sample := next(samples[arm], None)) is not None:
                    rows.append((record.key, arm, number, position, sample))
        if rows:
            frames.append(pd.DataFrame(rows, columns=columns))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


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
