"""What a run shows on the terminal: a line per comparison, a table at the end."""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.arms import AGAIN, REFERENCE
from bench.plan import Cell
from bench.records import Record
from bench.summary import Row, summarise


def comparison_line(record: Record, *, margin: float) -> str:
    """One finished comparison in one line; its verdicts are not corrected for the others."""
    cell = Cell(**record.cell)
    if record.status == "failed":
        return f"{cell}: failed, {record.reason}"
    rows = {row.arm: row for row in summarise([record], margin=margin)}
    parts = [f"{REFERENCE} {_rate(rows[REFERENCE].examples_per_second)}/s"]
    for name, row in rows.items():
        if row.ratio is not None:
            label = "A/A" if name == AGAIN else name
            parts.append(f"{label} {row.ratio.estimate:.3f} {row.verdict}")
        elif name != REFERENCE:
            parts.append(f"{name} failed")
    stop = f"{record.rounds} rounds"
    if record.stop == "time":
        stop += f" (time cap; {record.extra['rounds_missing']} more for --halfwidth)"
    return f"{cell}: {', '.join(parts)}; {stop}"


def print_table(rows: Sequence[Row], console: Console) -> None:
    """The table over layers x units, with a column for every other axis that varies."""
    axes = ("data", "device", "engine", "precision", "bias", "batch_size")
    varying = [a for a in axes if len({row.cell[a] for row in rows}) > 1]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in varying:
        table.add_column(name.replace("_size", ""))
    for name in ("T", "units"):
        table.add_column(name, justify="right")
    table.add_column("arm")
    for name in ("ex/s", "x dense", "[low, high]"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("accuracy", "diff. pp", "ceiling"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in rows:
        place = [str(row.cell[a]) for a in (*varying, "layers", "units")]
        table.add_row(
            *([""] * len(place) if place == last else place),
            row.arm,
            _rate(row.examples_per_second),
            f"{row.ratio.estimate:.3f}" if row.ratio else "",
            f"[{row.ratio.low:.3f}, {row.ratio.high:.3f}]".replace("[", r"\[") if row.ratio else "",
            "failed" if math.isnan(row.examples_per_second) else str(row.verdict or ""),
            _percent(row.accuracy, 2),
            f"{100 * row.difference.estimate:+.2f}" if row.difference else "",
            _percent(row.ceiling, 0),
        )
        last = place
    console.print(table)
    for row in rows:
        for flag in row.flags:
            where = f"T={row.cell['layers']} units={row.cell['units']} {row.arm}"
            console.print(f"{where}: {flag}", markup=False, highlight=False)


def _rate(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:.2f}M"


def _percent(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{100 * value:.{digits}f} %"
