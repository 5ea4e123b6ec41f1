"""Figures of large runs: some pages of each, of cells drawn at random, and said to be."""

import pytest

from bench import drawings
from bench.facts import gather
from bench.findings import read_findings
from bench.panels import Story
from tests.bench.conftest import make_record


@pytest.fixture
def story(make_run):
    return gather(
        read_findings(make_run("run", [make_record(u, fixed=1.0) for u in range(8, 13)]))
    ).story


def titles(pictures, name):
    return [axes.get_title() for axes in pictures[name].figure.axes]


def test_a_large_run_has_some_pages_of_each_figure(story, monkeypatch):
    whole = {picture.name: picture for picture in drawings.draw(story)}
    assert len(titles(whole, "samples")) == 5
    assert not any("at random" in picture.words for picture in whole.values())

    monkeypatch.setattr(drawings, "PANELS", 3)
    few = {picture.name: picture for picture in drawings.draw(story)}
    assert few.keys() == whole.keys()
    assert len(titles(few, "samples")) == 3
    assert set(titles(few, "samples")) < set(titles(whole, "samples"))
    for name in ("samples", "intervals", "accuracy", "breakdown", "loss-curves"):
        assert "3 of 5 cells, drawn at random" in few[name].words
    # One map and one line have all cells in them.
    for name in ("heatmap", "throughput"):
        assert few[name].words == whole[name].words
    again = {picture.name: picture for picture in drawings.draw(story)}
    assert titles(again, "samples") == titles(few, "samples")


def test_what_is_drawn_does_not_follow_an_axis(story):
    """Every other cell of a plan has the same width where there are two."""
    records = [make_record(units) for _ in range(48) for units in (64, 128)]
    large = Story(None, records, [], {}, 0.02, None)
    number = {id(record): n for n, record in enumerate(records)}
    some = large.sample(48, lambda record: number[id(record)])
    assert {record.cell["units"] for record in some.records} == {64, 128}
