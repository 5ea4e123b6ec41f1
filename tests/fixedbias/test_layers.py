"""FixedBiasDense computes what Dense does, in any shape and precision, and refuses the rest."""

import json
import re
from functools import partial
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from fixedbias.layers import FixedBiasDense
from tests.fixedbias.small_layers import (
    BIAS,
    TOLERANCE,
    built,
    close,
    each_policy,
    frozen_dense,
    inputs,
    names,
)

# --- what it computes -----------------------------------------------------------------------


def test_computes_activation_of_product_plus_bias() -> None:
    layer, x = built(activation="tanh"), inputs(5, 3)
    kernel, bias = layer.get_weights()
    close(layer(x), np.tanh(x @ kernel + bias))
    np.testing.assert_array_equal(bias, np.float32(BIAS))


@pytest.mark.parametrize("shape", [(0, 3), (2, 1), (2, 0), (2, 3, 5), (2, 0, 5), (2, 1, 3, 5)])
@pytest.mark.parametrize("units", [1, 4])
def test_equals_dense_at_every_shape(shape: tuple[int, ...], units: int) -> None:
    layer = FixedBiasDense(units, bias=0.5)
    layer.build(shape)
    y = layer(inputs(*shape))
    assert tuple(y.shape) == layer.compute_output_shape(shape) == (*shape[:-1], units)
    close(y, frozen_dense(layer, shape[-1])(inputs(*shape)))


@given(
    batch=st.integers(0, 5),
    width=st.integers(1, 20),
    bias=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
)
@settings(deadline=None, max_examples=15)
def test_any_shape_and_bias_compiled_or_not(batch: int, width: int, bias: list[float]) -> None:
    layer = FixedBiasDense(len(bias), bias)
    plain = FixedBiasDense(len(bias), bias, jit_compile=False)
    x = inputs(batch, width)
    layer.build(x.shape)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    expected = np.maximum(x @ layer.get_weights()[0] + np.float32(bias), 0)
    close(layer(x), expected, 1e-5)
    close(plain(x), expected, 1e-5)


@pytest.mark.parametrize(
    "bias",
    [
        tuple(BIAS),
        np.array(BIAS),
        np.array(BIAS, "float16"),
        # Called in the test: mutmut forks after tests are collected, which TensorFlow stands only
        # as long as it is not in use.
        pytest.param(partial(tf.constant, BIAS), id="tensor"),
        pytest.param(partial(tf.constant, BIAS, tf.bfloat16), id="bfloat16 tensor"),
        pytest.param(partial(keras.Variable, BIAS), id="variable"),
        lambda shape, dtype: np.array(BIAS, dtype),
    ],
)
def test_a_bias_may_come_as(bias: Any) -> None:
    bias = bias() if isinstance(bias, partial) else bias
    np.testing.assert_array_equal(built(bias).bias, np.float32(BIAS))


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        (3, 3),
        (-0.5, -0.5),
        (np.float64(0.5), 0.5),
        ("ones", 1),
        (keras.initializers.Constant(0.5), 0.5),
        (keras.initializers.Ones, 1),
        (keras.initializers.serialize(keras.initializers.Constant(0.5)), 0.5),
        (range(4), [0, 1, 2, 3]),
    ],
)
def test_a_bias_may_be_short_for(bias: Any, expected: Any) -> None:
    np.testing.assert_array_equal(built(bias).bias, np.broadcast_to(np.float32(expected), 4))


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("bias", ["ones", [1.0, 2.0, 3.0, 4.0]])
def test_other_dtypes(dtype: str, bias: Any) -> None:
    layer = built(bias, dtype=dtype)
    assert layer.bias.dtype == layer.kernel.dtype == dtype
    assert keras.backend.standardize_dtype(layer(inputs(2, 3)).dtype) == dtype
    again = FixedBiasDense.from_config(json.loads(json.dumps(layer.get_config())))
    again.build((None, 3))
    np.testing.assert_array_equal(np.float64(again.bias), np.float64(layer.bias))


@each_policy
def test_mixed_precision_stores_float32_and_computes_in_the_policys_dtype(policy: str) -> None:
    layer = built()
    assert layer.kernel.dtype == layer.bias.dtype == "float32"
    dtype = keras.config.dtype_policy().compute_dtype
    assert layer(inputs(2, 3)).dtype == tf.function(layer)(inputs(2, 3)).dtype == dtype
    assert layer.compute_output_spec(keras.KerasTensor((2, 3), dtype)).dtype == dtype


def test_regularizers_and_constraints_are_denses() -> None:
    layer = built(
        kernel_regularizer="l2",
        activity_regularizer="l1",
        kernel_constraint=keras.constraints.UnitNorm(axis=0),
    )
    kernel = layer.get_weights()[0]
    y = layer(inputs(2, 3))
    close(sum(layer.losses), 0.01 * ((kernel**2).sum() + np.abs(y).sum() / 2), 1e-5)
    keras.optimizers.SGD().apply([kernel], [layer.kernel])
    close(np.linalg.norm(layer.kernel, axis=0), np.ones(4))


@pytest.mark.parametrize("around", [lambda model: model, tf.function])
def test_a_mask_goes_through_as_through_dense(around: Any) -> None:
    x = np.array([[[1.0, 2.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 4.0]]], "float32")
    results = []
    for layer in (FixedBiasDense(3, 0.5, kernel_initializer="ones"), keras.layers.Dense(3)):
        network = keras.Sequential([keras.Input((2, 2)), keras.layers.Masking(), layer])
        layer.set_weights([np.ones((2, 3)), np.full(3, 0.5)])
        y = around(network)(x)
        # The mean over what is not masked, as a loss takes it.
        pooled = keras.Sequential([network, keras.layers.GlobalAveragePooling1D()])
        results.append((y, around(pooled)(x)))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs)
    close(results[0][1], [[3.5] * 3, [7.5] * 3])


def test_sparse_input() -> None:
    layer = built()
    close(layer(tf.sparse.from_dense(np.eye(3, dtype="float32"))), layer(np.eye(3)))


@pytest.mark.parametrize("jit_compile", [True, False])
def test_a_new_activation_is_used_at_once(jit_compile: bool) -> None:
    layer, x = built(jit_compile=jit_compile, kernel_initializer="ones"), -np.ones((1, 3))
    assert (layer(x).numpy() == 0).all()
    layer.activation = keras.activations.linear
    close(layer(x)[0], np.array(BIAS) - 3)
    close(tf.function(layer)(x)[0], np.array(BIAS) - 3)
    layer.activation = "relu"
    assert (layer(x).numpy() == 0).all()
    layer.activation = None  # as Keras has it: none
    close(layer(x)[0], np.array(BIAS) - 3)


def test_an_activation_may_be_a_layer_with_weights() -> None:
    layer = FixedBiasDense(2, activation=keras.layers.PReLU("ones"), kernel_initializer="ones")
    close(layer(-np.ones((1, 3))), [[-3, -3]])
    assert len(layer.trainable_weights) == 2


# --- what it refuses ------------------------------------------------------------------------


def refused(message: str) -> Any:
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("units", [0, -1, 1.0, 2.5, "4", None, True])
def test_units_must_be_a_positive_integer(units: Any) -> None:
    with refused(f"`units` must be a positive integer. Received: units={units!r}"):
        FixedBiasDense(units)


@pytest.mark.parametrize("bias", [[], [1.0], [1.0] * 5, [BIAS], np.ones((4, 1))])
def test_bias_must_have_the_right_length(bias: Any) -> None:
    rule = "`bias` must be one number or have one entry per unit, shape (4,)."
    with refused(f"{rule} Received: bias of shape {np.shape(bias)}"):
        FixedBiasDense(4, bias)


@pytest.mark.parametrize("bias", [True, None, 1j, [1, None], [[1], [2, 3]], [{}], np.array("a")])
def test_bias_must_be_numbers(bias: Any) -> None:
    rule = "`bias` must be a number, a sequence of numbers, or a Keras initializer."
    with refused(f"{rule} Received: bias={bias!r}"):
        FixedBiasDense(4, bias)


@pytest.mark.parametrize("bias", ["constant", "ramp", "uniform", "normal:seed=1", "file:b.npz"])
def test_a_presets_name_is_no_initializer(bias: str) -> None:
    with pytest.raises(ValueError, match="A bias preset is for `mlp`") as refusal:
        FixedBiasDense(4, bias)
    assert f'`bias_values("{bias}", t, units)`' in str(refusal.value)
    assert str(refusal.value).endswith(f"Received: bias={bias!r}")
    FixedBiasDense(4, "ones"), FixedBiasDense(4, "zeros")


def test_an_activation_in_the_place_of_the_bias_is_told() -> None:
    with pytest.raises(ValueError, match="the second argument is no activation") as refusal:
        FixedBiasDense(4, "relu")
    assert str(refusal.value).endswith("Received: bias='relu'")


@pytest.mark.parametrize(
    ("bias", "shown"),
    [(np.nan, "nan"), (np.inf, "inf"), ([0, 0, -np.inf, 0], "-inf"), (1e39, "1e+39")],
)
def test_bias_must_be_finite(bias: Any, shown: str) -> None:
    rule = "`bias` must be finite in float32, at most 3.40282e+38 in size."
    with refused(f"{rule} Received: bias with {shown}"):
        FixedBiasDense(4, bias)


def test_bias_must_be_finite_in_the_dtype_computed_in() -> None:
    FixedBiasDense(1, 70_000, dtype="mixed_bfloat16")
    FixedBiasDense(1, 65_504, dtype="mixed_float16")
    rule = "`bias` must be finite in float16, at most 65504 in size."
    with refused(f"{rule} Received: bias with 70000"):
        FixedBiasDense(1, 70_000, dtype="mixed_float16")


@pytest.mark.parametrize("rank", [0, 1])
def test_input_must_have_a_batch_axis_and_a_feature_axis(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"min_ndim=2, found ndim={rank}"):
        FixedBiasDense(4)(np.ones([3] * rank, "float32"))
    with pytest.raises(ValueError, match=rf"min_ndim=2, found ndim={rank}"):
        built()(np.ones([3] * rank, "float32"))


def test_input_must_keep_its_width() -> None:
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        built()(np.ones((2, 5)))
    rule = "The last dimension of the input of `FixedBiasDense` must be known."
    with refused(f"{rule} Received: input_shape=(None, None)"):
        FixedBiasDense(4).build((None, None))


# --- the same as Dense ----------------------------------------------------------------------


def test_weights_move_to_dense_and_back() -> None:
    fixed = keras.Sequential([keras.Input((3,)), FixedBiasDense(4, BIAS), FixedBiasDense(2, 1.0)])
    dense = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2, "relu")]
    )
    assert names(fixed.weights) == ["kernel", "bias"] * 2
    dense.set_weights(fixed.get_weights())
    close(fixed(inputs(5, 3)), dense(inputs(5, 3)))
    dense.layers[0].set_weights([np.ones((3, 4)), np.full(4, 7)])
    fixed.set_weights(dense.get_weights())
    close(fixed(inputs(5, 3)), dense(inputs(5, 3)))


def one_step(layer: keras.layers.Layer, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    """The output, and the kernel after one optimizer step, on one batch."""
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.get(optimizer), "mse")
    x, y = inputs(8, 6), np.ones((8, 4))
    output = model(x)
    model.train_on_batch(x, y)
    return output, layer.get_weights()[0]


@pytest.mark.parametrize(
    ("policy", "optimizer"),
    [("float32", "sgd"), ("float32", "adam"), ("mixed_float16", "adam"), ("mixed_bfloat16", "sgd")],
    indirect=["policy"],
)
def test_equals_dense_with_a_frozen_bias(policy: str, optimizer: str) -> None:
    layer = built(width=6)
    dense = frozen_dense(layer, 6)
    for ours, theirs in zip(one_step(layer, optimizer), one_step(dense, optimizer), strict=True):
        close(ours, theirs, TOLERANCE[policy])


@each_policy
def test_equals_dense_without_bias_where_the_bias_is_zero(policy: str) -> None:
    layer = built(bias=0.0, width=6)
    dense = keras.layers.Dense(4, "relu", use_bias=False)
    dense.build((None, 6))
    dense.set_weights(layer.get_weights()[:1])
    for ours, theirs in zip(one_step(layer, "sgd"), one_step(dense, "sgd"), strict=True):
        close(ours, theirs, TOLERANCE[policy])


@pytest.mark.parametrize("activation", ["relu", "softmax", None])
def test_gradients_equal_denses(activation: str | None) -> None:
    layer, x = built(activation=activation), tf.constant(inputs(5, 3))
    dense = frozen_dense(layer, 3)
    gradients = []
    for each in (layer, dense):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(each(x) ** 2)
        gradients.append(tape.gradient(loss, [x, each.kernel.value]))
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs, 1e-5)
