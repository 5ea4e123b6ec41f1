"""The layer this project is about."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from fixedbias.arguments import positive
from fixedbias.biases import PRESETS

BiasLike: TypeAlias = (
    float | Sequence[float] | np.ndarray | keras.initializers.Initializer | str | dict
)


@keras.saving.register_keras_serializable(package="fixedbias")
class FixedBiasDense(keras.layers.Layer):
    """A dense layer whose bias is set by hand and never trained.

    Computes `activation(inputs @ kernel + bias)`, as `keras.layers.Dense` does, but only the
    kernel is learnt: the bias is given when the layer is made and no training, `trainable`
    toggle, weight decay, cloning, saving or loading changes it.

    The kernel comes before the bias in `weights`, as in `Dense`, so `get_weights()` and
    `set_weights()` move weights between the two layers. Only by hand can the bias be changed
    later: with `set_weights()`, or `load_weights()` from another model's file.

    Left out of what `Dense` has: `quantize` and LoRA.

    Where it does not help: a frozen bias saves the bias gradient (one reduction over the
    batch) and one small optimizer update, under 0.1 % of a layer's arithmetic for 784 inputs.
    Expect the speed of `Dense`.

    Args:
        units: Positive integer, the size of the output.
        bias: The fixed bias: a finite number (every unit gets it), a sequence or array of
            `units` numbers, or a Keras initializer (an instance, its config, or its name, but for
            names that bias presets have too).
            An initializer is drawn from once, here, so that clones and copies keep the
            very same bias.
        activation: Activation function, or its name; `None` is the identity. Not that of
            `Dense` by default, but ReLU: hidden layers are what a fixed bias is for.
        kernel_initializer: Initializer of the kernel.
        kernel_regularizer: Regularizer of the kernel.
        kernel_constraint: Constraint on the kernel.
        activity_regularizer: Regularizer of the output.
        jit_compile: Whether a call of the layer on its own (eagerly) runs as one function
            compiled by XLA, anew for every shape of the input. Inside an outer `tf.function`,
            and so inside `fit`, the layer becomes part of that function, which decides for the
            whole.
        **kwargs: `name`, `dtype` and `trainable`, as for every Keras layer. Under a mixed
            precision policy kernel and bias are stored as float32 and cast for the
            computation.

    Input shape:
        Rank 2 or more: `(batch, ..., inputs)`.

    Output shape:
        `(batch, ..., units)`, in the policy's compute dtype.

    Raises:
        ValueError: `units` is not a positive integer, the bias has another length than
            `units`, or is not finite in the dtype the layer computes in, or is a string that
            names no initializer or a bias preset.

    Example:

    >>> layer = FixedBiasDense(2, bias=[-1.0, 0.5], kernel_initializer="ones")
    >>> layer(np.array([[0.25, 0.25]], "float32")).numpy()
    array([[0., 1.]], dtype=float32)
    >>> [w.path.split("/")[-1] for w in layer.trainable_weights]
    ['kernel']
    """

    def __init__(
        self,
        units: int,
        bias: BiasLike = 0.0,
        activation: str | Callable | None = "relu",
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        activity_regularizer: Any = None,
        jit_compile: bool = True,
        **kwargs: Any,
    ) -> None:
        units = positive("units", units)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = units
        self._bias_values = _bias_values(bias, self.units, self.variable_dtype, self.compute_dtype)
        self.activation = activation
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.jit_compile = bool(jit_compile)
        self.input_spec = keras.layers.InputSpec(min_ndim=2)
        self.supports_masking = True

    @property
    def activation(self) -> Callable:
        return self._activation

    @activation.setter
    def activation(self, activation: str | Callable | None) -> None:
        function: Callable = keras.activations.get(activation)
        self._activation = function
        # A partial of its own for every layer, because TensorFlow counts retraces by code
        # object: one method shared by many layers would set off its retracing warning.
        self._compiled = tf.function(partial(_dense, function), jit_compile=True)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        inputs = input_shape[-1]
        if inputs is None:
            raise ValueError(
                "The last dimension of the input of `FixedBiasDense` must be known. "
                f"Received: input_shape={input_shape}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(inputs, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        # `trainable=False` here, and not a flag set later, is what survives
        # `model.trainable = True`: the weight is never among those that it switches.
        self.bias = self.add_weight(
            name="bias",
            shape=(self.units,),
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(self._bias_values, dtype),
            trainable=False,
        )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        self.built = True

    def call(self, inputs: Any) -> Any:
        # Weights enter as arguments, not by capture: the same function then serves
        # `stateless_call`, where other values stand in for the layer's own.
        weights = tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias)
        if self.jit_compile and tf.executing_eagerly() and isinstance(inputs, tf.Tensor):
            return self._compiled(inputs, *weights)
        # Inside an outer function the outer one decides. An XLA island in a function that
        # is not compiled as a whole took 1.5 to 1.8 times as long per training step. XLA has
        # no sparse tensors.
        return _dense(self.activation, inputs, *weights)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        values = np.asarray(self.bias.numpy() if self.built else self._bias_values)
        constant = bool((values == values[0]).all())
        return {
            **super().get_config(),
            "units": self.units,
            "bias": float(values[0]) if constant else values.tolist(),
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
            "jit_compile": self.jit_compile,
        }


def _dense(activation: Callable, inputs: Any, kernel: Any, bias: Any) -> Any:
    return activation(ops.add(ops.matmul(inputs, kernel), bias))


def _bias_values(bias: BiasLike, units: int, dtype: str, compute_dtype: str) -> np.ndarray:
    """The bias as a vector of `units` numbers, or an error that says what is wrong with it."""
    if isinstance(bias, str):
        bias = _initializer(bias)
    if isinstance(bias, dict) or callable(bias):
        bias = keras.initializers.get(bias)((units,), dtype=dtype)
    try:
        given: np.ndarray = np.asarray(bias)
        # Not `dtype.kind`, which does not know bfloat16 for a number.
        number = given.dtype != bool and np.can_cast(given.dtype, "float64", "same_kind")
        wide = given.astype("float64") if number else None
    except ValueError:  # ragged sequences
        wide = None
    if wide is None:
        raise ValueError(
            "`bias` must be a number, a sequence of numbers, or a Keras initializer. "
            f"Received: bias={bias!r}"
        )
    if wide.shape not in ((), (units,)):
        raise ValueError(
            f"`bias` must be one number or have one entry per unit, shape ({units},). "
            f"Received: bias of shape {wide.shape}"
        )
    limit = min(_largest(dtype), _largest(compute_dtype))
    bad = ~(np.abs(wide) <= limit)  # catches NaN as well
    if bad.any():
        raise ValueError(
            f"`bias` must be finite in {compute_dtype}, at most {limit:g} in size. "
            f"Received: bias with {wide[bad].flat[0]:g}"
        )
    return np.broadcast_to(wide, (units,)).astype(dtype)


def _initializer(name: str) -> keras.initializers.Initializer:
    # Keras's `constant` is 0 and its `uniform` within 0.05: other numbers than the presets'.
    if name.partition(":")[0] in {*PRESETS, "file"} - {"zeros"}:
        raise ValueError(
            "A bias preset is for `mlp`; a layer takes numbers, as "
            f'`bias_values("{name}", t, units)` gives, or an initializer. '
            f"Received: bias={name!r}"
        )
    try:
        return keras.initializers.get(name)
    except ValueError:
        raise ValueError(
            "`bias` as a string must be the name of a Keras initializer; unlike in `Dense`, the "
            f"second argument is no activation. Received: bias={name!r}"
        ) from None


def _largest(dtype: str) -> float:
    return float(tf.as_dtype(dtype).max)
