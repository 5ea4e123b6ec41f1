"""What several devices bring: ratio, efficiency, and from which size they pay at all."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.families import Judgement, judge_family
from bench.peers.registry import OURS
from bench.records import Record
from bench.verdicts import Verdict


@dataclass(frozen=True)
class Scaling:
    """So many devices against one, in one cell.

    Args:
        cell: The cell.
        replicas: How many devices.
        rate: Examples per second of one.
        judgement: Its ratio says how many times as fast as one they are.
    """

    cell: dict[str, Any]
    replicas: int
    rate: float
    judgement: Judgement

    @property
    def efficiency(self) -> float:
        """Share of what so many devices could bring at best: ratio over number."""
        return self.judgement.ratio.estimate / self.replicas

    @property
    def pays(self) -> bool:
        """Whether they are known to be faster than one."""
        return self.judgement.verdict is Verdict.FASTER


def scalings(records: Sequence[Record], *, margin: float) -> list[Scaling]:
    """Every number of devices of every record against one, as one family of verdicts."""
    pairs = [
        (record, name)
        for record in records
        for name, arm in record.arms.items()
        if name != OURS and arm.get("samples") and record.arms.get(OURS, {}).get("samples")
    ]
    judged = judge_family(
        [(r.arms[OURS]["samples"], r.arms[name]["samples"]) for r, name in pairs], margin=margin
    )
    return [
        Scaling(r.cell, int(name.split()[0]), 1 / statistics.median(r.arms[OURS]["samples"]), found)
        for (r, name), found in zip(pairs, judged, strict=True)
    ]


def conclusions(found: Sequence[Scaling]) -> list[str]:
    """For every number of devices, from which size they pay, or that they never did."""
    lines = []
    for replicas in sorted({one.replicas for one in found}):
        # The size that matters is the work of a step, over which the cost of a step is spread.
        mine = sorted((s for s in found if s.replicas == replicas), key=lambda s: _work(s.cell))
        best = max(mine, key=lambda s: s.judgement.ratio.estimate)
        peak = f"at best {best.judgement.ratio.estimate:.2f} times as fast as one, at {_at(best)}"
        if not any(s.pays for s in mine):
            lines.append(f"{replicas} devices never paid in the sizes tried: {peak}")
            continue
        last = max((n for n, s in enumerate(mine) if not s.pays), default=-1)
        if last == len(mine) - 1:
            where = f"at {sum(s.pays for s in mine)} of {len(mine)} sizes, but not at the largest"
        else:
            where = f"from {_at(mine[last + 1])} up, by the work of a step"
        lines.append(f"{replicas} devices paid {where}; {peak}")
    return lines


def cell_line(record: Record) -> str:
    """One finished cell in one line."""
    if record.status == "failed":
        return f"{_place(record.cell)}: failed, {record.reason}"
    rates = {
        n: 1 / statistics.median(a["samples"]) for n, a in record.arms.items() if "samples" in a
    }
    others = ", ".join(f"{n} {rate / rates[OURS]:.2f} x" for n, rate in rates.items() if n != OURS)
    return f"{_place(record.cell)}: one device {rates[OURS]:,.0f}/s; {others or 'others failed'}"


def print_report(records: Sequence[Record], console: Console, *, margin: float) -> None:
    """The table, from which size it pays, and what the devices were."""
    console.width = max(console.width, 80)
    found = scalings(records, margin=margin)
    columns = ["T", "units", "batch", "1: ex/s", "devices", "x one", "", "verdict", "efficiency"]
    table = Table(*columns, box=None, header_style="bold")
    for one in found:
        ratio = one.judgement.ratio
        table.add_row(
            *(str(one.cell[name]) for name in ("layers", "units", "batch_size")),
            f"{one.rate:,.0f}",
            str(one.replicas),
            f"{ratio.estimate:.3f}",
            f"{ratio.low:.3f}-{ratio.high:.3f}" if math.isfinite(ratio.high) else "",
            str(one.judgement.verdict),
            f"{one.efficiency:.0%}",
        )
    console.print(table)
    for line in conclusions(found):
        console.print(line, soft_wrap=True)
    if any(record.cell["device"] == "cpu" for record in records):
        console.print(
            "the devices are logical ones on the same CPU, and one device uses all of its cores: "
            "they bring no hardware, and show what data-parallel training costs",
            soft_wrap=True,
        )
    console.print(
        "XLA compiles the whole epoch on one device, and on several the forward and backward pass "
        "alone: it refuses to sum gradients and update weights of several CPU devices",
        soft_wrap=True,
    )
    for record in records:
        for note in record.notes:
            console.print(f"{_place(record.cell)}: {note}", soft_wrap=True)


def _work(cell: dict[str, Any]) -> float:
    """Multiplications of a step's forward pass, for images of 784 pixels and 10 classes."""
    units = cell["units"]
    per_example = 784 * units + (cell["layers"] - 2) * units**2 + 10 * units
    return float(cell["batch_size"] * per_example)


def _place(cell: dict[str, Any]) -> str:
    return f"T={cell['layers']} units={cell['units']} batch={cell['batch_size']}"


def _at(one: Scaling) -> str:
    return _place(one.cell)
