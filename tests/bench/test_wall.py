"""How a driver's time went, as it is kept for the plans to come."""

import json

import pytest

from bench.wall import WALL, Pace, read_wall, write_wall


def test_what_is_written_is_read(tmp_path):
    write_wall(tmp_path, 10.0, Pace(first=12.0, last=40.0, handling=0.25))
    wall = read_wall(tmp_path)
    assert (wall.began, wall.first, wall.last, wall.handling) == (10.0, 12.0, 40.0, 0.25)
    assert wall.ended > wall.last


def test_handling_is_the_median_and_the_last_is_now():
    pace = Pace.of(3.0, [0.1, 9.0, 0.2])
    assert (pace.first, pace.handling) == (3.0, 0.2)
    assert pace.last > pace.first


@pytest.mark.parametrize(
    ("change", "why"),
    [({"last": float("inf")}, "finite"), ({"began": "x"}, "could not"), ({"more": 1}, "more")],
)
def test_what_is_no_wall_is_refused(change, why, tmp_path):
    write_wall(tmp_path, 10.0, Pace(12.0, 40.0, 0.25))
    found = json.loads((tmp_path / WALL).read_text())
    (tmp_path / WALL).write_text(json.dumps(found | change))
    with pytest.raises(ValueError, match=why):
        read_wall(tmp_path)
