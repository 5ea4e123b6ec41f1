"""A layer of four units, its twin among Dense layers, and when their results are equal."""

import inspect
from typing import Any

import keras
import numpy as np
import pytest

from fixedbias.layers import FixedBiasDense

# Under mutation testing `__init__` is a wrapper, whose arguments Keras could not read. Else this
# changes nothing.
FixedBiasDense.__init__.__signature__ = inspect.signature(FixedBiasDense.__init__)

# The largest difference allowed between two ways to compute the same thing, relative to values
# of size 1: a few roundings in the precision of the computation.
TOLERANCE = {"float32": 1e-6, "mixed_float16": 4e-3, "mixed_bfloat16": 3e-2}
each_policy = pytest.mark.parametrize("policy", TOLERANCE, indirect=True)

BIAS = [-0.5, 0.0, 0.25, 2.0]


def close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    a, b = (np.asarray(v).astype("float64") for v in (a, b))
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def names(weights: list) -> list[str]:
    return [weight.name for weight in weights]


def inputs(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def built(bias: Any = None, width: int = 3, **kwargs: Any) -> FixedBiasDense:
    layer = FixedBiasDense(4, BIAS if bias is None else bias, **kwargs)
    layer.build((None, width))
    return layer


def frozen_dense(layer: FixedBiasDense, width: int) -> keras.layers.Dense:
    """A Dense with the layer's weights and a bias that is not trained."""
    dense = keras.layers.Dense(layer.units, activation=layer.activation)
    dense.build((None, width))
    dense.set_weights(layer.get_weights())
    dense.bias.trainable = False
    return dense
