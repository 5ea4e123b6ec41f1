"""The bias of FixedBiasDense outlives training, toggles, copies and files."""

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

from fixedbias.layers import FixedBiasDense
from tests.fixedbias.small_layers import BIAS, TOLERANCE, built, close, inputs, names

# Keras calls `np.array` on bfloat16 tensors and on HDF5 data sets, whose `__array__` has no `copy`.
np_array_without_copy = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)


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
    assert config["kernel_initializer"]["class_name"] == "HeNormal"
    assert config["kernel_initializer"]["config"]["seed"] == 1
    assert config["kernel_regularizer"]["class_name"] == "L2"
    assert config["kernel_constraint"]["class_name"] == "NonNeg"
    assert config["activity_regularizer"]["class_name"] == "L1"
    assert built(0.5).get_config()["bias"] == 0.5
    assert FixedBiasDense(1, [0.5]).get_config()["bias"] == 0.5


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
