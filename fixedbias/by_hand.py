"""By hand: inference, loss and gradients of a T-layer network in NumPy, all in float64.

The oracle. It shares no code with Keras or TensorFlow and reads nothing of a network but its
weights, so what it agrees with is right, or wrong twice over in the same way.

Layer t computes `h[t+1] = f(h[t] @ kernel + bias)`. With layer normalisation (Ba, Kiros and
Hinton, Layer normalization, 2016) every hidden layer's output is then shifted and scaled to mean 0
and variance 1 over its units, times `gamma` plus `beta`. Gradients come by the chain rule from the
last layer to the first (Rumelhart, Hinton and Williams, Learning representations by
back-propagating errors, 1986).

Where it does not help: it is slow, and it knows dense layers alone.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

NORM_EPSILON = 1e-3
"""Added to the variance in a layer normalisation: the default of Keras's."""

Array = np.ndarray


class Layer(NamedTuple):
    """Weights of one layer: kernel (inputs, units), the others (units,) or absent."""

    kernel: Array
    bias: Array | None = None
    gamma: Array | None = None
    beta: Array | None = None


def split(weights: Sequence[Array]) -> list[Layer]:
    """A network's weights layer by layer, in float64.

    A matrix begins a layer. The vectors after it are its bias (one), the gamma and beta of its
    normalisation (two), or all of them in this order (three): as `get_weights()` gives them for
    `fixedbias.mlp`.

    Args:
        weights: Arrays of rank 2 and 1.

    Raises:
        ValueError: The arrays are no such sequence.

    Example:

    >>> [layer.bias for layer in split([np.ones((2, 3)), np.zeros(3), np.ones((3, 1))])]
    [array([0., 0., 0.]), None]
    """
    groups: list[list[Array]] = []
    for weight in weights:
        array = np.asarray(weight, "float64")
        if array.ndim == 2:
            groups.append([array])
        elif groups and array.shape == groups[-1][0].shape[1:]:
            groups[-1].append(array)
        else:
            groups = []
            break
    if not groups or max(map(len, groups)) > 4:
        raise ValueError(
            "`weights` must be kernels of rank 2, each with up to three vectors of its units after "
            f"it. Received: shapes {[np.shape(weight) for weight in weights]}"
        )
    return [
        Layer(group[0], None, group[1], group[2]) if len(group) == 3 else Layer(*group)
        for group in groups
    ]


def predict(
    weights: Sequence[Array], x: Array, *, activation: str = "relu", output: str = "softmax"
) -> Array:
    """The network's output.

    Args:
        weights: As `get_weights()` gives them; see `split`.
        x: Inputs of shape `(batch, ...)`; what is behind the first axis is flattened.
        activation: Activation of the hidden layers, a name in `ACTIVATIONS`.
        output: Activation of the output layer: `"softmax"` or a name in `ACTIVATIONS`.

    Returns:
        float64 array of shape `(batch, units of the last layer)`.

    Example:

    >>> predict([np.eye(2), np.array([0.0, -1.0])], np.array([[2.0, 0.5]]), output="relu")
    array([[2., 0.]])
    """
    return _forward(split(weights), x, activation, output)[-1].out


def loss(
    weights: Sequence[Array],
    x: Array,
    y: Array,
    *,
    activation: str = "relu",
    output: str = "softmax",
    loss: str = "cross-entropy",
) -> float:
    """The mean loss over the batch.

    Args:
        weights, x, activation, output: As for `predict`.
        y: Class indices, integers of shape `(batch,)`, or targets of the output's shape.
        loss: A name in `LOSSES`.
    """
    out = predict(weights, x, activation=activation, output=output)
    return float(LOSSES[loss](_targets(y, out), out)[0].mean())


def gradients(
    weights: Sequence[Array],
    x: Array,
    y: Array,
    *,
    activation: str = "relu",
    output: str = "softmax",
    loss: str = "cross-entropy",
) -> list[Array]:
    """The gradient of the mean loss with respect to every weight.

    A fixed bias is a weight here as any other: its gradient is what training would have used.

    Args:
        weights, x, y, activation, output, loss: As for `loss`.

    Returns:
        float64 arrays of the weights' shapes, in their order.

    Example:

    >>> kernel, bias = np.array([[1.0]]), np.array([0.0])
    >>> one = {"output": "linear", "loss": "sum-of-squares"}  # d/dw of (3w + b - 5)**2 / 2
    >>> gradients([kernel, bias], np.array([[3.0]]), np.array([[5.0]]), **one)
    [array([[-6.]]), array([-2.])]
    """
    layers = split(weights)
    steps = _forward(layers, x, activation, output)
    out = steps[-1].out
    upstream = LOSSES[loss](_targets(y, out), out)[1] / len(out)
    found: list[list[Array]] = []
    for layer, step in zip(reversed(layers), reversed(steps), strict=True):
        own: list[Array] = []
        if layer.gamma is not None:
            upstream, own = _norm_back(layer.gamma, step, upstream)
        if step.function == "softmax":
            p = step.active
            upstream = p * (upstream - (upstream * p).sum(-1, keepdims=True))
        else:
            upstream = upstream * ACTIVATIONS[step.function][1](step.sums)
        bias = [] if layer.bias is None else [upstream.sum(0)]
        found.append([step.inputs.T @ upstream, *bias, *own])
        upstream = upstream @ layer.kernel.T
    return [gradient for layer_found in reversed(found) for gradient in layer_found]


class _Step(NamedTuple):
    """What one layer saw and gave."""

    function: str
    inputs: Array
    sums: Array
    active: Array
    out: Array


def _forward(layers: list[Layer], x: Array, activation: str, output: str) -> list[_Step]:
    h = np.asarray(x, "float64")
    h = h.reshape(len(h), -1)
    steps: list[_Step] = []
    for t, layer in enumerate(layers):
        function = output if t == len(layers) - 1 else activation
        sums = h @ layer.kernel + (0.0 if layer.bias is None else layer.bias)
        active = _softmax(sums) if function == "softmax" else ACTIVATIONS[function][0](sums)
        out = active
        if layer.gamma is not None:
            out = layer.gamma * _normalised(active)[0] + layer.beta
        steps.append(_Step(function, h, sums, active, out))
        h = out
    return steps


def _normalised(active: Array) -> tuple[Array, Array]:
    spread = np.sqrt(active.var(-1, keepdims=True) + NORM_EPSILON)
    return (active - active.mean(-1, keepdims=True)) / spread, spread


def _norm_back(gamma: Array, step: _Step, upstream: Array) -> tuple[Array, list[Array]]:
    """Back through a layer normalisation: the gradient of its input, those of gamma and beta."""
    normalised, spread = _normalised(step.active)
    own = [(upstream * normalised).sum(0), upstream.sum(0)]
    inner = upstream * gamma
    inner = inner - inner.mean(-1, keepdims=True)
    return (inner - normalised * (upstream * gamma * normalised).mean(-1, keepdims=True)) / (
        spread
    ), own


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(-1, keepdims=True))
    out: Array = e / e.sum(-1, keepdims=True)
    return out


def _sigmoid(z: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * z))  # never overflows


def _sigmoid_slope(z: Array) -> Array:
    return _sigmoid(z) * (1 - _sigmoid(z))


def _swish_slope(z: Array) -> Array:
    return _sigmoid(z) + z * _sigmoid_slope(z)


def _mish_slope(z: Array) -> Array:
    t = np.tanh(np.logaddexp(0, z))
    return t + z * (1 - t**2) * _sigmoid(z)


def _elish(z: Array) -> Array:
    return np.where(z >= 0, z, np.expm1(np.minimum(z, 0))) * _sigmoid(z)


def _elish_slope(z: Array) -> Array:
    below = np.minimum(z, 0)
    left = np.exp(below) * _sigmoid(z) + np.expm1(below) * _sigmoid_slope(z)
    return np.where(z >= 0, _swish_slope(z), left)


_Rule = Callable[[Array], Array]

ACTIVATIONS: dict[str, tuple[_Rule, _Rule]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "linear": (lambda z: z, np.ones_like),
    "swish": (lambda z: z * _sigmoid(z), _swish_slope),
    "mish": (lambda z: z * np.tanh(np.logaddexp(0, z)), _mish_slope),
    "elish": (_elish, _elish_slope),
    "hard_sigmoid": (lambda z: np.clip(0.2 * z + 0.5, 0, 1), lambda z: 0.2 * (np.abs(z) < 2.5)),
    "step": (lambda z: (z > 0) * 1.0, np.zeros_like),
}
"""Activations and their derivatives; formulae and sources are in `fixedbias.activations`."""


def _targets(y: Array, out: Array) -> Array:
    y = np.asarray(y)
    if y.ndim == 1 and y.dtype.kind in "iu":
        return np.eye(out.shape[-1])[y]
    if y.shape != out.shape:
        raise ValueError(
            "`y` must be class indices, one integer per example, or targets of the output's shape "
            f"{out.shape}. Received: {y.dtype} of shape {y.shape}"
        )
    return y.astype("float64")


def _cross_entropy(y: Array, out: Array) -> tuple[Array, Array]:
    p = np.maximum(out, np.finfo("float64").tiny)
    return -(y * np.log(p)).sum(-1), -y / p


def _sum_of_squares(y: Array, out: Array) -> tuple[Array, Array]:
    return 0.5 * ((out - y) ** 2).sum(-1), out - y


def _hinge(y: Array, out: Array) -> tuple[Array, Array]:
    wrong = (1 - y) * out
    worst = np.eye(out.shape[-1])[wrong.argmax(-1)]
    short = 1 - (y * out).sum(-1) + wrong.max(-1)
    slope = (worst * (1 - y) - y) * (short > 0)[:, None]
    return np.maximum(short, 0), slope


def _binary_hinge(y: Array, out: Array) -> tuple[Array, Array]:
    short = 1 - y * out
    return np.maximum(short, 0).mean(-1), -y * (short > 0) / out.shape[-1]


def _huber(y: Array, out: Array) -> tuple[Array, Array]:
    error = out - y
    values = np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)
    return values.mean(-1), np.clip(error, -1, 1) / out.shape[-1]


LOSSES: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "cross-entropy": _cross_entropy,
    "sum-of-squares": _sum_of_squares,
    "hinge": _hinge,
    "binary-hinge": _binary_hinge,
    "huber": _huber,
}
"""Losses of every example, and their derivatives with respect to the output; formulae and sources
are in `fixedbias.losses`. `binary-hinge` takes targets of -1 and 1."""
