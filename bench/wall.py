"""How the driver of a run spent its time: wall.json, there once a run is finished."""

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

WALL = "wall.json"


@dataclass(frozen=True)
class Pace:
    """A driver's time with its comparisons.

    Args:
        first: When the first was handed out, in seconds of Unix time.
        last: When the last record was written and shown, likewise.
        handling: Seconds that a record took to be written and shown: the median.
    """

    first: float
    last: float
    handling: float

    @staticmethod
    def of(first: float, handlings: Sequence[float]) -> "Pace":
        """That of a driver whose last record has just been handled."""
        return Pace(first, time.time(), statistics.median(handlings))


@dataclass(frozen=True)
class Wall(Pace):
    """A finished run's time, from when its driver `began` until it `ended`, in Unix time."""

    began: float
    ended: float


def write_wall(folder: Path, began: float, pace: Pace) -> None:
    """Notes when the driver of a finished run began, and that it ends now."""
    wall = Wall(**asdict(pace), began=began, ended=time.time())
    (folder / WALL).write_text(json.dumps(asdict(wall)) + "\n")


def read_wall(folder: Path) -> Wall:
    """What `write_wall` wrote.

    Raises:
        OSError: There is none, or it cannot be read.
        ValueError: It holds something else.
    """
    try:
        found = {
            name: float(value) for name, value in json.loads((folder / WALL).read_text()).items()
        }
        if not all(map(math.isfinite, found.values())):
            raise ValueError("not finite")
        return Wall(**found)
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None
