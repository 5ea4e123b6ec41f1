"""Curves of a report: what was measured lies inside the axes."""

import pytest

from bench.curves import accuracy_differences
from bench.panels import Story
from bench.style import looks
from bench.summary import summarise
from tests.bench.conftest import make_record


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("gain", [0.0, 0.03, -0.3])
def test_every_difference_of_accuracy_is_in_sight(seeds, gain):
    """Also that of a single seed, which has no interval."""
    record = make_record(fixed=1.0)
    for name, arm in record.arms.items():
        worse = 0.0001 if name == "dense" else 0.0
        arm["accuracies"] = [0.6 + (gain if name == "fixed" else 0.0), 0.61 - worse][:seeds]
    rows = summarise([record], margin=0.02)
    story = Story(None, [record], rows, looks({row.arm for row in rows}), 0.02, None)
    (picture,) = accuracy_differences(story)
    (axes,) = picture.figure.axes
    low, high = axes.get_xlim()
    expected = 100 * sum([gain, 0.0001][:seeds]) / seeds
    assert low < expected < high
    drawn = [x for line in axes.lines if line.get_marker() != "None" for x in line.get_xdata()]
    assert min(abs(x - expected) for x in drawn) < 1e-9
