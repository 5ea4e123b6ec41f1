"""Bias presets: named rules that give every hidden layer its fixed bias.

A preset is written as its name, or as `name:key=value,key=value`:

| preset | bias of unit n (n = 0, 1, ...) of hidden layer t (t = 0, 1, ...) | settings |
| --- | --- | --- |
| `zeros` | 0 | |
| `constant` | value | `value` (0.1) |
| `ramp` | t * n | `step` (1): t * n * step |
| `linspace` | evenly spaced from low to high over the units | `low` (-1), `high` (1) |
| `uniform` | drawn evenly from [low, high) | `low` (-1), `high` (1), `seed` (0) |
| `normal` | drawn from a normal distribution | `mean` (0), `stddev` (1), `seed` (0) |
| `decreasing` | value / (t + 1) | `value` (1) |
| `file:PATH` | row t of the arrays in a `.npz` file, keys `0`, `1`, ... | |

`decreasing` follows the thresholds of unfolded iterations (Gregor and LeCun, Learning fast
approximations of sparse coding, ICML 2010), which shrink from layer to layer.
"""

import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fixedbias.npz import read_entry
from fixedbias.text import one_line

# The most that NumPy's own reader allows a header.
_HEADER_BYTES = 2**16
_MOST_BYTES = 2**26


def _rng(t: int, seed: float) -> np.random.Generator:
    if not float(seed).is_integer():
        raise ValueError("seed must be a whole number")
    return np.random.default_rng([int(seed), t])


def _zeros(t: int, units: int) -> np.ndarray:
    return np.zeros(units)


def _constant(t: int, units: int, value: float = 0.1) -> np.ndarray:
    return np.full(units, value)


def _ramp(t: int, units: int, step: float = 1.0) -> np.ndarray:
    return t * step * np.arange(units)


def _linspace(t: int, units: int, low: float = -1.0, high: float = 1.0) -> np.ndarray:
    return np.linspace(low, high, units)


def _uniform(
    t: int, units: int, low: float = -1.0, high: float = 1.0, seed: float = 0
) -> np.ndarray:
    return _rng(t, seed).uniform(low, high, units)


def _normal(
    t: int, units: int, mean: float = 0.0, stddev: float = 1.0, seed: float = 0
) -> np.ndarray:
    return _rng(t, seed).normal(mean, stddev, units)


def _decreasing(t: int, units: int, value: float = 1.0) -> np.ndarray:
    return np.full(units, value / (t + 1))


PRESETS: dict[str, Callable[..., np.ndarray]] = {
    "zeros": _zeros,
    "constant": _constant,
    "ramp": _ramp,
    "linspace": _linspace,
    "uniform": _uniform,
    "normal": _normal,
    "decreasing": _decreasing,
}


def bias_values(preset: str, t: int, units: int) -> np.ndarray:
    """The fixed bias of hidden layer `t` under a preset.

    Args:
        preset: A preset as this module's table writes it, such as `"ramp"`,
            `"constant:value=0.5"` or `"file:biases.npz"`.
        t: Index of the hidden layer, from 0.
        units: Its number of units.

    Returns:
        float32 array of shape `(units,)`.

    Raises:
        ValueError: `t` or `units` is out of range, the preset or a setting is unknown, not a
            finite number or out of range, or the file does not hold this layer's bias.

    Example:

    >>> bias_values("ramp", 2, 4)
    array([0., 2., 4., 6.], dtype=float32)
    >>> bias_values("constant:value=0.5", 0, 2)
    array([0.5, 0.5], dtype=float32)
    """
    if t < 0 or units < 1:
        raise ValueError(
            "`t` must be 0 or more and `units` a positive integer. "
            f"Received: t={t!r}, units={units!r}"
        )
    name, _, settings = preset.partition(":")
    if name == "file":
        values = _from_file(Path(settings), t, units)
    elif name in PRESETS:
        values = _from_rule(preset, name, settings, t, units)
    else:
        raise ValueError(
            f"A bias preset must be one of {', '.join(PRESETS)} or file:PATH. "
            f"Received: preset={preset!r}"
        )
    with np.errstate(over="ignore"):
        narrow = values.astype("float32")
    if not np.isfinite(narrow).all():
        raise ValueError(
            "A fixed bias must be finite in float32. "
            f"Received: preset={preset!r}, which is not in layer t={t} of {units} units"
        )
    return narrow


def _from_rule(preset: str, name: str, settings: str, t: int, units: int) -> np.ndarray:
    rule = PRESETS[name]
    allowed = rule.__code__.co_varnames[2 : rule.__code__.co_argcount]
    given: dict[str, float] = {}
    for setting in filter(None, settings.split(",")):
        key, _, text = setting.partition("=")
        try:
            given[key] = float(text)
        except ValueError:
            given[key] = math.nan
        if key not in allowed or not math.isfinite(given[key]):
            raise ValueError(
                f"The settings of bias preset `{name}` must be finite numbers named "
                f"{' or '.join(allowed) or '(it has none)'}. Received: preset={preset!r}"
            )
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # `bias_values` looks for the result
            return rule(t, units, **given)
    except (ValueError, OverflowError) as error:  # low above high, negative seed or stddev
        raise ValueError(
            f"The settings of a bias preset must be in range. Received: preset={preset!r} ({error})"
        ) from None


def _from_file(path: Path, t: int, units: int) -> np.ndarray:
    rule = (
        "A bias file must be a readable .npz file with one array per hidden layer, keys 0, 1, ... "
        f"Received: {path}"
    )
    try:
        # Looked at before it is opened: a pipe would block for ever.
        if not path.is_file():
            raise OSError("which is no file")
        # The list of what is in it is read as a whole.
        if path.stat().st_size > _MOST_BYTES:
            raise OSError(f"of more than {_MOST_BYTES:,} bytes")
        with zipfile.ZipFile(path) as archive:
            shape, _, dtype, data = read_entry(archive, str(t), 16 * units + _HEADER_BYTES)
    except Exception as error:  # a damaged file raises a dozen types
        raise ValueError(one_line(f"{rule}, without an array {t} ({error})")) from None
    if shape != (units,) or dtype.kind not in "iuf":
        raise ValueError(
            one_line(
                f"The bias of layer t={t} must be {units} numbers. "
                f"Received: {path} with {dtype} of shape {shape}"
            )
        )
    if len(buffer := data.read()) != units * dtype.itemsize:
        raise ValueError(one_line(f"{rule}, whose array {t} is cut short or goes on"))
    return np.frombuffer(buffer, dtype)
