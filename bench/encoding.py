"""Values as JSON can hold them, without loss: NaN and the infinities included.

Numbers that JSON lacks are the strings "NaN", "Infinity" and "-Infinity", which most languages
read as numbers when asked for one; a text that is spelled so has a backslash before it.
"""

import math
from typing import Any

_PLAIN = {str, int, float, bool, type(None)}
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(value: Any) -> Any:
    """Tuples and arrays as lists, NumPy's numbers as Python's, keys as text."""
    if type(value) in _PLAIN:  # as nearly all of a record are: a class and no union for each
        return value
    if isinstance(value, str | int | float) and not hasattr(value, "tolist"):
        return value
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return plain(value.tolist()) if hasattr(value, "tolist") else float(value)


def encode(value: Any) -> Any:
    """What ``json`` may write, from plain values."""
    if isinstance(value, dict):
        return {name: encode(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [encode(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value).replace("nan", "NaN").replace("inf", "Infinity")
    return f"\\{value}" if isinstance(value, str) and value.lstrip("\\") in _NUMBERS else value


def decode(value: Any) -> Any:
    """What ``encode`` was given."""
    if isinstance(value, dict):
        return {name: decode(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [decode(inner) for inner in value]
    if isinstance(value, str) and value.lstrip("\\") in _NUMBERS:
        return _NUMBERS.get(value, value[1:])
    return value


def not_json(name: str) -> None:
    """For ``json``'s ``parse_constant``: refuses the bare words."""
    raise ValueError(f"is not JSON: {name}")
