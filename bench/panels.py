"""What the figures of a report share: the run they tell of, pages of panels, legends, log axes."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.labels import names
from bench.records import Record, Run
from bench.style import WIDTH, Look
from bench.summary import Row

_PANELS = 12
_ROWS = 40


@dataclass(frozen=True)
class Story:
    """A run as figures need it: its header, records and rows, and how each arm looks."""

    run: Run
    records: list[Record]
    rows: list[Row]
    looks: dict[str, Look]
    margin: float
    target: float | None

    def sample(self, most: int, group: Callable[[Record], Any]) -> "Story":
        """This of at most so many groups of its records, drawn at random, the same each time.

        Not every n-th: axes of a grid go round, and every n-th may have one width only.
        """
        groups = list(dict.fromkeys(map(group, self.records)))
        if len(groups) <= most:
            return self
        drawn = set(random.Random(0).sample(groups, most))
        records = [record for record in self.records if group(record) in drawn]
        kept = {record.key for record in records}
        return replace(self, records=records, rows=[row for row in self.rows if row.key in kept])


@dataclass(frozen=True)
class Picture:
    """A figure, its file's name without ending, its title and what it shows, in words."""

    name: str
    title: str
    words: str
    figure: Figure


def log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks at round numbers on a logarithmic axis, also where it is shorter than a decade."""
    short = high < 4 * low
    axis.set_major_locator(
        MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]) if short else LogLocator(subs=(1, 2, 5))
    )
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))


def short_number(value: float) -> str:
    """A number in few characters.

    >>> short_number(2.5e6), short_number(20000), short_number(0.5)
    ('2.5M', '20k', '0.5')
    """
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:g}{letter}"
    return f"{value:g}"


def legend(figure: Figure, story: Story, arms: Sequence[str], more: Sequence[Any] = ()) -> None:
    """One legend above the panels: marks and dashes of the arms."""
    handles = [
        Line2D(
            [],
            [],
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            markersize=4,
            markerfacecolor="white",
            label=arm,
        )
        for arm, look in ((arm, story.looks[arm]) for arm in arms)
    ]
    handles += more
    figure.legend(handles=handles, loc="outside upper left", ncols=5)


def interval(
    axes: Axes, low: float, high: float, y: float, limits: tuple[float, float], look: Look
) -> None:
    """A bar from low to high, within the limits of the axis: where it goes on, an arrow."""
    ends = max(low, limits[0]), min(high, limits[1])
    axes.plot(ends, [y, y], color=look.color, linewidth=1.2, solid_capstyle="butt")
    for end, cut, arrow in ((low, ends[0], "<"), (high, ends[1], ">")):
        if end != cut:
            axes.plot(cut, y, arrow, color=look.color, markersize=4, clip_on=False)


def mark(axes: Axes, x: float, y: float, look: Look) -> None:
    """The mark of an arm at its estimate."""
    fill = look.color if look.marker == "x" else "white"
    axes.plot(x, y, marker=look.marker, color=look.color, markerfacecolor=fill, markersize=4)


def forest(
    story: Story, rows: Sequence[Row], draw: Callable[[Axes, Row, float, Look], None]
) -> Iterator[tuple[str, Figure, Axes]]:
    """Cells downwards, their arms in lines of their own below each other."""
    cells = [list(group) for _, group in groupby(rows, key=lambda row: row.cell)]
    labels = names([group[0].cell for group in cells])
    deepest = max(map(len, cells))
    for page, number in chunks(list(zip(cells, labels, strict=True)), max(1, _ROWS // deepest)):
        figure = Figure((WIDTH, 0.95 + 0.13 * (deepest + 1) * len(page)), layout="constrained")
        axes = figure.subplots()
        for place_, (group, _) in enumerate(page):
            for n, row in enumerate(group):
                step = 0.62 / max(1, deepest - 1)
                y = place_ + (n - (len(group) - 1) / 2) * step
                draw(axes, row, y, story.looks[row.arm])
            if place_:
                axes.axhline(place_ - 0.5, color="0.85", linewidth=0.6)
        axes.set_yticks(range(len(page)), [label for _, label in page])
        axes.set_ylim(len(page) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        legend(figure, story, list(dict.fromkeys(row.arm for group, _ in page for row in group)))
        yield number, figure, axes


def pages(
    panels: Sequence[Any],
    draw: Callable[[Axes, Any], None],
    *,
    columns: int = 3,
    size: tuple[float, float] = (WIDTH / 3, 2.2),
) -> Iterator[tuple[str, Figure]]:
    """Panels side by side, as many figures as they need."""
    for page, number in chunks(panels, _PANELS):
        across = min(columns, len(page))
        down = -(-len(page) // across)
        figure = Figure((max(across * size[0], 4.5), 0.35 + down * size[1]), layout="constrained")
        grid = figure.subplots(down, across, squeeze=False).flat
        for axes, panel in zip(grid, page, strict=False):
            draw(axes, panel)
        for axes in list(grid):
            axes.remove()
        for axes in figure.axes[len(page) :]:
            axes.remove()
        yield number, figure


def chunks(items: Sequence[Any], most: int) -> Iterator[tuple[Sequence[Any], str]]:
    """Items in pages, and the number of each page: none if there is one only."""
    for start in range(0, len(items), most):
        yield items[start : start + most], f"-{start // most + 1}" if len(items) > most else ""
