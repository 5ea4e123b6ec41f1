"""What arguments must be."""

from typing import Any

import numpy as np


def positive(name: str, value: Any) -> int:
    """The value as an int.

    Raises:
        ValueError: It is no positive whole number.

    >>> positive("units", np.int32(3))
    3
    """
    # A bool is an int to Python, and no number of anything.
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)
