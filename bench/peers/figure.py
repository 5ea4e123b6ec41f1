"""The side-by-side as a figure: throughput against units, a panel per depth and batch size."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from bench.peers.registry import CEILINGS, OURS, PEERS
from bench.peers.report import rates
from bench.records import Record, Run
from bench.style import png

# Colour tells the framework, the line's style the variant (colours of Okabe and Ito, 2008).
_STYLES = {
    OURS: ("#000000", "-", "o"),
    "fit": ("#0072B2", "-", "s"),
    "fit-32": ("#0072B2", "--", "s"),
    "fit-xla": ("#56B4E9", "-", "^"),
    "fit-xla-32": ("#56B4E9", "--", "^"),
    "tape": ("#CC79A7", "-", "v"),
    "jax": ("#009E73", "-", "D"),
    "torch": ("#D55E00", "-", "P"),
    "torch-compile": ("#D55E00", "--", "P"),
    "torch-graph": ("#D55E00", ":", "P"),
}


def draw(run: Run, records: Sequence[Record], path: Path) -> Path:
    """Draws the figure.

    Args:
        run: The header: machine and versions go into the caption.
        records: Of the run.
        path: PNG file to write.

    Returns:
        The path.
    """
    depths = sorted({record.cell["layers"] for record in records})
    sizes = sorted({record.cell["batch_size"] for record in records})
    figure = Figure(figsize=(3.2 * len(sizes) + 1.6, 2.4 * len(depths) + 1.4), layout="constrained")
    panels = figure.subplots(len(depths), len(sizes), sharex=True, sharey="row", squeeze=False)
    for row, depth in enumerate(depths):
        for column, size in enumerate(sizes):
            panel = panels[row][column]
            where = depth, size
            chosen = [r for r in records if (r.cell["layers"], r.cell["batch_size"]) == where]
            _draw_panel(panel, sorted(chosen, key=lambda record: record.cell["units"]))
            panel.set_title(f"T = {depth}, batch {size}", fontsize=9)
            if row == len(depths) - 1:
                panel.set_xlabel("units")
            if column == 0:
                panel.set_ylabel("examples / s")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(_caption(run), fontsize=8)
    path.write_bytes(png(figure, _caption(run), dpi=120, colors=64))
    return path


def _draw_panel(panel, records: Sequence[Record]) -> None:  # type: ignore[no-untyped-def]
    units = [record.cell["units"] for record in records]
    for name in PEERS:
        points = [(r.cell["units"], rates(r)[name]) for r in records if name in rates(r)]
        if points and name not in CEILINGS:
            colour, line, marker = _STYLES[name]
            panel.plot(
                *zip(*points, strict=True),
                color=colour,
                linestyle=line,
                marker=marker,
                markersize=4,
                linewidth=2.2 if name == OURS else 1.2,
                label=name,
            )
    best = [max((rates(r).get(n, 0.0) for n in CEILINGS), default=0.0) for r in records]
    if any(best):
        panel.plot(units, best, color="0.5", linestyle=":", linewidth=2, label="bare products")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(units, [str(n) for n in units])
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(EngFormatter(sep=" "))
    panel.grid(True, which="major", linewidth=0.4)


def _caption(run: Run) -> str:
    machine, versions = run.machine, run.machine["versions"]
    gpus = ", ".join(str(gpu.get("name")) for gpu in machine["gpus"])
    cores = machine["cpu"]["usable_cores"]
    shown = ("tensorflow", "keras", "jax", "torch")
    named = ", ".join(f"{name} {versions[name]}" for name in shown if name in versions)
    return f"{gpus or machine['cpu']['model']}, {cores} cores; {run.dataset['name']}; {named}"
