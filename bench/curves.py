"""The figures of a report on learning: accuracy, time to a target, curves, biases, weights."""

import math
from collections.abc import Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from bench.arms import REFERENCE
from bench.board import aggregates
from bench.labels import names, place
from bench.panels import Picture, Story, chunks, forest, interval, mark
from bench.records import Record
from bench.style import WIDTH, Look
from bench.summary import Row
from bench.weights import unpack_picture
from fixedbias.plots import plot_history, plot_weights


def accuracy_differences(story: Story) -> Iterator[Picture]:
    """Accuracy minus the reference's, with its interval over the seeds."""
    rows = [row for row in story.rows if row.difference]
    if not rows:
        return
    points = [100 * row.difference.estimate for row in rows if row.difference]
    ends = [
        100 * x for row in rows if row.difference for x in (row.difference.low, row.difference.high)
    ]
    # An interval from two seeds can be a hundred times the differences: cut, and shown to be.
    widest = max([0.2, *(4 * abs(p) for p in points)])
    finite = [abs(x) for x in (*points, *ends) if math.isfinite(x)]
    reach = min(widest, max([0.2, *finite])) * 1.08

    def draw(axes: Axes, row: Row, y: float, look: Look) -> None:
        assert row.difference is not None
        low, high = 100 * row.difference.low, 100 * row.difference.high
        if math.isfinite(low):
            interval(axes, low, high, y, (-reach, reach), look)
        mark(axes, 100 * row.difference.estimate, y, look)

    for number, figure, axes in forest(story, rows, draw):
        axes.axvline(0, color="0.4", linewidth=0.8, zorder=1)
        axes.set_xlim(-reach, reach)
        axes.set_xlabel(f"test accuracy minus that of {REFERENCE}, percentage points")
        axes.grid(axis="x")
        yield Picture(
            f"accuracy{number}",
            "Test accuracy beside dense",
            "Mean difference over the seeds, paired by seed, with its 95 % interval (Student's t); "
            "arrows: the interval goes on. A single seed gives no interval.",
            figure,
        )


def time_to_target(story: Story) -> Iterator[Picture]:
    """Seconds of training until the target accuracy, one mark per seed."""
    rows = [row for row in story.rows if row.seconds_to_target]
    times = [s for row in rows for s in row.seconds_to_target if math.isfinite(s)]
    if not times:
        return
    never = max(times) * 1.12
    missed = any(math.isinf(s) for row in rows for s in row.seconds_to_target)

    def draw(axes: Axes, row: Row, y: float, look: Look) -> None:
        reached = [s for s in row.seconds_to_target if math.isfinite(s)]
        for seconds in reached:
            mark(axes, seconds, y, look)
        if (absent := len(row.seconds_to_target) - len(reached)) > 0:
            words = f"not reached by {absent} of {len(row.seconds_to_target)}"
            axes.text(never, y, words, fontsize=6, color=look.color, va="center", ha="left")

    for number, figure, axes in forest(story, rows, draw):
        axes.set_xlim(0, never * (1.22 if missed else 0.97))
        axes.set_xlabel("seconds of training")
        axes.grid(axis="x")
        yield Picture(
            f"target{number}",
            "Time to the target accuracy",
            f"Seconds of training until the test accuracy first reached {_target(story)} after an "
            "epoch, one mark per seed; compiling, input and validation are not in it. Whole epochs "
            "are counted, so marks come in steps of one.",
            figure,
        )


def _target(story: Story) -> str:
    return "its target" if story.target is None else f"{story.target:.4g}"


def learning_curves(story: Story) -> Iterator[Picture]:
    """Accuracy and loss on the test images after every epoch."""
    records = [r for r in story.records if any(a.get("histories") for a in r.arms.values())]
    titles = names([record.cell for record in records])
    styles = {
        arm: {"color": look.color, "linestyle": look.dash} for arm, look in story.looks.items()
    }
    for metric, title in {"accuracy": "Learning curves", "loss": "Loss"}.items():
        for page, number in chunks(list(zip(records, titles, strict=True)), 12):
            across = min(3, len(page))
            down = -(-len(page) // across)
            size = max(across * WIDTH / 3, 4.5), 0.4 + 2.1 * down
            figure = Figure(size, layout="constrained")
            panels = figure.subfigures(down, across, squeeze=False).flat
            arms: dict[str, None] = {}
            for panel, (record, words) in zip(panels, page, strict=False):
                curves = {
                    name: [{k: v for k, v in h.items() if k != "seconds"} for h in a["histories"]]
                    for name, a in record.arms.items()
                    if a.get("histories")
                }
                arms |= dict.fromkeys(curves)
                plot_history(curves, metrics=[metric], styles=styles, figure=panel)
                axes = panel.axes[0]
                axes.set_title(words)
                axes.set_ylabel(f"test {metric}" if _several(curves) else metric)
                if axes.get_legend():
                    axes.get_legend().remove()
            handles = [Line2D([], [], **styles[arm], label=arm) for arm in arms]
            figure.legend(handles=handles, loc="outside upper left", ncols=5)
            yield Picture(
                f"{metric}-curves{number}",
                title,
                f"{metric.capitalize()} on the test images after every epoch: thick the mean, thin "
                "the seeds (a single seed: dashed on the training images, solid on the test "
                "images).",
                figure,
            )


def _several(curves: dict[str, list[Any]]) -> bool:
    return all(len(histories) > 1 for histories in curves.values())


def biases(story: Story) -> Iterator[Picture]:
    """Biases before and after training, unit by unit, in one cell."""
    record = _shown(story)
    if record is None:
        return
    drawn = {
        name: [(path, entry) for path, entry in _hidden_biases(arm).items()]
        for name, arm in record.arms.items()
    }
    drawn = {name: entries for name, entries in drawn.items() if entries}
    if not drawn:
        return
    deepest = max(map(len, drawn.values()))
    across = min(4, deepest)
    figure = Figure((WIDTH, 0.3 + 1.45 * len(drawn)), layout="constrained")
    grid = figure.subplots(len(drawn), across, squeeze=False)
    for row, (name, entries) in zip(grid, drawn.items(), strict=True):
        for axes, (path, entry) in zip(row, entries, strict=False):
            kept = entry["biases"]
            axes.plot(kept["units"], kept["before"], color="0.6", linewidth=2.5)
            color = story.looks[name].color
            axes.plot(kept["units"], kept["after"], ".", color=color, markersize=3)
            change = (
                "unchanged" if entry["change"] == 0 else f"moved by up to {entry['change']:.2g}"
            )
            axes.set_title(f"{name}, {path.partition('/')[0]}: {change}", fontsize=7)
            axes.set_xlabel("unit")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
            axes.grid(axis="y")
        for axes in row[len(entries) :]:
            axes.remove()
        row[0].set_ylabel("bias")
        _room(row[: len(entries)])
    yield Picture(
        "biases",
        "Biases before and after training",
        f"First seed of {_one_of(story, record)}. Grey line: before training; dots: after. "
        + (f"The first {across} of {deepest} hidden layers. " if deepest > across else "")
        + _rest(record, drawn)
        + _where(story, "Histograms"),
        figure,
    )


def _where(story: Story, tab: str) -> str:
    if aggregates(story.run, story.records):
        return "The records have every cell."
    return f"Every cell is in TensorBoard, under {tab}."


def _room(row: Any) -> None:
    """One scale for a row of panels, and never so fine that rounding looks like movement."""
    low = min(axes.get_ylim()[0] for axes in row)
    high = max(axes.get_ylim()[1] for axes in row)
    middle, half = (low + high) / 2, max((high - low) / 2, 0.05)
    for axes in row:
        axes.set_ylim(middle - half, middle + half)


def weight_pictures(story: Story) -> Iterator[Picture]:
    """The first layer's kernel as images, in one cell."""
    record = _shown(story)
    if record is None:
        return
    kernels = {
        name: unpack_picture(entry["picture"])
        for name, arm in record.arms.items()
        for entry in arm.get("weights", {}).values()
        if "picture" in entry
    }
    if not kernels:
        return
    figure = Figure((WIDTH, 0.3 + 1.08 * len(kernels)), layout="constrained")
    all_see_images = range(len(kernels))
    plot_weights(
        list(kernels.values()),
        labels=list(kernels),
        columns=8,
        images=all_see_images,
        figure=figure,
    )
    count = next(iter(kernels.values())).shape[1]
    yield Picture(
        "weights",
        "What the first layer looks at",
        f"Trained kernels of the first {count} units, as images; first seed of "
        f"{_one_of(story, record)}. All arms started from the same kernel, and share the scale. "
        + _where(story, "Images"),
        figure,
    )


def _shown(story: Story) -> Record | None:
    """The cell that stands for all: in the middle of those that have weights."""
    having = [r for r in story.records if any(arm.get("weights") for arm in r.arms.values())]
    return having[len(having) // 2] if having else None


def _one_of(story: Story, record: Record) -> str:
    cell = record.cell
    name = f"T={cell['layers']}, {cell['units']} units, {place(cell)}"
    return name if len(story.records) == 1 else f"one cell of {len(story.records)} ({name})"


def _rest(record: Record, drawn: dict[str, Any]) -> str:
    having = [name for name, arm in record.arms.items() if arm.get("weights")]
    left = [name for name in having if name not in drawn]
    return f"Without a bias: {', '.join(left)}. " if left else ""


def _hidden_biases(arm: dict[str, Any]) -> dict[str, Any]:
    entries = arm.get("weights", {}).items()
    return {path: entry for path, entry in entries if "biases" in entry and "hidden" in path}
