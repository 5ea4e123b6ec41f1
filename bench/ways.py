"""Other ways to write a dense layer with a fixed bias, for the arms of these names."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from fixedbias import plain


def lambda_dense(
    units: int, *, bias: Any, activation: Any, kernel_initializer: Any, name: str
) -> keras.Layer:
    """A `Lambda` layer of `keras.ops`, behind the layer that owns the kernel.

    A `Lambda` layer has no weights. The kernel is that of a `Dense` without bias and activation,
    and both are one `Sequential`. The bias is a constant of the program.
    """
    values, function = np.float32(bias), keras.activations.get(activation)

    def add_bias(x: Any) -> Any:
        return function(ops.add(x, ops.cast(values, x.dtype)))

    kernel = keras.layers.Dense(units, use_bias=False, kernel_initializer=kernel_initializer)
    return keras.Sequential([kernel, keras.layers.Lambda(add_bias, (units,))], name=name)


class PlainDense(keras.layers.Layer):
    """`fixedbias.plain.dense`, TensorFlow's operations alone, on a kernel that Keras can train."""

    def __init__(
        self, units: int, *, bias: Any, activation: Any, kernel_initializer: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.fixed = units, np.broadcast_to(np.float32(bias), (units,))
        function = keras.activations.get(activation)
        # By its name: what `plain` has is TensorFlow's own function.
        self.function: Callable = plain.ACTIVATIONS.get(function.__name__, function)
        self.kernel_initializer = kernel_initializer

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
        )

    def call(self, inputs: Any) -> Any:
        kernel = tf.convert_to_tensor(self.kernel)  # in the dtype computed in
        return plain.dense(inputs, kernel, tf.cast(self.fixed, kernel.dtype), self.function)
