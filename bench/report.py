"""What a run shows on the terminal; `python -m bench.report RUN` makes its report again."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Column, Table

from bench.arms import AGAIN, REFERENCE
from bench.families import correction, family_rate
from bench.findings import Findings, read_findings
from bench.labels import place
from bench.places import UNLIKE
from bench.plan import Cell
from bench.ratios import Ratio
from bench.records import BadRecord, Record
from bench.rules import UsageError, usage_error
from bench.sentences import device_line, gpu_line, headline, precision_line, target_line
from bench.summary import Row, family_sizes, summarise


@dataclass(frozen=True)
class Options:
    """Makes report.html, report.md, numbers.csv, figures and TensorBoard files of a run again."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 for bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = tyro.cli(Options, args=arguments, prog="python -m bench.report")
    try:
        print(report_line(read_findings(options.run)))
    except (BadRecord, OSError) as error:
        return usage_error(UsageError(f"The folder of a run is needed: {error}."))
    return 0


def report_line(found: Findings) -> str:
    """Writes the report and the TensorBoard files of a run, and says where the report is."""
    from bench.board import write_board
    from bench.page import write_report

    write_board(found.folder, found.run, found.records, found.rows)
    return f"report: {write_report(found)}"


def comparison_line(record: Record, *, margin: float) -> str:
    """One finished comparison in one line; its verdicts are not corrected for the others."""
    cell = Cell(**record.cell)
    if record.status == "failed":
        return f"{cell}: failed, {record.reason}"
    rows = {row.arm: row for row in summarise([record], margin=margin)}
    if not record.order:
        accuracies = [f"{row.arm} {_percent(row.accuracy, 2) or 'failed'}" for row in rows.values()]
        return f"{cell}: {', '.join(accuracies)}; not timed"
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
    for where, group in groupby(rows, key=lambda row: place(row.cell)):
        table = Table(
            # A long name of an arm takes two lines; a number is never cut.
            *(Column(n, justify=s, no_wrap=n != "arm", overflow="fold") for n, s in _COLUMNS),
            title=where,
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
                f"{place(row.cell)}, T={row.cell['layers']} units={row.cell['units']} ", end=""
            )
            console.print(f"{row.arm}: {flag}")


def closing_lines(found: Findings) -> list[str]:
    """What the table has no room for, and how far to trust the verdicts."""
    from bench.board import LEAVES, aggregates, count_leaves

    rows, target, folder = found.rows, found.target, found.folder
    lines = [target_line(rows, target) if target else "", precision_line(rows)]
    lines += [device_line(rows), gpu_line(rows)]
    sizes = family_sizes(rows)
    if sizes and sizes[0] > 1:
        lines.append(
            f"verdicts are {correction(sizes[0])}; uncorrected, {sizes[0]} arms "
            f"equal to {REFERENCE} would give a wrong one in {family_rate(sizes[0]):.0%} of runs"
        )
    if len(sizes) > 1:
        lines.append(UNLIKE)
    if aggregates(found.run, found.records):
        lines.append(
            "TensorBoard has one run per arm here, the cells in the tags, and no HParams, "
            f"histograms and pictures: with more than {LEAVES} runs its Scalars tab opens blank."
        )
    elif (leaves := count_leaves(folder.parent)) > LEAVES:
        lines.append(
            f"{folder.parent} holds {leaves} TensorBoard runs, and with more than 40 the Scalars "
            f"tab opens blank: look at one with tensorboard --logdir {folder}"
        )
    return [line for line in lines if line]


def verdict_line(found: Findings) -> str:
    """The run in one sentence."""
    return headline(found.rows, found.failed)


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


def _numbers(row: Row) -> tuple[str, ...]:
    return (
        _rate(row.examples_per_second),
        f"{row.ratio.estimate:.3f}" if row.ratio else "",
        # Not a share of the estimate: the interval need not be symmetric about it.
        _interval(row.ratio) if row.ratio else "",
        str(row.verdict or ("failed" if row.failed else "")),
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


if __name__ == "__main__":
    sys.exit(main())
