"""`python -m bench.peers.sessions RUN RUN RUN`: several side-by-sides as one, by their medians."""

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import tyro
from scipy.stats import gmean

from bench.peers.registry import OURS
from bench.peers.report import ceiling_share, groups, judge, rates
from bench.places import likeness
from bench.records import BadRecord, Record, Run, read_run
from bench.rules import UsageError, usage_error

_CELL = ["batch_size", "layers", "units"]


@dataclass(frozen=True)
class Options:
    """Puts several runs of bench.peers on one machine together, as Markdown tables.

    A run's ratio is the median of its rounds, and what is shown is the median over the runs. What
    a process keeps for as long as it lives, and how the machine is that day, differ from run to
    run: the means of each run are shown too.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    figure: Path | None = None
    """PNG file to draw: throughput against units."""


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; returns the exit status: 0, or 2 for bad input."""
    try:
        options = tyro.cli(
            Options,
            args=list(sys.argv[1:] if argv is None else argv),
            prog="python -m bench.peers.sessions",
        )
        if not options.runs:
            raise UsageError("Name one run of bench.peers at least. Received: none.")
        runs = [_read(folder) for folder in options.runs]
        _check_alike(options.runs, [run for run, _ in runs])
    except UsageError as error:
        return usage_error(error)
    sessions = [records for _, records in runs]
    print("\n".join(tables(sessions)))
    if options.figure is not None:
        from bench.peers.figure import draw

        draw(runs[0][0], medians(sessions), options.figure)
    return 0


def tables(sessions: Sequence[Sequence[Record]]) -> list[str]:
    """The lines of two Markdown tables: geometric means over the cells, and the cells.

    Behind a ratio stands its range over several runs, [least, most], or the bound, (bound): how
    many times as fast as that peer the bare matrix products were, which no training can exceed.

    Args:
        sessions: Records of each run.
    """
    found = ratios(sessions)
    runs = found.groupby(["against", *_CELL], sort=False)
    cells = runs[["ratio", "bound", "share"]].median()
    cells[["least", "most", "runs"]] = runs["ratio"].agg(["min", "max", "count"])
    return [*_means(found, cells.reset_index()), "", *_cells(cells, medians(sessions))]


def ratios(sessions: Sequence[Sequence[Record]]) -> pd.DataFrame:
    """A row for each run, cell and group of peers, in this order.

    Returns:
        Columns `run` (a number), `batch_size`, `layers`, `units`, `against` (the group), `ratio`
        (how many times as fast as its fastest peer `fit_compiled` was), `share` (of the speed of
        the bare products) and `bound` (ratio / share); NaN where the products were not measured.
    """
    rows = []
    for number, records in enumerate(sessions):
        judged = judge(records, margin=0.02)
        shares = {str(record.cell): ceiling_share(record, judged) for record in records}
        for group in groups(records, judged):
            for cell, ratio in group.ratios:
                where = {axis: cell[axis] for axis in _CELL}
                about = {"run": number, "against": group.name, "share": shares[str(cell)]}
                rows.append(where | about | {"ratio": ratio, "bound": ratio / shares[str(cell)]})
    return pd.DataFrame(rows)


def medians(sessions: Sequence[Sequence[Record]]) -> list[Record]:
    """One record for each cell, of one round: the median speed of each peer over the runs."""
    speeds: dict[str, dict[str, list[float]]] = {}
    found: dict[str, Record] = {}
    for record in (record for records in sessions for record in records if OURS in rates(record)):
        own = speeds.setdefault(record.key, {})
        for name, rate in rates(record).items():
            own.setdefault(name, []).append(rate)
        arms = {name: {"samples": [1 / statistics.median(known)]} for name, known in own.items()}
        found[record.key] = replace(record, arms=arms, order=[list(arms)])
    return list(found.values())


def _means(found: pd.DataFrame, cells: pd.DataFrame) -> list[str]:
    sizes = sorted(cells["batch_size"].unique())
    columns = [
        "against",
        "mean",
        "of each run",
        *(f"batch {size}" for size in sizes),
        "lowest cell",
    ]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for group, own in cells.groupby("against", sort=False):
        runs = found.loc[found["against"] == group].groupby("run")["ratio"]
        lowest = own.sort_values("ratio").iloc[0]
        where = f"T={lowest['layers']}, {lowest['units']} units, batch {lowest['batch_size']}"
        lines.append(
            _row(
                [
                    str(group),
                    _mean(own),
                    ", ".join(f"{gmean(run):.2f}" for _, run in runs),
                    *(_mean(own[own["batch_size"] == size]) for size in sizes),
                    f"{_with_bound(lowest['ratio'], lowest['bound'])} at {where}",
                ]
            )
        )
    return lines


def _cells(cells: pd.DataFrame, records: Sequence[Record]) -> list[str]:
    names = list(dict.fromkeys(cells.index.get_level_values("against")))
    columns = ["T", "units", "batch", f"{OURS}, examples/s", *names, "of bare products"]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for record in records:
        axes = tuple(record.cell[axis] for axis in _CELL)
        own = {name: cells.loc[(name, *axes)] for name in names if (name, *axes) in cells.index}
        share = next((row["share"] for row in own.values()), math.nan)
        shown = [_with_range(own[name]) if name in own else "" for name in names]
        size = [str(record.cell[axis]) for axis in ("layers", "units", "batch_size")]
        speed = f"{rates(record)[OURS]:,.0f}"
        lines.append(_row([*size, speed, *shown, "" if math.isnan(share) else f"{share:.0%}"]))
    return lines


def _row(parts: Sequence[str]) -> str:
    return f"| {' | '.join(parts)} |"


def _mean(own: pd.DataFrame) -> str:
    return _with_bound(float(gmean(own["ratio"])), float(gmean(own["bound"])))


def _with_range(cell: pd.Series) -> str:
    if cell["runs"] == 1:
        return f"{cell['ratio']:.2f}"
    return f"{cell['ratio']:.2f} [{cell['least']:.2f}, {cell['most']:.2f}]"


def _with_bound(ratio: float, bound: float) -> str:
    return f"{ratio:.2f}" if math.isnan(bound) else f"{ratio:.2f} ({bound:.2f})"


def _read(folder: Path) -> tuple[Run, list[Record]]:
    try:
        run, records, problems = read_run(folder)
    except (OSError, BadRecord) as error:
        raise UsageError(f"RUN must be the folder of a run. Received: {folder}: {error}") from None
    if problems or not any(OURS in rates(record) for record in records):
        raise UsageError(
            f"RUN must hold whole records of bench.peers. Received: {folder}"
            + "".join(f"; {problem}" for problem in problems)
        )
    return run, records


def _check_alike(folders: Sequence[Path], runs: Sequence[Run]) -> None:
    kinds = [likeness(run.machine) for run in runs]
    for folder, kind in zip(folders, kinds, strict=True):
        if kind != kinds[0]:
            raise UsageError(
                "Runs to be put together must be of one machine with the same versions and flags. "
                f"Received: {folders[0]} and {folder}, which differ."
            )


if __name__ == "__main__":
    sys.exit(main())
