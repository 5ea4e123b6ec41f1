"""Curves of a report: what was measured lies inside the axes."""

from types import SimpleNamespace

import pytest

from bench.board import LEAVES
from bench.curves import accuracy_differences, biases, weight_pictures
from bench.panels import Story
from bench.style import looks
from bench.summary import summarise
from tests.bench.conftest import make_record
from tests.bench.test_board import trained


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


@pytest.mark.parametrize(("cells", "where"), [(2, "in TensorBoard, under Images"), (20, "records")])
def test_a_picture_of_one_cell_says_where_the_others_are(cells, where):
    """A large run has none of them in TensorBoard."""
    records = [trained(units) for units in range(1, 3)]
    run = SimpleNamespace(plan=[f"cell {n}" for n in range(cells)])
    assert (cells * 2 > LEAVES) == (where == "records")
    story = Story(run, records, [], looks(set(records[0].arms)), 0.02, None)
    for pictures, tab in ((weight_pictures, "Images"), (biases, "Histograms")):
        (picture,) = pictures(story)
        assert where.replace("Images", tab) in picture.words
