"""What cells, arms and runs are called in figures, tables and captions."""

import html
import math
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from bench.arms import AGAIN, REFERENCE
from bench.places import kinds_of
from bench.records import Run
from bench.summary import Row
from bench.verdicts import Verdict

_PLACE = ("data", "device", "engine", "precision", "bias")


def place(cell: dict[str, Any]) -> str:
    """All axes of a cell but layers and units, in words.

    >>> place({"data": "mnist", "device": "cpu", "engine": "fit", "precision": "float32",
    ...        "bias": "ramp", "batch_size": 32})
    'mnist, cpu, fit, float32, ramp, batch 32'
    """
    further = [f"{k} {v}" for k, v in cell.items() if k not in _KNOWN]
    return ", ".join([*(str(cell[k]) for k in _PLACE), f"batch {cell['batch_size']}", *further])


_KNOWN = {*_PLACE, "batch_size", "layers", "units"}


def names(cells: Sequence[dict[str, Any]], *, size: bool = True) -> list[str]:
    """Names of cells: layers and units (with `size`), and of the other axes those that vary.

    >>> cell = {"layers": 3, "units": 64, "bias": "ramp", "data": "mnist"}
    >>> names([cell, cell | {"bias": "zeros"}])
    ['T=3, 64 units, ramp', 'T=3, 64 units, zeros']
    """
    keys = [key for cell in cells for key in cell if key not in ("layers", "units")]
    varying = [k for k in dict.fromkeys(keys) if len({str(cell.get(k)) for cell in cells}) > 1]

    def name(cell: dict[str, Any]) -> str:
        parts = [f"T={cell['layers']}", f"{cell['units']} units"] if size else []
        for key in varying:
            value = cell.get(key)
            parts.append(f"batch {value}" if key == "batch_size" else str(value))
        return ", ".join(parts)

    return [name(cell) for cell in cells]


def headline(rows: Sequence[Row], failed: int = 0) -> str:
    """A run in one sentence: what it says of every arm against the reference, on each machine.

    Args:
        rows: From `summarise`.
        failed: Comparisons without a result.
    """
    machines = dict.fromkeys(row.cell.get("machine") for row in rows if row.verdict)
    if len(machines) > 1:
        own = {m: [row for row in rows if row.cell.get("machine") == m] for m in machines}
        said = " ".join(f"On machine {m}: {headline(its)}" for m, its in own.items())
        return said + _failed(failed)
    judged = [row for row in rows if row.verdict and row.arm != AGAIN]
    parts = []
    for arm in dict.fromkeys(row.arm for row in judged):
        words = [str(row.verdict) for row in judged if row.arm == arm]
        found = [(word, words.count(word)) for word in map(str, Verdict) if word in words]
        if len(words) == 1:
            (row,) = (row for row in judged if row.arm == arm)
            # No speed is claimed where there is no verdict.
            claim = row.ratio and row.verdict not in (Verdict.CANT_TELL, Verdict.SAME)
            said = f"{words[0]} ({row.ratio.estimate:.2f} x)" if claim and row.ratio else words[0]
        else:
            said = ", ".join(f"{word} in {count}" for word, count in found)
            said += f" of {len(words)} cells"
        parts.append(f"{arm} {said}")
    sentence = f"Speed against {REFERENCE}: {'; '.join(parts)}." if parts else "No verdicts."
    return sentence + _failed(failed)


def _failed(number: int) -> str:
    return f" Failed: {number} comparison{'s' if number > 1 else ''}." if number else ""


def accuracy_line(rows: Sequence[Row]) -> str:
    """The differences in accuracy of a run in one sentence; empty where none was measured."""
    found = []
    for arm in dict.fromkeys(row.arm for row in rows if row.difference):
        values = [
            100 * row.difference.estimate for row in rows if row.arm == arm and row.difference
        ]
        low, high = min(values), max(values)
        span = f"{low:+.2f}" if len(values) == 1 else f"{low:+.2f} to {high:+.2f}"
        found.append(f"{arm} {span}")
    if not found:
        return ""
    return f"Test accuracy against {REFERENCE}, in percentage points: {'; '.join(found)}."


def target_line(rows: Sequence[Row], target: float) -> str:
    """How long the arms trained to the target accuracy, in one sentence; empty without trainings.

    Medians over the seeds, and their range over the cells of each machine.
    """
    machines = dict.fromkeys(row.cell.get("machine") for row in rows if row.seconds_to_target)
    if len(machines) > 1:
        own = {m: [row for row in rows if row.cell.get("machine") == m] for m in machines}
        return " ".join(f"On machine {m}: {target_line(its, target)}" for m, its in own.items())
    found = []
    for arm in dict.fromkeys(row.arm for row in rows if row.seconds_to_target):
        medians = [row.median_to_target for row in rows if row.arm == arm and row.seconds_to_target]
        there = sorted(filter(math.isfinite, medians))
        said = "never" if not there else f"{there[0]:.2g} s"
        if len(there) > 1:
            said = f"{there[0]:.2g}-{there[-1]:.2g} s"
        cells = f" in {len(there)} of {len(medians)}" if len(medians) > 1 and there else ""
        found.append(f"{arm} {said}{cells}")
    if not found:
        return ""
    return f"Training to {target:.4g} test accuracy, median of seeds: {'; '.join(found)}."


def precision_line(rows: Sequence[Row]) -> str:
    """From which width on arms of another precision pay, in one sentence; empty without such arms.

    >>> cells = [{"layers": 3, "units": units, "bias": "ramp"} for units in (64, 128, 256)]
    >>> words = Verdict.SLOWER, Verdict.FASTER, Verdict.FASTER
    >>> arm = "dense@mixed_bfloat16"
    >>> precision_line([Row(c, arm, verdict=w) for c, w in zip(cells, words, strict=True)])
    'Precision: dense@mixed_bfloat16 is faster than dense from 128 units on at T=3.'
    >>> precision_line([Row(cells[0], arm, verdict=Verdict.SLOWER)])
    'Precision: dense@mixed_bfloat16 is nowhere faster than dense, at 64 units at T=3.'
    """
    judged = [row for row in rows if row.verdict and "@" in row.arm]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row, name in zip(judged, names([row.cell for row in judged], size=False), strict=True):
        where = ", ".join(part for part in (f"T={row.cell['layers']}", name) if part)
        groups.setdefault((row.arm, where), []).append(row)
    found = []
    for (arm, where), members in groups.items():
        members.sort(key=lambda row: row.cell["units"])
        sizes = [row.cell["units"] for row in members]
        won = list(takewhile(lambda row: row.verdict is Verdict.FASTER, reversed(members)))
        if won:
            said = f"faster than {REFERENCE} from {won[-1].cell['units']} units on"
        else:
            span = f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else sizes[0]
            said = f"nowhere faster than {REFERENCE}, at {span} units"
        found.append(f"{arm} is {said} at {where}")
    return f"Precision: {'; '.join(found)}." if found else ""


def gpu_line(rows: Sequence[Row]) -> str:
    """Peak GPU memory and energy of the arms in one sentence, ranges over the cells; else empty.

    >>> gpu_line([Row({}, "dense", device_bytes=3 * 2**20, joules=4e-5)])
    'GPU memory at its peak, and energy for 1,000 examples: dense 3 MiB, 0.04 J.'
    """
    found = []
    for arm in dict.fromkeys(row.arm for row in rows):
        own = [row for row in rows if row.arm == arm]
        mebibytes = sorted(r.device_bytes / 2**20 for r in own if r.device_bytes >= 0)
        joules = sorted(1000 * r.joules for r in own if r.joules >= 0)
        said = []
        for values, form, unit in ((mebibytes, ",.0f", "MiB"), (joules, ".2g", "J")):
            texts = list(dict.fromkeys(f"{v:{form}}" for v in (values[:1] + values[-1:])))
            said += [f"{' to '.join(texts)} {unit}"] if texts else []
        found += [f"{arm} {', '.join(said)}"] if said else []
    if not found:
        return ""
    return f"GPU memory at its peak, and energy for 1,000 examples: {'; '.join(found)}."


def provenance(run: Run) -> list[str]:
    """Command, machine and versions of a run, a short text for each."""
    parts, software = [], []
    for letter, machine in kinds_of(run.machine).items():
        cpu, versions = machine["cpu"], machine["versions"]
        mark = f"{letter}: " if letter else ""
        parts.append(f"{mark}{cpu['model']}, {cpu['usable_cores']} cores")
        parts += [str(gpu.get("name")) for gpu in machine.get("gpus", [])]
        names = {"TensorFlow": "tensorflow", "Keras": "keras", "NumPy": "numpy"}
        named = [f"{name} {versions[key]}" for name, key in names.items() if key in versions]
        software.append(", ".join([*named, f"Python {machine['python']}", str(machine["os"])]))
    return [" ".join(run.argv), "; ".join(parts), "; ".join(dict.fromkeys(software))]


def leaf_table(run: Run, row: Row) -> str:
    """What is known of one arm of one cell, as a Markdown table."""
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
    facts |= dict(zip(("command", "machine", "versions"), provenance(run), strict=True))
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
