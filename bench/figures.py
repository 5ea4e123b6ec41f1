"""The figures of a report on speed; `bench.curves` has those on learning.

Each function takes the `Story` of a run and gives pictures, none where there is nothing to show.
"""

import math
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import NullLocator

from bench.arms import AGAIN, REFERENCE
from bench.labels import names, place
from bench.panels import (
    Picture,
    Story,
    chunks,
    forest,
    interval,
    legend,
    log_ticks,
    mark,
    pages,
)
from bench.style import WIDTH, Look
from bench.summary import Row
from bench.verdicts import Verdict


def heat_maps(story: Story) -> Iterator[Picture]:
    """Layers x units of the speed ratio, one map per arm and combination of the other axes."""
    compared = [row for row in story.rows if row.arm not in (REFERENCE, AGAIN)]
    if not compared:
        return
    maps: dict[str, dict[str, list[Row]]] = {}
    for row in compared:
        maps.setdefault(place(row.cell), {}).setdefault(row.arm, []).append(row)
    panels = [(arm, rows) for arms in maps.values() for arm, rows in arms.items()]
    logs = [abs(math.log(row.ratio.estimate)) for row in compared if row.ratio]
    # Never so fine a scale that a difference within the noise of a machine looks strong.
    bound = max([math.log(1.1), *logs])
    layers = sorted({row.cell["layers"] for row in compared}, reverse=True)
    units = sorted({row.cell["units"] for row in compared})
    columns = min(3, len(panels), max(1, 10 // len(units)))
    size = (WIDTH / max(columns, 2), 0.9 + 0.42 * len(layers))
    # Of the other axes only what differs between the maps: a title has a third of the page.
    titles = names([rows[0].cell for _, rows in panels], size=False)

    def draw(axes: Axes, panel: Any) -> None:
        (arm, rows), title = panel
        axes.set_title(f"{arm}\n{title}" if title else arm)
        for row in rows:
            at = units.index(row.cell["units"]), layers.index(row.cell["layers"])
            _heat_cell(axes, at, row, bound, 6.5 if columns * len(units) <= 10 else 5)
        axes.set(xlim=(-0.5, len(units) - 0.5), ylim=(len(layers) - 0.5, -0.5))
        axes.set_xticks(range(len(units)), map(str, units))
        axes.set_yticks(range(len(layers)), map(str, layers))
        axes.set(xlabel="units per hidden layer", ylabel="layers (T)")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    titled = list(zip(panels, titles, strict=True))
    for number, figure in pages(titled, draw, columns=columns, size=size):
        yield Picture(
            f"heatmap{number}",
            "Speed of each arm over that of dense",
            f"Ratio of speeds, above 1 the arm is faster than {REFERENCE}, and the verdict on it "
            f"with a margin of {story.margin:.0%}, corrected for the number of verdicts in the "
            f"run. Hatched and pale: can't tell. Crossed: failed. Orange: slower, purple: faster; "
            f"the colours reach their full strength at {math.exp(bound):.2f} times.",
            figure,
        )


def _heat_cell(axes: Axes, at: tuple[int, int], row: Row, bound: float, size: float) -> None:
    corner = (at[0] - 0.48, at[1] - 0.46)
    look: dict[str, Any] = {"facecolor": "white", "edgecolor": "0.6", "linewidth": 0.5}
    dark = False
    if row.ratio is None:
        text, look["hatch"], look["edgecolor"] = "failed", "xx", "0.75"
    else:
        level = Normalize(-bound, bound)(math.log(row.ratio.estimate))
        look["facecolor"] = colormaps["PuOr"](float(level))
        dark = abs(level - 0.5) > 0.38
        text = f"{row.ratio.estimate:.3f}\n{row.verdict}"
        if row.verdict is Verdict.CANT_TELL:
            # Pale: what cannot be told must not look as strong as what can.
            pale = 0.7 + 0.3 * np.asarray(look["facecolor"][:3])
            look |= {"hatch": "////", "edgecolor": "0.62", "facecolor": tuple(pale)}
            dark = False
    axes.add_patch(Rectangle(corner, 0.96, 0.92, **look))
    words = axes.text(*at, text, ha="center", va="center", fontsize=size, linespacing=1.25)
    words.set_color("white" if dark else "black")
    if "hatch" in look:  # else the hatching runs through the letters
        back = look["facecolor"] if row.ratio else "white"
        words.set_bbox({"facecolor": back, "edgecolor": "none", "pad": 1.2})


def intervals(story: Story) -> Iterator[Picture]:
    """Every ratio with its interval, the A/A arm among them."""
    rows = [row for row in story.rows if row.ratio]
    if not rows:
        return
    ends = [x for r in rows if r.ratio for x in (r.ratio.low, r.ratio.high) if 0 < x < math.inf]
    points = [r.ratio.estimate for r in rows if r.ratio]
    # A few very wide intervals would squeeze all others: those are cut, and shown to be.
    usual = float(np.quantile(np.abs(np.log(ends)), 0.85)) if ends else 0.0
    reach = 1.1 * max(usual, *(abs(math.log(x)) for x in [*points, 1 + 2 * story.margin]))

    def draw(axes: Axes, row: Row, y: float, look: Look) -> None:
        ratio = row.ratio
        assert ratio is not None
        interval(axes, ratio.low, ratio.high, y, (math.exp(-reach), math.exp(reach)), look)
        mark(axes, ratio.estimate, y, look)

    for number, figure, axes in forest(story, rows, draw):
        edges = 1 / (1 + story.margin), 1 + story.margin
        axes.axvspan(*edges, color="0.9", zorder=0, linewidth=0)
        axes.axvline(1, color="0.4", linewidth=0.8, zorder=1)
        axes.set_xscale("log")
        axes.set_xlim(math.exp(-reach), math.exp(reach))
        log_ticks(axes.xaxis, *axes.get_xlim())
        axes.set_xlabel(f"speed over that of {REFERENCE} in the same rounds (log scale)")
        yield Picture(
            f"intervals{number}",
            "The ratios with their intervals",
            "Ratio of speeds and its 95 % interval, not corrected for their number; an arrow says "
            "that it goes on. "
            f"Grey band: within {story.margin:.0%} of 1, the same for all practical purposes. "
            f"{AGAIN} is {REFERENCE} built once more: how far two equal arms lie apart here.",
            figure,
        )


def throughput(story: Story) -> Iterator[Picture]:
    """Examples per second against units, with the ceiling."""
    timed = [row for row in story.rows if row.examples_per_second > 0]
    panels = [
        list(group)
        for _, group in groupby(
            sorted(timed, key=lambda r: (place(r.cell), r.cell["layers"])),
            key=lambda r: (place(r.cell), r.cell["layers"]),
        )
    ]
    if not panels:
        return
    titles = names([rows[0].cell for rows in panels], size=False)
    units = sorted({row.cell["units"] for row in timed})
    rates = [row.examples_per_second for row in timed]
    tops = [row.examples_per_second / row.ceiling for row in timed if row.arm == REFERENCE]
    values = [*rates, *(top for top in tops if math.isfinite(top))]

    def draw(axes: Axes, panel: Any) -> None:
        rows, title = panel
        axes.set_title(", ".join(filter(None, [f"T={rows[0].cell['layers']}", title])))
        dense = [row for row in rows if row.arm == REFERENCE and row.ceiling > 0]
        top = [(row.cell["units"], row.examples_per_second / row.ceiling) for row in dense]
        if top:
            axes.plot(*zip(*sorted(top), strict=True), color="0.55", linewidth=3, marker="_")
        arms = list(dict.fromkeys(row.arm for row in rows))
        for n, arm in enumerate(arms):
            look = story.looks[arm]
            own = sorted((r.cell["units"], r.examples_per_second) for r in rows if r.arm == arm)
            # Side by side: arms of equal speed would hide each other.
            shift = 1.035 ** (n - (len(arms) - 1) / 2)
            x, y = [u * shift for u, _ in own], [rate for _, rate in own]
            style = {"color": look.color, "linestyle": look.dash, "marker": look.marker}
            axes.plot(x, y, **style, linewidth=1, markersize=4, markerfacecolor="white")
        axes.set(xscale="log", yscale="log", xlabel="units per hidden layer")
        axes.set(ylim=(min(values) / 1.25, max(values) * 1.25), ylabel="training examples/s")
        axes.set_xlim(min(units) / 1.25, max(units) * 1.25)
        axes.set_xticks(units, map(str, units))
        axes.xaxis.set_minor_locator(NullLocator())
        log_ticks(axes.yaxis, *axes.get_ylim())
        axes.grid(axis="y")

    arms = list(dict.fromkeys(row.arm for row in timed))
    ceiling = Line2D([], [], color="0.55", linewidth=3, label="ceiling: bare matrix products")
    for number, figure in pages(list(zip(panels, titles, strict=True)), draw):
        legend(figure, story, arms, [ceiling])
        yield Picture(
            f"throughput{number}",
            "Throughput and the ceiling",
            "Median training speed. The ceiling is the speed at which this machine did nothing but "
            "the matrix products of these shapes, with the faster of its libraries, measured "
            f"beside {REFERENCE} in rounds of their own; arms are drawn a little apart.",
            figure,
        )


def strips(story: Story) -> Iterator[Picture]:
    """Every raw sample."""
    records = [r for r in story.records if any(arm.get("samples") for arm in r.arms.values())]
    titles = names([record.cell for record in records])

    def draw(axes: Axes, panel: Any) -> None:
        record, title = panel
        arms = [name for name, arm in record.arms.items() if arm.get("samples")]
        for n, name in enumerate(arms):
            y = 1e6 * np.asarray(record.arms[name]["samples"], float)
            # In the order of the rounds from left to right, so that drift shows.
            x = n + np.linspace(-0.36, 0.36, len(y)) if len(y) > 1 else [n]
            axes.plot(x, y, ".", color=story.looks[name].color, markersize=2, alpha=0.6)
            median = float(np.median(y))
            axes.plot([n - 0.42, n + 0.42], [median] * 2, color="#D55E00", linewidth=1)
        axes.set_title(title)
        axes.set_xticks(range(len(arms)), arms, rotation=25, ha="right", rotation_mode="anchor")
        axes.set(xlim=(-0.6, len(arms) - 0.4), yscale="log", ylabel="µs per example")
        log_ticks(axes.yaxis, *axes.get_ylim())
        axes.grid(axis="y")

    for number, figure in pages(
        list(zip(records, titles, strict=True)), draw, size=(WIDTH / 3, 2.1)
    ):
        yield Picture(
            f"samples{number}",
            "Every sample",
            "Time per example of every sample that was taken, none left out: within an arm from "
            "the first round on the left to the last on the right. Line: median.",
            figure,
        )


def breakdown(story: Story) -> Iterator[Picture]:
    """Where the seconds of a training go: input, compiling, steps."""
    bars = [
        (record, name, arm)
        for record in story.records
        for name, arm in record.arms.items()
        if arm.get("histories")
    ]
    labels = names([record.cell for record, _, _ in bars])
    parts = (("input to the device", "0.35", ""), ("compiling", "0.72", "////"))
    for page, number in chunks(list(zip(bars, labels, strict=True)), 40):
        figure = Figure((WIDTH, 0.9 + 0.17 * len(page)), layout="constrained")
        axes = figure.subplots()
        for y, ((_, name, arm), _) in enumerate(page):
            steps = float(np.median([sum(h["seconds"]) for h in arm["histories"]]))
            seconds = [arm.get("input_seconds", 0.0), arm.get("compile_seconds", 0.0)]
            seconds = [max(0.0, s) if math.isfinite(s) else 0.0 for s in seconds]
            left = 0.0
            for value, (_, shade, hatch) in zip(seconds, parts, strict=True):
                axes.barh(
                    y, value, 0.74, left, color=shade, hatch=hatch, edgecolor="white", linewidth=0
                )
                left += value
            axes.barh(y, steps, 0.74, left, color=story.looks[name].color, linewidth=0)
        cells = [label for _, label in page]
        ticks = [
            name if y and cells[y - 1] == label else f"{label}   {name}"
            for y, ((_, name, _), label) in enumerate(page)
        ]
        axes.set_yticks(range(len(page)), ticks)
        axes.set(xlabel="seconds", ylim=(len(page) - 0.4, -0.6))
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        handles = [
            Patch(facecolor=shade, hatch=hatch, edgecolor="white", label=label)
            for label, shade, hatch in parts
        ]
        handles.append(Patch(facecolor="black", label="training steps (in the arm's colour)"))
        figure.legend(handles=handles, loc="outside upper left", ncols=3)
        yield Picture(
            f"breakdown{number}",
            "Where a training's seconds go",
            "Of one full training: bringing the images to the device (0 where the engine does so "
            "in every step), compiling, and the steps of all epochs (median of the seeds).",
            figure,
        )
