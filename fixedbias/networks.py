"""The T-layer network."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from fixedbias.arguments import positive
from fixedbias.biases import bias_values
from fixedbias.layers import BiasLike, FixedBiasDense


def mlp(
    layers: int,
    units: int,
    biases: str | Sequence[BiasLike] = "zeros",
    *,
    hidden: Callable[..., keras.layers.Layer] = FixedBiasDense,
    activation: str | Callable | None = "relu",
    input_shape: tuple[int, ...] = (28, 28),
    classes: int = 10,
    rescale: float | None = None,
    seed: int | None = None,
    layer_norm: bool = False,
    output_activation: str | Callable | None = "softmax",
) -> keras.Model:
    """A network of `layers` layers: flatten, `layers - 1` hidden layers, softmax.

    The hidden layers have `units` units and a fixed bias each; the output layer is an
    ordinary `keras.layers.Dense(classes, activation="softmax")` with a trained bias. It
    computes in float32 under every precision policy, as Keras advises for a softmax.

    Depth by example: `layers=1` is the softmax layer alone, `layers=2` one hidden layer and
    the softmax layer, `layers=3` two hidden layers and the softmax layer.

    Args:
        layers: Number of layers with weights, the output layer counted; at least 1.
        units: Units of every hidden layer.
        biases: A bias preset (see `fixedbias.biases`), or a sequence with one entry per
            hidden layer, each what `FixedBiasDense` takes as `bias`.
        hidden: Makes a hidden layer; called as `hidden(units, bias=..., activation=...,
            kernel_initializer=..., name=...)`. The default is `FixedBiasDense`.
        activation: Activation of the hidden layers.
        input_shape: Shape of one example.
        classes: Units of the output layer.
        rescale: Factor on the input, done by the network itself: with `1 / 255` images may
            stay uint8, which is a quarter of the memory of float32.
        seed: Makes the kernels reproducible: kernel t depends on `seed`, t and its shape
            alone, so networks that differ in their biases or in `hidden` start alike.
        layer_norm: Whether a `keras.layers.LayerNormalization` follows every hidden layer. It
            shifts and scales what it gets, and so can undo some of what a fixed bias does.
        output_activation: Activation of the output layer.

    Returns:
        A functional `keras.Model`, not compiled. Input `(batch, *input_shape)`, output
        `(batch, classes)` in float32.

    Raises:
        ValueError: `layers` or `units` is not a positive integer, or `biases` has another
            length than `layers - 1`, or does not fit the layer.

    Example:

    >>> model = mlp(3, 128, "ramp")
    >>> model.count_params()
    118282
    >>> sum(w.shape[0] for w in model.non_trainable_weights)
    256
    """
    layers, units = positive("layers", layers), positive("units", units)
    per_layer: Sequence[BiasLike]
    if isinstance(biases, str):
        per_layer = [bias_values(biases, t, units) for t in range(layers - 1)]
    elif isinstance(biases, Sequence | np.ndarray):
        per_layer = biases
    else:
        raise ValueError(
            "`biases` must be the name of a preset, or a sequence with one bias per hidden layer. "
            f"Received: biases={biases!r}"
        )
    if len(per_layer) != layers - 1:
        raise ValueError(
            f"`biases` must have one entry per hidden layer, {layers - 1} for layers={layers}. "
            f"Received: {len(per_layer)} entries"
        )

    def kernel_initializer(t: int) -> keras.initializers.Initializer:
        # 1,000,003 is prime and larger than any depth: no two (seed, t) of use collide.
        return keras.initializers.GlorotUniform(None if seed is None else int(seed) * 1_000_003 + t)

    inputs = keras.Input(input_shape)
    x: Any = inputs if rescale is None else keras.layers.Rescaling(rescale)(inputs)
    x = keras.layers.Flatten()(x)
    for t, bias in enumerate(per_layer):
        x = hidden(
            units,
            bias=bias,
            activation=activation,
            kernel_initializer=kernel_initializer(t),
            name=f"hidden_{t}",
        )(x)
        if layer_norm:
            x = keras.layers.LayerNormalization(name=f"norm_{t}")(x)
    outputs = keras.layers.Dense(
        classes,
        activation=output_activation,
        kernel_initializer=kernel_initializer(layers - 1),
        dtype="float32",
        name="output",
    )(x)
    return keras.Model(inputs, outputs)
