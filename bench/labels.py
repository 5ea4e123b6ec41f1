"""What cells, arms and runs are called in figures, tables and captions."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any

from bench.arms import REFERENCE
from bench.places import kinds_of
from bench.plan import Cell
from bench.records import Run
from bench.summary import Row

_PLACE = ("data", "device", "engine", "precision", "bias")


def place(cell: dict[str, Any]) -> str:
    """All axes of a cell but layers and units, in words.

    >>> place({"data": "mnist", "device": "cpu", "engine": "fit", "precision": "float32",
    ...        "bias": "ramp", "batch_size": 32})
    'mnist, cpu, fit, float32, ramp, batch 32'
    """
    further = [
        _words(k, v) if k == "threads" else f"{k} {v}" for k, v in cell.items() if k not in _KNOWN
    ]
    return ", ".join([*(str(cell[k]) for k in _PLACE), f"batch {cell['batch_size']}", *further])


_KNOWN = {*_PLACE, "batch_size", "layers", "units"}


def names(cells: Sequence[dict[str, Any]], *, size: bool = True) -> list[str]:
    """Names of cells: layers and units (with `size`), and of the other axes those that vary.

    >>> cell = {"layers": 3, "units": 64, "bias": "ramp", "data": "mnist"}
    >>> names([cell, cell | {"bias": "zeros"}])
    ['T=3, 64 units, ramp', 'T=3, 64 units, zeros']
    >>> names([cell | {"threads": 1}, cell])
    ['T=3, 64 units, 1 thread', 'T=3, 64 units, all threads']
    """
    keys = [key for cell in cells for key in cell if key not in ("layers", "units")]
    varying = [k for k in dict.fromkeys(keys) if len({str(field(c, k)) for c in cells}) > 1]

    def name(cell: dict[str, Any]) -> str:
        parts = [f"T={cell['layers']}", f"{cell['units']} units"] if size else []
        return ", ".join(parts + [_words(key, field(cell, key)) for key in varying])

    return [name(cell) for cell in cells]


def field(cell: dict[str, Any], name: str) -> Any:
    """A field of a cell as a record has it: one that is not there has its default."""
    return cell.get(name, _DEFAULTS.get(name))


_DEFAULTS = {f.name: f.default for f in fields(Cell) if f.default is not MISSING}


def device_words(cell: dict[str, Any]) -> str:
    """A cell's device, with the number of threads where it is not all.

    >>> device_words({"device": "cpu", "threads": 1}), device_words({"device": "gpu:0"})
    ('1 thread of the cpu', 'gpu:0')
    """
    threads, device = field(cell, "threads"), str(cell.get("device"))
    return device if threads == "all" else f"{_words('threads', threads)} of the {device}"


def _words(key: str, value: Any) -> str:
    if key == "threads":
        return f"{value} thread{'' if value == 1 else 's'}"
    return f"batch {value}" if key == "batch_size" else str(value)


def provenance(run: Run) -> list[str]:
    """Command, machine and versions of a run, a short text for each."""
    parts, software = [], []
    for letter, machine in kinds_of(run.machine).items():
        cpu, versions = machine["cpu"], machine["versions"]
        mark = f"{letter}: " if letter else ""
        parts.append(
            f"{mark}{cpu['model']}, {cpu['usable_cores']} cores{_threads(tuple(run.plan))}"
        )
        parts += [str(gpu.get("name")) for gpu in machine.get("gpus", [])]
        names = {"TensorFlow": "tensorflow", "Keras": "keras", "NumPy": "numpy"}
        named = [f"{name} {versions[key]}" for name, key in names.items() if key in versions]
        software.append(", ".join([*named, f"Python {machine['python']}", str(machine["os"])]))
    return [" ".join(run.argv), "; ".join(parts), "; ".join(dict.fromkeys(software))]


@lru_cache(maxsize=1)
def _threads(plan: tuple[str, ...]) -> str:
    """How many of the cores a run's cells on the CPU used, where that is not all."""
    on_cpu = [key for key in plan if "-cpu-" in key]
    found = {int(m[1]) if (m := re.search(r"-P(\d{1,9})\b", key)) else "all" for key in on_cpu}
    if found <= {"all"}:
        return ""
    return f", CPU cells on {' or '.join(sorted(_words('threads', n) for n in found))}"


def leaf_table(source: Sequence[str], row: Row) -> str:
    """What is known of one arm of one cell, as a Markdown table; `source` as from `provenance`."""
    cell = f"T={row.cell['layers']}, {row.cell['units']} units, {place(row.cell)}"
    facts = {"cell": cell, "arm": row.arm}
    if row.ratio:
        span = f"{row.ratio.low:.3f} to {row.ratio.high:.3f}"
        rounds = f"{row.ratio.rounds} rounds"
        facts["verdict"] = f"{row.verdict}: {row.ratio.estimate:.3f} times {REFERENCE}"
        facts["95 % interval"] = f"{span}, {rounds}"
    elif row.arm == REFERENCE:
        facts["verdict"] = "the reference"
    if row.examples_per_second > 0:
        facts["training examples/s"] = f"{row.examples_per_second:,.0f}"
    if row.ceiling > 0:
        facts["share of the ceiling"] = f"{row.ceiling:.0%}"
    if row.device_bytes >= 0:
        facts["GPU memory at its peak"] = f"{row.device_bytes / 2**20:,.0f} MiB"
    if row.joules >= 0:
        facts["GPU energy for 1,000 examples"] = f"{1000 * row.joules:.2g} J"
    if row.accuracy >= 0:
        facts["test accuracy, mean of seeds"] = f"{row.accuracy:.2%}"
    if row.difference:
        facts["difference, percentage points"] = f"{100 * row.difference.estimate:+.2f}"
    if row.seconds_to_target:
        median = row.median_to_target
        facts["seconds to the target"] = f"{median:.2f}" if math.isfinite(median) else "never"
    facts |= dict(zip(("command", "machine", "versions"), source, strict=True))
    flags = {f"note {n}": flag for n, flag in enumerate(row.flags, start=1)}
    lines = [f"| {markdown(k)} | {markdown(v)} |" for k, v in (facts | flags).items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def operations_table(rows: Sequence[Sequence[str]]) -> str:
    """Profiled operations as a Markdown table."""
    lines = ["| operation | times | µs each |", "| --- | --- | --- |"]
    return "\n".join([*lines, *("| " + " | ".join(map(markdown, row)) + " |" for row in rows)])


def markdown(text: str) -> str:
    """Text that Markdown shows as it is.

    >>> markdown("a_b|c<script>\\n# no")
    'a\\\\_b\\\\|c&lt;script&gt; \\\\# no'
    """
    flat = " ".join(text.split())
    return re.sub(r"([\\\\`*_\[\]|#~!])", r"\\\1", html.escape(flat, quote=False))
