"""`python -m bench.growth RUN ...`: how the time of an example grows with each axis of a grid.

It measures nothing: it reads what `python -m bench.grid` has recorded. For the number of examples
give it several runs, made with `--data synthetic:6000`, `--data synthetic:60000`, ...
"""

import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any

import tyro

from bench.arms import REFERENCE
from bench.places import kind_of
from bench.records import BadRecord, Record, read_run
from bench.rules import UsageError, usage_error

AXES = ("units", "layers", "batch_size", "examples")


@dataclass(frozen=True)
class Options:
    """Draws how time per example grows with units, layers, batch size, examples and cells."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs."""
    arm: str = REFERENCE
    """The arm whose times are drawn."""
    output: Path = Path("growth")
    """Files to write: OUTPUT.json and OUTPUT.png."""


@dataclass(frozen=True)
class Curve:
    """Time per example along one axis, all else equal.

    Args:
        axis: One of `AXES`, or `cells`.
        fixed: The other axes.
        points: Value on the axis and microseconds per example (for `cells`: how many are done, and
            seconds per cell until then beside those that measuring them took), in order of the
            value.
    """

    axis: str
    fixed: dict[str, Any]
    points: list[tuple[float, float]]

    @property
    def exponent(self) -> float:
        """The k for which time grows as value^k between the two ends."""
        (x0, y0), (x1, y1) = self.points[0], self.points[-1]
        return math.log(y1 / y0) / math.log(x1 / x0)


def curves(runs: Sequence[Sequence[Record]], arm: str = REFERENCE) -> list[Curve]:
    """Every curve with two points or more that these runs have.

    Args:
        runs: Records of each run.
        arm: Whose samples.
    """
    found: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(dict)
    for record in (record for run in runs for record in run):
        samples = record.arms.get(arm, {}).get("samples")
        if record.status != "ok" or not samples:
            continue
        where = record.cell | {"examples": record.extra.get("examples")}
        # The data's name says how many examples there are, and the axis says it already.
        where["data"] = str(where["data"]).partition(":")[0]
        for axis in AXES:
            value = where[axis]
            if value is not None:
                fixed = json.dumps({k: v for k, v in where.items() if k != axis})
                times = found[axis, fixed].setdefault(float(value), [])
                times.append(1e6 * statistics.median(samples))
    lines = [
        Curve(
            axis,
            json.loads(fixed),
            [(x, statistics.median(y)) for x, y in sorted(at.items())],
        )
        for (axis, fixed), at in found.items()
        if len(at) > 1
    ]
    return sorted(lines, key=lambda c: AXES.index(c.axis)) + [
        Curve("cells", {"run": n}, points)
        for n, run in enumerate(runs)
        if len(points := _cells(run)) > 1
    ]


def _cells(run: Sequence[Record]) -> list[tuple[float, float]]:
    def moment(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    done = sorted((r for r in run if r.started and r.ended), key=lambda record: record.ended)
    begin = min((moment(record.started) for record in done), default=0.0)
    # Cells differ in size: what each took by itself is no matter of how many there are.
    measuring = accumulate(r.extra.get("seconds", 0.0) for r in done)
    return [
        (float(n), (moment(r.ended) - begin - own) / n)
        for n, (r, own) in enumerate(zip(done, measuring, strict=True), 1)
    ]


def draw(lines: Sequence[Curve], path: Path) -> None:
    """Draws a panel per axis, both scales logarithmic; one line per curve."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes = [axis for axis in (*AXES, "cells") if any(line.axis == axis for line in lines)]
    figure = Figure(figsize=(3.4 * len(axes), 3.4), layout="constrained")
    panels = figure.subplots(1, len(axes), squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        own = [line for line in lines if line.axis == axis]
        for line in own:
            panel.plot(*zip(*line.points, strict=True), marker="o", markersize=3, linewidth=1)
        panel.set_xscale("log")
        panel.set_yscale("log")
        xs, ys = ([point[k] for line in own for point in line.points] for k in (0, 1))
        shown = sorted(set(xs))
        panel.set_xticks(shown[:: -(-len(shown) // 6)], minor=False)
        panel.set_xticks([], minor=True)
        # A decade at least, so that what is flat looks flat.
        middle, room = (
            math.sqrt(min(ys) * max(ys)),
            max(math.sqrt(10), math.sqrt(max(ys) / min(ys))),
        )
        panel.set_ylim(middle / room / 1.2, middle * room * 1.2)
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_minor_formatter(NullFormatter())
        for scale in (panel.xaxis, panel.yaxis):
            scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        panel.set_xlabel(axis.replace("_", " "))
        panel.set_ylabel("s per cell beside measuring" if axis == "cells" else "µs per example")
        panel.grid(True, which="major", linewidth=0.4)
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> int:
    """Reads the runs, prints the exponents, writes the JSON and the figure.

    Returns:
        The exit status: 0, or 2 for bad input.
    """
    options: Options = tyro.cli(
        Annotated[Options, tyro.conf.FlagCreatePairsOff],
        args=list(sys.argv[1:] if argv is None else argv),
        prog="python -m bench.growth",
    )
    try:
        runs = [_read(folder) for folder in options.runs]
        lines = curves(runs, options.arm)
        if not lines:
            raise UsageError(
                "growth needs two cells that differ in one axis alone. Received: "
                f"{sum(map(len, runs))} cells with times of {options.arm}; add --units or --layers."
            )
    except UsageError as error:
        return usage_error(error)
    for line in lines:
        print(_text(line))
    data = [vars(line) | {"exponent": line.exponent} for line in lines]
    options.output.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    draw(lines, options.output.with_suffix(".png"))
    return 0


def _read(folder: Path) -> list[Record]:
    """A run's records; of whatever kind the machine was, which is an axis like the others."""
    try:
        run, records, _ = read_run(folder)
    except (BadRecord, OSError) as error:
        raise UsageError(f"growth reads the folders of runs: {error}.") from None
    return [replace(r, cell=r.cell | {"machine": kind_of(run, r)[0]}) for r in records]


def _text(line: Curve) -> str:
    (x0, y0), (x1, y1) = line.points[0], line.points[-1]
    if line.axis == "cells":
        return f"cells {x0:g} to {x1:g}: {y0:.1f} to {y1:.1f} s per cell beside measuring"
    shown = [f"{k}={v}" for k, v in line.fixed.items() if k in AXES]
    return (
        f"{line.axis.replace('_', ' ')} {x0:g} to {x1:g}: {y0:.2f} to {y1:.2f} us per example, "
        f"exponent {line.exponent:.2f} ({', '.join(shown)})"
    )


if __name__ == "__main__":
    sys.exit(main())
