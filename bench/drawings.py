"""All figures of a report, in the order in which they answer its question.

A run may have tens of thousands of cells, and nobody turns hundreds of pages: a figure has a few at
most, of cells drawn at random, and says so. The numbers of all are in `numbers.csv`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bench import curves, figures
from bench.arms import AGAIN, REFERENCE
from bench.findings import PANELS
from bench.labels import place
from bench.panels import Picture, Story
from bench.records import Record


def draw(story: Story) -> Iterator[Picture]:
    """The figures of a run; what was not measured has none."""
    maps = max(1, len({row.arm for row in story.rows} - {REFERENCE, AGAIN}))  # one for every arm
    for kind, panel in _KINDS.items():
        most = PANELS // (maps if kind is figures.heat_maps else 1)
        own = story if panel is None else story.sample(max(1, most), panel)
        left = "" if own is story else _left(own, story)
        for picture in kind(own):
            yield replace(picture, words=picture.words + left)


def _left(own: Story, story: Story) -> str:
    return (
        f" Here are {len(own.records):,} of {len(story.records):,} cells, drawn at random; "
        "numbers.csv, beside this report, has the numbers of all."
    )


def _map(record: Record) -> Any:
    return place(record.cell)


def _line(record: Record) -> Any:
    return place(record.cell), record.cell["layers"]


def _cell(record: Record) -> Any:
    return record.key


# And what has a panel of its own there; None where one cell stands for all.
_KINDS: dict[Callable[[Story], Iterator[Picture]], Callable[[Record], Any] | None] = {
    figures.heat_maps: _map,
    figures.intervals: _cell,
    curves.accuracy_differences: _cell,
    curves.time_to_target: _cell,
    figures.throughput: _line,
    curves.learning_curves: _cell,
    curves.biases: None,
    curves.weight_pictures: None,
    figures.breakdown: _cell,
    figures.strips: _cell,
}
