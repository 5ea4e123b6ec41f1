"""A run's table as plain numbers, for spreadsheets and programs: numbers.csv."""

import csv
import itertools
import math
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from bench.findings import Findings
from bench.plan import Cell
from bench.records import Record
from bench.summary import Row, by_record, target_accuracy

_CELL = {f.name: "" if f.default is MISSING else f.default for f in fields(Cell)}
_COLUMNS = (
    *("key", *_CELL, "machine", "arm", "status", "examples_per_second"),
    *("ratio", "ratio_low", "ratio_high", "verdict"),
    *("accuracy", "difference", "difference_low", "difference_high"),
    *("target_accuracy", "seconds_to_target", "ceiling", "device_bytes", "joules_per_example"),
    *("compile_seconds", "parameters", "trainable_parameters", "flags"),
)


def write_numbers(found: Findings, path: Path) -> None:
    """Writes a line for every arm of every cell, unrounded; what is not known is empty.

    Columns: ``key`` of the record, the fields of the cell (with the
    ``machine``, where there were unlike ones), ``arm``, ``status`` (``ok`` or
    ``failed``), ``examples_per_second``, ``ratio`` of speeds over the reference with its 95 %
    interval ``ratio_low``, ``ratio_high``, ``verdict``, test ``accuracy`` (mean over the seeds, a
    share, as are the others) and its ``difference`` to the reference's with ``difference_low``,
    ``difference_high``, ``seconds_to_target`` (``inf`` where half of the seeds or more did not
    reach ``target_accuracy``), ``ceiling`` (share of the rate of the bare matrix products),
    ``device_bytes``, ``joules_per_example``, ``compile_seconds``, ``parameters``,
    ``trainable_parameters`` and ``flags``, what to know before believing the line.

    Args:
        found: The run.
        path: Of the file, which is replaced.

    Raises:
        OSError: It cannot be written.
    """
    lines, own = [], by_record(found.rows)
    for record in found.records:
        bare = Row(record.cell, "", key=record.key)
        lines += [_line(row, record, found) for row in own[record.key] or [bare]]
    # A cell recorded by another version may have further fields.
    names = dict.fromkeys(itertools.chain(_COLUMNS, *lines))
    # What was recorded may hold bytes that were no UTF-8.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({name: _shown(name, value) for name, value in line.items()})


def _line(row: Row, record: Record, found: Findings) -> dict[str, Any]:
    ratio, difference, arm = row.ratio, row.difference, record.arms.get(row.arm, {})
    failed = record.status == "failed"
    return {
        "key": row.key,
        **(_CELL | row.cell),
        "arm": row.arm,
        "status": "failed" if failed or row.failed else "ok",
        "examples_per_second": row.examples_per_second,
        "ratio": ratio and ratio.estimate,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "verdict": row.verdict and str(row.verdict),
        "accuracy": row.accuracy,
        "difference": difference and difference.estimate,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
        "target_accuracy": target_accuracy(row.cell["data"], found.run.options.get("target")),
        "seconds_to_target": row.median_to_target,
        "ceiling": row.ceiling,
        "device_bytes": row.device_bytes,
        "joules_per_example": row.joules,
        "compile_seconds": arm.get("compile_seconds"),
        "parameters": arm.get("parameters"),
        "trainable_parameters": arm.get("trainable_parameters"),
        "flags": "; ".join([record.reason] * failed + row.flags),
    }


def _shown(name: str, value: Any) -> Any:
    # An infinite bound is none; a target that was never reached took for ever.
    if isinstance(value, float) and not math.isfinite(value):
        return value if name == "seconds_to_target" and math.isinf(value) else None
    # A name from elsewhere must not be a formula to a spreadsheet.
    risky = isinstance(value, str) and value[:1] in ("=", "+", "-", "@")
    return f"'{value}" if risky else value
