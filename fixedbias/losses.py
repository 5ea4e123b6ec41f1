"""Losses by name: the one that Keras lacks, and Keras's own for the rest.

| name | loss of one example with target y and output p | whose |
| --- | --- | --- |
| `cross-entropy` | -log p[y], y a class index | Keras, `SparseCategoricalCrossentropy` |
| `sum-of-squares` | sum of (p - y)^2 / 2 over the outputs | here; Keras takes the mean |
| `hinge` | max(0, 1 + largest wrong score - right score) | Keras, `CategoricalHinge` |
| `binary-hinge` | mean of max(0, 1 - y p), y being -1 or 1 | Keras, `Hinge` |
| `huber` | mean of e^2 / 2 where abs(e) <= 1, abs(e) - 1/2 elsewhere; e = p - y | Keras, `Huber` |

The loss of a batch is the mean over its examples. The largest wrong score of `CategoricalHinge` is
at least 0.

Sources: hinge for several classes in Crammer and Singer, On the algorithmic implementation of
multiclass kernel-based vector machines, JMLR 2001; Huber, Robust estimation of a location
parameter, 1964.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable(package="fixedbias")


@_register
class SumOfSquares(keras.losses.Loss):
    """Half the sum of the squared errors over the outputs, averaged over the batch.

    With one output its gradient with respect to the output is the error itself.
    `keras.losses.MeanSquaredError` is this times two over the number of outputs.

    Args:
        name, reduction, dtype: As for every Keras loss.

    Example:

    >>> float(SumOfSquares()(ops.array([[0.0, 1.0]]), ops.array([[0.5, 0.5]])))
    0.25
    """

    def __init__(self, name: str = "sum_of_squares", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_pred = ops.convert_to_tensor(y_pred)
        error = y_pred - ops.cast(y_true, y_pred.dtype)
        return 0.5 * ops.sum(ops.square(error), axis=-1)


@_register
class OfClasses(keras.losses.Loss):
    """A loss over one-hot targets, made to take class indices.

    Keras has such a pair for cross-entropy alone. Where the targets are one-hot already it does
    not help.

    Args:
        loss: A `keras.losses.Loss` over targets of the output's shape.
        name, reduction, dtype: As for every Keras loss.

    Example:

    >>> loss = OfClasses(keras.losses.CategoricalHinge())
    >>> float(loss(ops.array([1]), ops.array([[0.5, 0.0, 0.25]])))  # 1 + 0.5 - 0
    1.5
    """

    def __init__(self, loss: Any, name: str = "of_classes", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.loss: keras.losses.Loss = keras.losses.get(loss)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        classes = y_pred.shape[-1]
        y_true = ops.convert_to_tensor(y_true)
        # `compile` makes a column of the indices, as of any target of rank 1.
        if len(y_true.shape) == len(y_pred.shape):
            y_true = ops.squeeze(y_true, axis=-1)
        return self.loss.call(ops.one_hot(ops.cast(y_true, "int32"), classes), y_pred)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss)}


_TARGETS: dict[str, Callable[[], keras.losses.Loss]] = {
    "sum-of-squares": SumOfSquares,
    "hinge": keras.losses.CategoricalHinge,
    "binary-hinge": keras.losses.Hinge,
    "huber": keras.losses.Huber,
}


def get(name: str, *, of_classes: bool = True) -> keras.losses.Loss:
    """The loss of this name in this module's table.

    Args:
        name: A name in the table.
        of_classes: Whether the targets are class indices; else they have the output's shape.

    Raises:
        ValueError: There is no loss of this name, or none for such targets.

    Example:

    >>> type(get("huber", of_classes=False)) is keras.losses.Huber
    True
    """
    if name == "cross-entropy" and of_classes:
        return keras.losses.SparseCategoricalCrossentropy()
    known = {"cross-entropy", *_TARGETS} - ({"binary-hinge"} if of_classes else {"cross-entropy"})
    if name not in known:
        kind = "class indices" if of_classes else "targets of the output's shape"
        raise ValueError(
            f"A loss over {kind} must be one of {', '.join(sorted(known))}. Received: name={name!r}"
        )
    loss = _TARGETS[name]()
    return OfClasses(loss, name=loss.name) if of_classes else loss
