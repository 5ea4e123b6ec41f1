"""Activations by name: those that Keras lacks, and Keras's own for the rest.

| name | formula | whose |
| --- | --- | --- |
| `relu`, `tanh`, `sigmoid`, `linear` | | Keras |
| `swish` | x * sigmoid(x) | Keras, where it is called `silu` as well |
| `mish` | x * tanh(softplus(x)) | Keras |
| `elish` | x * sigmoid(x) if x >= 0, else (exp(x) - 1) * sigmoid(x) | here |
| `hard_sigmoid` | max(0, min(1, 0.2 x + 0.5)) | here; Keras 3 has relu6(x + 3) / 6 by this name |
| `step` | 1 if x > 0, else 0 | here |

Sources: swish in Ramachandran, Zoph and Le, Searching for activation functions, 2017; mish in
Misra, Mish, BMVC 2020; elish in Basirat and Roth, The quest for the golden activation function,
2018; this hard sigmoid is that of Courbariaux et al., BinaryConnect, 2015, as Theano and Keras 1
and 2 had it.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable(package="fixedbias")


@_register
def elish(x: Any) -> Any:
    """The ELiSH activation: swish to the right of zero, sigmoid times ELU to its left.

    Where it does not help: two exponentials for every unit, several times the cost of `relu`.

    Args:
        x: Floating-point tensor of any shape.

    Returns:
        A tensor of the same shape and dtype.

    Example:

    >>> [round(float(v), 4) for v in elish(ops.array([-1.0, 0.0, 1.0]))]
    [-0.17, 0.0, 0.7311]
    """
    # The exponential of what is above zero is not used, and its overflow would spoil the gradient.
    left = ops.expm1(ops.minimum(x, 0))
    return ops.where(ops.greater_equal(x, 0), x, left) * ops.sigmoid(x)


@_register
def hard_sigmoid(x: Any) -> Any:
    """The piecewise linear sigmoid of slope 0.2: `max(0, min(1, 0.2 x + 0.5))`.

    Not `keras.activations.hard_sigmoid`, which since Keras 3 has a slope of 1/6.

    Where it does not help: the gradient is zero where |x| > 2.5.

    Args:
        x: Floating-point tensor of any shape.

    Returns:
        A tensor of the same shape and dtype, between 0 and 1.

    Example:

    >>> [round(float(v), 4) for v in hard_sigmoid(ops.array([-3.0, 0.0, 1.0, 3.0]))]
    [0.0, 0.5, 0.7, 1.0]
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@_register
def step(x: Any) -> Any:
    """The step function of the perceptron: 1 where x > 0, else 0.

    Where it does not help: its gradient is zero everywhere, so no kernel before it learns.

    Args:
        x: Floating-point tensor of any shape.

    Returns:
        A tensor of the same shape and dtype.

    Example:

    >>> [float(v) for v in step(ops.array([-2.0, 0.0, 0.1]))]
    [0.0, 0.0, 1.0]
    """
    return ops.cast(ops.greater(x, 0), x.dtype)


_OWN: dict[str, Callable] = {"elish": elish, "hard_sigmoid": hard_sigmoid, "step": step}


def get(name: str) -> Callable:
    """The activation of this name in this module's table.

    Args:
        name: A name in the table, or any other that Keras knows.

    Raises:
        ValueError: Neither knows the name.

    Example:

    >>> get("relu") is keras.activations.relu, get("hard_sigmoid") is hard_sigmoid
    (True, True)
    """
    return _OWN.get(name) or keras.activations.get(name)
