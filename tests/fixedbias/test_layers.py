"""FixedBiasDense is Dense with a bias that nothing but a hand can change."""

import copy
import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from fixedbias.layers import FixedBiasDense

# The largest difference allowed between two ways to compute the same thing, relative to values
# of size 1: a few roundings in the precision of the computation.
TOLERANCE = {"float32": 1e-6, "mixed_float16": 4e-3, "mixed_bfloat16": 3e-2}
each_policy = pytest.mark.parametrize("policy", TOLERANCE, indirect=True)

BIAS = [-0.5, 0.0, 0.25, 2.0]


# Keras calls `np.array` on bfloat16 tensors and on HDF5 data sets, whose `__array__` has no `copy`.
np_array_without_copy = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


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
        tf.constant(BIAS),
        tf.constant(BIAS, tf.bfloat16),
        keras.Variable(BIAS),
        lambda shape, dtype: np.array(BIAS, dtype),
    ],
)
def test_a_bias_may_come_as(bias: Any) -> None:
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


def test_masks_regularizers_and_constraints_are_denses() -> None:
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
    assert layer.supports_masking


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


def test_an_activation_may_be_a_layer_with_weights() -> None:
    layer = FixedBiasDense(2, activation=keras.layers.PReLU("ones"), kernel_initializer="ones")
    close(layer(-np.ones((1, 3))), [[-3, -3]])
    assert len(layer.trainable_weights) == 2


# --- what it refuses ------------------------------------------------------------------------


@pytest.mark.parametrize("units", [0, -1, 1.0, 2.5, "4", None, True])
def test_units_must_be_a_positive_integer(units: Any) -> None:
    with pytest.raises(ValueError, match=r"`units` must be .* Received: units="):
        FixedBiasDense(units)


@pytest.mark.parametrize("bias", [[], [1.0], [1.0] * 5, [BIAS], np.ones((4, 1))])
def test_bias_must_have_the_right_length(bias: Any) -> None:
    with pytest.raises(
        ValueError, match=r"one entry per unit, shape \(4,\)\. Received: bias of sh"
    ):
        FixedBiasDense(4, bias)


@pytest.mark.parametrize("bias", [True, None, 1j, [1, None], [[1], [2, 3]], [{}], np.array("a")])
def test_bias_must_be_numbers(bias: Any) -> None:
    with pytest.raises(ValueError, match=r"`bias` must be a number, .* Received: bias="):
        FixedBiasDense(4, bias)


@pytest.mark.parametrize("bias", [np.nan, np.inf, [0, 0, -np.inf, 0], 1e39])
def test_bias_must_be_finite(bias: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`bias` must be finite in float32, .* Received: bias with"
    ):
        FixedBiasDense(4, bias)


def test_bias_must_be_finite_in_the_dtype_computed_in() -> None:
    FixedBiasDense(1, 70_000, dtype="mixed_bfloat16")
    with pytest.raises(
        ValueError, match=r"finite in float16, at most 65504 in size. Received: .* 7"
    ):
        FixedBiasDense(1, 70_000, dtype="mixed_float16")


@pytest.mark.parametrize("rank", [0, 1])
def test_input_must_have_a_batch_axis_and_a_feature_axis(rank: int) -> None:
    with pytest.raises(ValueError, match=rf"min_ndim=2, found ndim={rank}"):
        FixedBiasDense(4)(np.ones([3] * rank, "float32"))


def test_input_must_keep_its_width() -> None:
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        built()(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"must be known\. Received: input_shape=\(None, None\)"):
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


# --- the bias never changes -----------------------------------------------------------------

OPTIMIZERS = {
    "sgd": partial(keras.optimizers.SGD, 0.1, momentum=0.9),
    "adam": partial(keras.optimizers.Adam, 0.1),
    "adamw": partial(keras.optimizers.AdamW, 0.1, weight_decay=0.5),
    "adam, weight decay and moving average": partial(
        keras.optimizers.Adam, 0.1, weight_decay=0.5, use_ema=True, ema_overwrite_frequency=1
    ),
}


def train(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    model.compile(optimizer, "mse")
    model.fit(inputs(8, 3), np.ones((8, 4)), verbose=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_leaves_the_bias_alone(optimizer: Callable) -> None:
    layer = built()
    kernel = layer.get_weights()[0]
    train(keras.Sequential([keras.Input((3,)), layer]), optimizer())
    assert (layer.get_weights()[0] != kernel).any()
    np.testing.assert_array_equal(layer.bias, np.float32(BIAS))


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_trainable_toggles_leave_the_bias_alone(policy: str) -> None:
    layer = built()
    model = keras.Sequential([keras.Input((3,)), layer])
    for toggled, value in [(layer, False), (layer, True), (model, False), (model, True)]:
        toggled.trainable = value
        assert names(layer.trainable_weights) == (["kernel"] if value else [])
        assert names(layer.non_trainable_weights)[-1] == "bias"
    train(model, keras.optimizers.AdamW(0.1, weight_decay=0.5))
    np.testing.assert_array_equal(layer.bias, np.float32(BIAS))


def test_trainable_false_from_the_start() -> None:
    layer = built(trainable=False)
    assert layer.trainable_weights == []
    assert names(layer.weights) == ["kernel", "bias"]
    assert FixedBiasDense.from_config(layer.get_config()).trainable is False


def save(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def weights_file(model: keras.Model, folder: Path) -> keras.Model:
    model.save_weights(folder / "model.weights.h5")
    other = keras.models.clone_model(model)
    other.layers[0].set_weights([np.zeros((3, 4)), np.zeros(4)])
    other.load_weights(folder / "model.weights.h5")
    return other


def clone(model: keras.Model, folder: Path) -> keras.Model:
    other = keras.models.clone_model(model)
    np.testing.assert_array_equal(other.layers[0].bias, model.layers[0].bias)
    other.set_weights(model.get_weights())
    return other


COPIES: dict[str, Callable] = {
    "clone_model": clone,
    ".keras": save,
    ".weights.h5": weights_file,
    "copy.deepcopy": lambda model, folder: copy.deepcopy(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
}


@np_array_without_copy
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("bias", [BIAS, 0.1, keras.initializers.RandomNormal()])
def test_copies_keep_weights_bias_and_output(copied: Callable, bias: Any, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), built(bias)])
    expected = model(inputs(5, 3))  # once eagerly, for the compiled function to exist
    other = copied(model, tmp_path)
    for ours, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(other(inputs(5, 3)), expected)
    assert names(other.trainable_weights) == ["kernel"]


@pytest.mark.parametrize("export", ["export", "saved_model"])
def test_saved_model(export: str, tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((3,)), built()])
    expected = model(inputs(5, 3))
    if export == "export":
        model.export(tmp_path / "model", verbose=False)
        served = tf.saved_model.load(tmp_path / "model")
        output = served.serve(inputs(5, 3))
    else:
        tf.saved_model.save(model, tmp_path / "model")
        served = tf.saved_model.load(tmp_path / "model")
        (output,) = served.signatures["serving_default"](tf.constant(inputs(5, 3))).values()
    close(output, expected)


def test_config_describes_the_layer_in_json() -> None:
    layer = built(
        activation="tanh",
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        kernel_regularizer="l2",
        kernel_constraint="non_neg",
        activity_regularizer="l1",
        jit_compile=False,
        name="hidden",
        dtype="mixed_bfloat16",
    )
    config = json.loads(json.dumps(layer.get_config()))
    assert FixedBiasDense.from_config(config).get_config() == layer.get_config() == config
    assert config["bias"] == BIAS
    assert built(0.5).get_config()["bias"] == 0.5


def test_an_initializer_is_drawn_from_once() -> None:
    layer = FixedBiasDense(4, keras.initializers.RandomNormal())
    twin = FixedBiasDense.from_config(layer.get_config())
    layer.build((None, 3))
    twin.build((None, 3))
    np.testing.assert_array_equal(layer.bias, twin.bias)


def test_a_bias_set_by_hand_is_the_bias_from_then_on() -> None:
    layer = built()
    layer.set_weights([np.ones((3, 4)), np.arange(4)])
    assert layer.get_config()["bias"] == [0, 1, 2, 3]


def test_a_later_policy_is_followed() -> None:
    layer, x = built(), inputs(5, 3)
    expected = layer(x)
    layer.dtype_policy = "mixed_bfloat16"
    assert layer(x).dtype == "bfloat16"
    close(layer(x), expected, TOLERANCE["mixed_bfloat16"])
    assert layer.bias.dtype == "float32"


# --- how it is compiled ---------------------------------------------------------------------


def weights_of(layer: FixedBiasDense) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)


def test_an_eager_call_is_one_function_compiled_by_xla() -> None:
    layer, x = built(), tf.constant(inputs(5, 3))
    for _ in range(3):
        layer(x)
    assert layer._compiled.experimental_get_tracing_count() == 1
    (concrete,) = layer._compiled._list_all_concrete_functions()
    assert concrete.function_def.attr["_XlaMustCompile"].b
    program = layer._compiled.experimental_get_compiler_ir(x, *weights_of(layer))
    assert "f32[5,4]" in program(stage="optimized_hlo")


def test_jit_compile_false_compiles_nothing() -> None:
    layer = built(jit_compile=False)
    layer(inputs(5, 3))
    assert layer._compiled.experimental_get_tracing_count() == 0


@pytest.mark.parametrize("jit_compile", [True, False])
def test_dissolves_into_an_outer_function(jit_compile: bool) -> None:
    layer, x = built(), inputs(5, 3)
    outer = tf.function(layer, jit_compile=jit_compile)
    close(outer(x), layer(x))
    graph = outer.get_concrete_function(tf.TensorSpec((5, 3))).graph
    operations = [operation.type for operation in graph.get_operations()]
    assert operations.count("MatMul") == 1
    assert not [name for name in operations if "Call" in name or "Xla" in name]


def test_stateless_call_uses_the_values_given() -> None:
    layer, x = built(), inputs(5, 3)
    layer(x)
    kernel, bias = np.ones((3, 4), "float32"), np.arange(4, dtype="float32")
    output, _ = layer.stateless_call([kernel], [bias], x)
    close(output, np.maximum(x @ kernel + bias, 0))


def test_stateless_call_vectorises_over_kernels() -> None:
    layer, x = built(), inputs(5, 3)
    kernels = inputs(7, 3, 4)
    outputs = tf.vectorized_map(
        lambda kernel: layer.stateless_call([kernel], [layer.bias.value], x)[0], kernels
    )
    for output, kernel in zip(outputs, kernels, strict=True):
        close(output, np.maximum(x @ kernel + np.float32(BIAS), 0))


def test_jacobian_through_the_compiled_call() -> None:
    layer, x = built(activation=None), tf.constant(inputs(2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    jacobian = tape.batch_jacobian(y, x)
    close(jacobian, np.broadcast_to(layer.get_weights()[0].T, (2, 4, 3)))


def test_many_layers_set_off_no_retracing_warning(tensorflow_warnings: list[str]) -> None:
    for _ in range(12):
        built()(inputs(2, 3))
    assert tensorflow_warnings == []
