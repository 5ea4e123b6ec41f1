"""The activations that Keras lacks, and that the others are Keras's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from fixedbias import activations, by_hand


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "linear", "swish", "mish", "gelu"])
def test_what_keras_has_is_kerass(name: str) -> None:
    assert activations.get(name) is keras.activations.get(name)


def test_swish_is_silu() -> None:
    assert activations.get("swish") is keras.activations.silu


def test_the_hard_sigmoid_is_not_keras_3s() -> None:
    x = np.linspace(-4, 4, 81)
    ours, theirs = activations.hard_sigmoid(x), keras.activations.hard_sigmoid(x)
    np.testing.assert_allclose(ours, np.clip(0.2 * x + 0.5, 0, 1), atol=1e-6)
    assert np.abs(ours - theirs).max() == pytest.approx(1 / 12, abs=1e-3)


@pytest.mark.parametrize("name", by_hand.ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_every_activation_and_its_slope_are_those_by_hand(name: str, dtype: str) -> None:
    x = tf.cast(np.linspace(-3.23, 2.97, 32), dtype)  # none at a corner
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = activations.get(name)(x)
    slope = tape.gradient(y, x, unconnected_gradients="zero")
    assert y.dtype == x.dtype
    tolerance = {"float64": 1e-6, "float32": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}[dtype]
    value, derivative = by_hand.ACTIVATIONS[name]
    wide = x.numpy().astype("float64")
    np.testing.assert_allclose(tf.cast(y, "float64"), value(wide), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        tf.cast(slope, "float64"), derivative(wide), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("name", ["elish", "hard_sigmoid", "step"])
def test_far_out_nothing_is_lost(name: str) -> None:
    x = tf.constant([-1e4, 1e4])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = activations.get(name)(x)
    assert np.isfinite(y).all()
    assert np.isfinite(tape.gradient(y, x, unconnected_gradients="zero")).all()


# Keras calls `np.array` on HDF5 data sets, whose `__array__` has no `copy`.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", ["elish", "hard_sigmoid", "step"])
def test_a_model_with_it_is_saved_and_loaded(name: str, tmp_path) -> None:
    activation = activations.get(name)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation=activation)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].activation is activation


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="swoosh"):
        activations.get("swoosh")
