"""What a run shows on the terminal: a line per comparison, a table at the end."""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

from rich.console import Console
from rich.table import Column, Table

from bench.arms import AGAIN, REFERENCE
from bench.plan import Cell
from bench.records import Record
from bench.summary import Row, summarise
from bench.verdicts import Ratio, family_rate


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
    """The table over layers x units, one for every combination of the other axes."""
    # Eighty columns at least, also where a pipe or a small window says less: cut numbers mislead.
    console.width = max(console.width, 80)
    for place, group in groupby(rows, key=_place):
        table = Table(
            *(Column(name, justify=side, no_wrap=True) for name, side in _COLUMNS),
            title=place,
            title_justify="left",
            box=None,
            padding=(0, 1, 0, 0),
            header_style="bold",
        )
        last = None
        for row in group:
            cell = str(row.cell["layers"]), str(row.cell["units"])
            table.add_row(*(("", "") if cell == last else cell), row.arm, *_numbers(row))
            last = cell
        console.print(table)
        console.print()
    for row in rows:
        for flag in row.flags:
            console.print(
                f"{_place(row)}, T={row.cell['layers']} units={row.cell['units']} ", end=""
            )
            console.print(f"{row.arm}: {flag}")


def closing_lines(rows: Sequence[Row]) -> list[str]:
    """What the run says of each arm against the reference, and how far to trust it."""
    lines = []
    judged = [row for row in rows if row.verdict and row.arm != AGAIN]
    for arm in dict.fromkeys(row.arm for row in judged):
        words = Counter(str(row.verdict) for row in judged if row.arm == arm)
        counts = ", ".join(f"{word} in {words[word]}" for word in sorted(words))
        lines.append(f"{arm} against {REFERENCE}: {counts} of {words.total()}")
    if len(judged) > 1:
        lines.append(
            f"verdicts are corrected for their number (Holm); uncorrected, {len(judged)} arms "
            f"equal to {REFERENCE} would give a wrong one in {family_rate(len(judged)):.0%} of runs"
        )
    return lines


_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("T", "right"),
    ("units", "right"),
    ("arm", "left"),
    ("ex/s", "right"),
    ("x dense", "right"),
    ("", "right"),
    ("verdict", "left"),
    ("acc.", "right"),
    ("diff.", "right"),
    ("ceil.", "right"),
)


def _place(row: Row) -> str:
    cell = row.cell
    axes = ("data", "device", "engine", "precision", "bias")
    return f"{', '.join(str(cell[name]) for name in axes)}, batch {cell['batch_size']}"


def _numbers(row: Row) -> tuple[str, ...]:
    timed = not math.isnan(row.examples_per_second)
    return (
        _rate(row.examples_per_second),
        f"{row.ratio.estimate:.3f}" if row.ratio else "",
        # Not a share of the estimate: the interval need not be symmetric about it.
        _interval(row.ratio) if row.ratio else "",
        (str(row.verdict) if row.verdict else "") if timed else "failed",
        _percent(row.accuracy, 2),
        f"{100 * row.difference.estimate:+.2f}" if row.difference else "",
        _percent(row.ceiling, 0),
    )


def _interval(ratio: Ratio) -> str:
    # Five rounds or fewer say nothing: their interval has no ends.
    return f"{ratio.low:.3f}-{ratio.high:.3f}" if math.isfinite(ratio.high) else "too few"


def _rate(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:.2f}M"


def _percent(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{100 * value:.{digits}f}%"
