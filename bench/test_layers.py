"""Benchmarks of one hidden layer: 784 inputs, a batch of 128, compiled by XLA."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from bench.arms import ARMS
from bench.ceilings import Product
from bench.timing import Burst

BATCH, INPUTS = 128, 784


def _layer(arm: str, units: int) -> Any:
    bias = np.linspace(-0.5, 0.5, units)
    layer = ARMS[arm].hidden(
        units, bias=bias, activation="relu", kernel_initializer="glorot_uniform", name="layer"
    )
    layer.build((BATCH, INPUTS))
    ARMS[arm].prepare(layer, bias)
    return layer


def _inputs() -> Any:
    values = np.random.default_rng(0).random((BATCH, INPUTS), "float32")
    return tf.cast(values, keras.config.dtype_policy().compute_dtype)


def _burst(function: Callable, *args: Any) -> Burst:
    # One number is fetched: that waits for the device, and costs no copy of the whole output.
    return Burst(lambda: function(*args), lambda out: float(out[0, 0]), BATCH)


@pytest.mark.benchmark(group="layer forward")
def test_forward(race: Any, arm: str, precision: str, units: int) -> None:
    layer, x = _layer(arm, units), _inputs()
    forward = tf.function(layer, jit_compile=True)
    race(_burst(forward, x), [Product(BATCH, INPUTS, units)], x.dtype.name)


@pytest.mark.benchmark(group="layer forward + backward")
def test_forward_backward(race: Any, arm: str, precision: str, units: int) -> None:
    layer, x = _layer(arm, units), _inputs()
    upstream = tf.ones((BATCH, units), x.dtype)

    @tf.function(jit_compile=True)
    def both(x: Any, upstream: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        variables = [v.value for v in layer.trainable_variables]
        # All gradients are outputs of the program, else XLA would leave them out.
        return tape.gradient(y, [x, *variables], upstream)

    burst = Burst(lambda: both(x, upstream), lambda out: float(out[0][0, 0]), BATCH)
    products = [
        Product(BATCH, INPUTS, units),
        Product(INPUTS, BATCH, units, "left"),
        Product(BATCH, units, INPUTS, "right"),
    ]
    race(burst, products, x.dtype.name)
