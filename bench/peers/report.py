"""What the side-by-side shows: a line per cell, tables of ratios, geometric means."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from bench.families import Judgement, correction, judge_family, least_rounds
from bench.peers.process import Task
from bench.peers.race import out_of_tolerance
from bench.peers.registry import CEILINGS, OURS
from bench.records import Record
from bench.verdicts import Verdict

GROUPS: dict[str, tuple[str, ...]] = {
    "Keras fit, 1 step": ("fit", "fit-xla"),
    "Keras fit, XLA, 32": ("fit-xla-32",),
    "GradientTape loop": ("tape",),
    "JAX scan": ("jax",),
    "PyTorch": ("torch", "torch-compile", "torch-graph"),
}
"""Rows of the summary: the fastest of these in each cell is what counts."""

_SHORT = {
    "fit-32": "fit/32",
    "fit-xla": "xla",
    "fit-xla-32": "xla/32",
    "torch-compile": "compil",
    "torch-graph": "graph",
}
_MARKS = {Verdict.SAME: "=", Verdict.CANT_TELL: "?"}


@dataclass(frozen=True)
class Group:
    """`fit_compiled` against the fastest of a group of peers, over the cells that have both.

    Args:
        name: Of the group.
        ratios: By cell: how many times as fast `fit_compiled` is.
    """

    name: str
    ratios: list[tuple[dict[str, Any], float]]

    def mean(self, keep: Callable[[dict[str, Any]], bool] = lambda cell: True) -> float:
        """Geometric mean over the cells that `keep` keeps; NaN if there are none."""
        kept = [ratio for cell, ratio in self.ratios if keep(cell)]
        return statistics.geometric_mean(kept) if kept else math.nan

    @property
    def lowest(self) -> tuple[dict[str, Any], float]:
        return min(self.ratios, key=lambda pair: pair[1])


def rates(record: Record) -> dict[str, float]:
    """Examples per second of every peer that was timed, from its median sample."""
    return {
        name: 1 / statistics.median(arm["samples"])
        for name, arm in record.arms.items()
        if arm.get("samples")
    }


def judge(records: Sequence[Record], *, margin: float) -> dict[tuple[str, str], Judgement]:
    """`fit_compiled` against every peer of every record, as one family of verdicts.

    A ratio above 1 says how many times as fast as the peer `fit_compiled` is.
    """
    pairs = [
        (record, name)
        for record in records
        for name in rates(record)
        if name != OURS and rates(record).get(OURS)
    ]
    judged = judge_family(
        [(r.arms[name]["samples"], r.arms[OURS]["samples"]) for r, name in pairs], margin=margin
    )
    return {(r.key, name): found for (r, name), found in zip(pairs, judged, strict=True)}


def groups(records: Sequence[Record], judged: dict[tuple[str, str], Judgement]) -> list[Group]:
    """The summary's rows that these records have anything for."""
    found = []
    for label, members in GROUPS.items():
        ratios = []
        for record in records:
            speeds = {n: rate for n, rate in rates(record).items() if n in members}
            if speeds and (record.key, best := max(speeds, key=speeds.__getitem__)) in judged:
                ratios.append((record.cell, judged[record.key, best].ratio.estimate))
        if ratios:
            found.append(Group(label, ratios))
    return found


def ceiling_share(record: Record, judged: dict[tuple[str, str], Judgement]) -> float:
    """Speed of `fit_compiled` as a share of the fastest bare products; NaN without them."""
    keys = [(record.key, name) for name in CEILINGS]
    return min((judged[key].ratio.estimate for key in keys if key in judged), default=math.nan)


def accuracy_lines(
    accuracies: dict[str, Any], task: Task, epochs: int, test_examples: int
) -> tuple[list[str], bool]:
    """What the check of accuracy found, and whether a peer failed it."""
    known = {name: a for name, a in accuracies.items() if isinstance(a, float)}
    network = task.network
    where = f"T={network.layers} units={network.units} batch={network.batch_size}"
    lines = []
    if known:
        lines.append(
            f"test accuracy after {epochs} epochs at {where}: {min(known.values()):.2%} to "
            f"{max(known.values()):.2%}, {len(known)} peers"
        )
    wrong = out_of_tolerance(accuracies, test_examples)
    lines += [
        f"{name}: accuracy {known[name]:.2%} is {100 * distance:+.2f} points from the others': "
        "its speed is not that of the same training"
        for name, distance in wrong.items()
    ]
    errors = {name: reason for name, reason in accuracies.items() if isinstance(reason, str)}
    lines += [f"{name}: accuracy not checked: {reason}" for name, reason in errors.items()]
    return lines, bool(wrong or errors)


def cell_line(record: Record) -> str:
    """One finished cell in one line."""
    cell = record.cell
    place = f"T={cell['layers']} units={cell['units']} batch={cell['batch_size']}"
    if record.status == "failed":
        return f"{place}: failed, {record.reason}"
    speeds = rates(record)
    rivals = {n: r for n, r in speeds.items() if n != OURS and n not in CEILINGS}
    text = f"{place}: {OURS} {speeds[OURS]:,.0f}/s"
    if rivals:
        best = max(rivals, key=rivals.__getitem__)
        text += f", {speeds[OURS] / rivals[best]:.2f} x {best}"
    text += f"; {record.rounds} rounds"
    if record.stop == "time":
        text += f" (time cap; {record.extra['rounds_missing']} more for --halfwidth)"
    return text


def print_report(records: Sequence[Record], console: Console, *, margin: float) -> None:
    """Tables of ratios, one for each batch size, then the geometric means."""
    console.width = max(console.width, 80)
    judged = judge(records, margin=margin)
    done = [record for record in records if OURS in rates(record)]
    names = [name for record in done for name in rates(record)]
    rivals = [n for n in dict.fromkeys(names) if n != OURS and n not in CEILINGS]
    for batch_size, group in groupby(done, key=lambda record: record.cell["batch_size"]):
        table = _table(
            f"batch {batch_size}: {OURS}, and its speed as a multiple of each peer's",
            *("T", "units", "ex/s", *(_SHORT.get(name, name) for name in rivals), "ceil."),
        )
        for record in group:
            ratios = [_ratio(judged.get((record.key, name))) for name in rivals]
            share = ceiling_share(record, judged)
            table.add_row(
                str(record.cell["layers"]),
                str(record.cell["units"]),
                f"{rates(record)[OURS]:,.0f}",
                *ratios,
                "" if math.isnan(share) else f"{share:.0%}",
            )
        console.print(table)
        console.print()
    _print_means(done, judged, console)
    for record in records:
        for note in record.notes:
            cell = record.cell
            console.print(
                f"T={cell['layers']} units={cell['units']} batch={cell['batch_size']}: {note}",
                soft_wrap=True,
            )


def _print_means(
    done: Sequence[Record], judged: dict[tuple[str, str], Judgement], console: Console
) -> None:
    found = groups(done, judged)
    if not found:
        return
    sizes = list(dict.fromkeys(record.cell["batch_size"] for record in done))
    small = any(_small(record.cell) for record in done)
    columns = ["against", "mean", *(f"B={size}" for size in sizes), *["small"] * small]
    table = _table("geometric means over the cells", *columns, "lowest", "at")
    for group in found:
        cell, lowest = group.lowest
        parts = [group.mean(partial(_has_batch, size)) for size in sizes]
        parts += [group.mean(_small)] * small
        table.add_row(
            group.name,
            *(_figure(value) for value in (group.mean(), *parts, lowest)),
            f"T={cell['layers']} U={cell['units']} B={cell['batch_size']}",
        )
    console.print(table)
    console.print("the best of XLA on and off, of eager and compiled; small: B=32, up to 128 units")
    finite = [j.ratio for j in judged.values() if math.isfinite(j.ratio.halfwidth)]
    if finite:
        widths = sorted(ratio.halfwidth for ratio in finite)
        console.print(
            f"95 % intervals: half within {widths[len(widths) // 2]:.1%}, all within "
            f"{widths[-1]:.1%}; = same, ? can't tell; verdicts are {correction(len(judged))}"
        )
    enough, fewest = least_rounds(len(judged)), min(record.rounds for record in done)
    if fewest < enough:
        pace = max(record.extra.get("timing_seconds", 0.0) / record.rounds for record in done)
        hint = f", which --time-cap {math.ceil(pace * enough)} gives" if pace else ""
        console.print(
            f"{fewest} rounds give no verdict among {len(judged)}, however clear: it takes "
            f"{enough}{hint}",
            soft_wrap=True,
        )


def _has_batch(size: int, cell: dict[str, Any]) -> bool:
    return bool(cell["batch_size"] == size)


def _small(cell: dict[str, Any]) -> bool:
    return bool(cell["batch_size"] == 32 and cell["units"] <= 128)


def _table(title: str, *names: str) -> Table:
    columns = [
        Column(name, justify="left" if name == "against" else "right", no_wrap=True)
        for name in names
    ]
    # As wide as the title at least, or that would be broken.
    style: dict[str, Any] = {"title_justify": "left", "box": None, "padding": (0, 1, 0, 0)}
    style["min_width"] = len(title)
    return Table(*columns, title=title, header_style="bold", **style)


def _ratio(judgement: Judgement | None) -> str:
    if judgement is None:
        return "failed"
    return _figure(judgement.ratio.estimate) + _MARKS.get(judgement.verdict, "")


def _figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}" if value < 100 else f"{value:.0f}"
