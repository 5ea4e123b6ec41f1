"""What a training did to the weights, small enough for a record: spreads, biases, one picture.

An entry of `Weights`, by the path of the variable (`hidden_0/kernel`):

    shape       as Keras has it
    change      largest change of any element; 0 says that training left it alone
    histograms  before and after: low, high, and counts of 30 bins of equal width between them
    biases      of rank 1 only: the units (128 at most, evenly spread), and their values before
                and after, to 4 digits
    picture     of the first kernel of images only: 8 bits per weight of its first units after
                training, see `unpack_picture`
"""

import base64
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import keras

Weights: TypeAlias = dict[str, dict[str, Any]]

_BINS = 30
_BIAS_UNITS = 128
_PICTURE_UNITS = 8


def read_weights(model: "keras.Model") -> dict[str, np.ndarray]:
    """The weights of a model, by path, as they are now."""
    return {v.path: v.numpy().astype("float32") for v in model.weights}


def describe_weights(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> Weights:
    """What is kept of two readings of the same model's weights.

    >>> bias = np.linspace(-1, 1, 5, dtype="float32")
    >>> found = describe_weights({"hidden_0/bias": bias}, {"hidden_0/bias": bias})["hidden_0/bias"]
    >>> found["change"], found["biases"]["after"]
    (0.0, [-1.0, -0.5, 0.0, 0.5, 1.0])
    """
    described: Weights = {}
    pictured = False
    for path, old in before.items():
        new = after[path]
        entry: dict[str, Any] = {
            "shape": list(new.shape),
            "change": float(np.abs(new - old).max(initial=0.0)),
            "histograms": {"before": _histogram(old), "after": _histogram(new)},
        }
        if new.ndim == 1:
            units = np.linspace(0, new.size - 1, min(new.size, _BIAS_UNITS)).round().astype(int)
            entry["biases"] = {
                "units": units.tolist(),
                "before": [_short(x) for x in old[units]],
                "after": [_short(x) for x in new[units]],
            }
        if not pictured and new.ndim == 2 and len(new) == 784 and np.isfinite(new).all():
            entry["picture"] = _pack_picture(new[:, :_PICTURE_UNITS])
            pictured = True
        described[path] = entry
    return described


def unpack_picture(picture: dict[str, Any]) -> np.ndarray:
    """The kernel of a `picture`, float64 of shape (inputs, units), to 1/254 of its range.

    >>> kernel = np.linspace(-0.5, 0.5, 1568, dtype="float32").reshape(784, 2)
    >>> entry = describe_weights({"k": kernel}, {"k": kernel})["k"]
    >>> bool(np.abs(unpack_picture(entry["picture"]) - kernel).max() < 0.5 / 254 + 1e-6)
    True
    """
    levels = np.frombuffer(base64.b64decode(picture["int8"]), "int8")
    return levels.reshape(picture["shape"]) * (picture["limit"] / 127)


def _pack_picture(kernel: np.ndarray) -> dict[str, Any]:
    limit = float(np.abs(kernel).max()) or 1.0
    levels = np.rint(kernel * (127 / limit)).astype("int8")
    packed = base64.b64encode(levels.tobytes()).decode("ascii")
    return {"shape": list(kernel.shape), "limit": limit, "int8": packed}


def _histogram(values: np.ndarray) -> dict[str, Any]:
    finite = values[np.isfinite(values)].astype("float64")
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    # All values alike, as in a constant bias, have no width to divide.
    bins = _BINS if low < high else 1
    counts, _ = np.histogram(finite, bins, (low, high) if low < high else (low - 0.5, low + 0.5))
    return {"low": low, "high": high, "counts": counts.tolist()}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
