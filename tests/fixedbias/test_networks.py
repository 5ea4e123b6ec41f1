"""The T-layer network: what is in it, and what two networks of one seed share."""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

from fixedbias.layers import FixedBiasDense
from fixedbias.networks import mlp


def dense(units: int, bias: Any, **kwargs: Any) -> keras.layers.Layer:
    return keras.layers.Dense(units, **kwargs)


def trained(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_parameters_of_the_three_layer_network() -> None:
    model = mlp(3, 128)
    assert model.count_params() == 118_282
    assert trained(model) == 118_026
    assert model.count_params() - trained(model) == 256


@pytest.mark.parametrize("layers", [1, 2, 3, 10])
def test_layers_counts_the_output_layer(layers: int) -> None:
    model = mlp(layers, 5, input_shape=(4,), classes=3)
    with_weights = [layer for layer in model.layers if layer.weights]
    assert len(with_weights) == layers
    assert all(isinstance(layer, FixedBiasDense) for layer in with_weights[:-1])
    widths = [4, *[5] * (layers - 1), 3]
    expected = [shape for a, b in pairwise(widths) for shape in ((a, b), (b,))]
    assert [weight.shape for weight in model.weights] == expected
    assert trained(model) == sum(a * b for a, b in pairwise(widths)) + 3


def test_smallest_network() -> None:
    model = mlp(2, 1, input_shape=(1,), classes=2)
    np.testing.assert_allclose(np.sum(model(np.ones((3, 1))), axis=1), np.ones(3), rtol=1e-6)


def test_computes_softmax_of_hidden_layers() -> None:
    model = mlp(3, 4, [[1, 2, 3, 4], -0.5], input_shape=(2, 3), activation="tanh")
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")
    kernels, biases = model.get_weights()[::2], model.get_weights()[1::2]
    h = x.reshape(5, 6)
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        h = np.tanh(h @ kernel + bias)
    logits = h @ kernels[-1]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(x), expected, rtol=1e-5)
    np.testing.assert_array_equal(biases[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(biases[1], np.full(4, -0.5, "float32"))


def test_a_preset_names_every_hidden_layers_bias() -> None:
    model = mlp(4, 3, "ramp:step=0.5", input_shape=(2,))
    biases = [model.get_layer(f"hidden_{t}").bias.numpy() for t in range(3)]
    np.testing.assert_array_equal(biases, [[0, 0, 0], [0, 0.5, 1], [0, 1, 2]])


@pytest.mark.parametrize("seed", [0, 1, -1, 123_456_789, np.int64(7)])
def test_one_seed_starts_every_arm_from_bit_equal_kernels(seed: int) -> None:
    networks = [
        mlp(3, 8, seed=seed),
        mlp(3, 8, "normal", seed=seed),
        mlp(3, 8, hidden=dense, seed=seed),
        mlp(3, 8, activation="tanh", rescale=1 / 255, seed=seed),
    ]
    for network in networks[1:]:
        for ours, theirs in zip(networks[0].weights, network.weights, strict=True):
            if ours.name == "kernel":
                np.testing.assert_array_equal(ours, theirs)


def test_kernels_differ_between_seeds_and_layers() -> None:
    kernels = [
        layer.kernel.numpy().tobytes()
        for seed in (0, 1, 2, None, None)
        for layer in mlp(4, 8, input_shape=(8,), classes=8, seed=seed).layers
        if layer.weights
    ]
    assert len(set(kernels)) == 5 * 4


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rescale_takes_images_as_they_are(dtype: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(dtype)
    images = images if dtype == "uint8" else images / 3
    model, plain = mlp(2, 8, rescale=1 / 255, seed=0), mlp(2, 8, seed=0)
    np.testing.assert_allclose(model(images), plain(images / 255), rtol=1e-5)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"], indirect=True)
def test_the_softmax_is_float32_under_mixed_precision(policy: str) -> None:
    model = mlp(2, 8, input_shape=(3,))
    assert model.get_layer("hidden_0").compute_dtype != "float32"
    assert model(np.ones((2, 3))).dtype == "float32"
    assert {weight.dtype for weight in model.weights} == {"float32"}


@pytest.mark.parametrize("name", ["layers", "units"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "3"])
def test_layers_and_units_must_be_positive_integers(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"`{name}` must be .* Received: {name}="):
        mlp(**{"layers": 3, "units": 4} | {name: value})


@pytest.mark.parametrize("biases", [0.5, None])
def test_biases_are_a_preset_or_one_for_every_hidden_layer(biases: Any) -> None:
    with pytest.raises(ValueError, match=f"a sequence with one bias .* Received: biases={biases}"):
        mlp(3, 4, biases)


@pytest.mark.parametrize("biases", [[], [0.0], [0.0] * 3])
def test_there_must_be_a_bias_for_every_hidden_layer(biases: list[float]) -> None:
    with pytest.raises(ValueError, match=rf"2 for layers=3. Received: {len(biases)} entries"):
        mlp(3, 4, biases)


def test_a_bias_must_fit_its_layer() -> None:
    with pytest.raises(ValueError, match=r"one entry per unit, shape \(4,\). Received"):
        mlp(2, 4, [[1.0, 2.0]])
    with pytest.raises(ValueError, match="A bias preset must be one of"):
        mlp(2, 4, "rampe")
