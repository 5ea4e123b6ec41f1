"""All figures of a report, in the order in which they answer its question."""

from collections.abc import Iterator

from bench import curves, figures
from bench.panels import Picture, Story


def draw(story: Story) -> Iterator[Picture]:
    """The figures of a run; what was not measured has none."""
    for kind in (
        figures.heat_maps,
        figures.intervals,
        curves.accuracy_differences,
        curves.time_to_target,
        figures.throughput,
        curves.learning_curves,
        curves.biases,
        curves.weight_pictures,
        figures.breakdown,
        figures.strips,
    ):
        yield from kind(story)
