"""The comparisons of a run: each measured once, recorded as it comes in, shown as it goes."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from bench.board import write_board
from bench.config import Options
from bench.executors import Executor, WorkerDied
from bench.interrupts import Interrupts
from bench.machine import anonymous
from bench.plan import Comparison
from bench.records import (
    Record,
    RecordExists,
    Run,
    read_header,
    recorded_keys,
    utc_now,
    write_record,
)
from bench.report import comparison_line
from bench.summary import summarise
from bench.wall import Pace
from bench.worker import describe_error


def run_plan(
    plan: list[Comparison],
    folder: Path,
    executor: Executor,
    function: Callable[[Comparison], Record],
    options: Options,
    console: Console,
    interrupts: Interrupts,
) -> Pace | None:
    """Measures what of a plan has no record yet, and writes the records.

    Args:
        plan: All comparisons of the run.
        folder: The run's, with its header.
        executor: Where they run.
        function: Measures one.
        options: Of the run.
        console: Gets a line for each, and a progress view where it is a terminal.
        interrupts: End it between two records.

    Returns:
        How the driver's time went; None if there was nothing left to measure.
    """
    run, done = read_header(folder), recorded_keys(folder)
    left = [comparison for comparison in plan if comparison.cell.key not in done]
    begun: dict[Comparison, tuple[str, float]] = {}
    handlings: list[float] = []
    first = 0.0
    with _progress(console) as progress:
        task = progress.add_task("", total=len(plan), completed=len(plan) - len(left), left="")

        def started(comparison: Comparison) -> None:
            nonlocal first
            first = first or time.time()
            begun[comparison] = utc_now(), time.monotonic()
            progress.update(task, description=str(comparison.cell))

        results = executor.map(function, left, timeout=options.timeout, started=started)
        began = time.monotonic()
        for measured in range(1, len(left) + 1):
            with interrupts.waiting():
                comparison, future = next(results)
            received = time.monotonic()
            started_at, given = begun.get(comparison, (utc_now(), received))
            record = _record(comparison, future, started_at)
            # By the driver's clock alone: a worker's may be another's.
            record.extra["turnaround_seconds"] = received - given
            try:
                write_record(folder, record)
            except RecordExists as error:  # by a driver that the lock did not keep out
                progress.console.print(f"{error}: made elsewhere meanwhile", soft_wrap=True)
            else:
                line = comparison_line(record, margin=options.margin)
                progress.console.print(line, soft_wrap=not console.is_terminal)
                _write_board(folder, run, record, options, progress.console)
            each = (time.monotonic() - began) / measured
            ahead = timedelta(seconds=round(each * (len(left) - measured)))
            progress.update(task, advance=1, left=f"{ahead} left")
            handlings.append(time.monotonic() - received)
    return Pace.of(first, handlings) if handlings else None


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(bar_width=10),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        # The rest of the line, cut where the window ends: one line, however long the cell's name.
        TextColumn("{task.description}", table_column=Column(no_wrap=True, ratio=1)),
        console=console,
        transient=True,
        expand=True,
        disable=not console.is_terminal,
    )


def _record(comparison: Comparison, future: Future, started: str) -> Record:
    try:
        record: Record = future.result()
    except Exception as error:  # whatever it was, it costs this comparison and not the run
        died = isinstance(error, WorkerDied)
        cell = comparison.cell
        return Record(
            key=cell.key,
            cell=cell.recorded,
            status="failed",
            reason=anonymous(str(error)) if died else describe_error(error),
            started=started,
            ended=utc_now(),
        )
    return record


def _write_board(
    folder: Path, run: Run, record: Record, options: Options, console: Console
) -> None:
    """TensorBoard files while the run goes on; at its end come those with corrected verdicts."""
    try:
        rows = summarise([record], margin=options.margin, target=options.target)
        write_board(folder, run, [record], rows, add=True)
    except Exception as error:  # the record is safe, and the run goes on
        console.print(f"no TensorBoard files: {error}", soft_wrap=True)
