"""The network without Keras: its forms are one, and it is the network by hand and that of Keras."""

from itertools import chain
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fixedbias import FixedBiasDense, by_hand, plain

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 3)).astype("float32")
CLASSES = (X @ np.array([1, -2, 0.5]) > 0).astype("int32") + (X[:, 0] > 1)


def network(**kwargs: Any) -> plain.Network:
    return plain.Network((3, 8, 6, 3), seed=1, stddev=0.5, **kwargs)


# --- one network, whoever computes it


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "step"])
def test_forward_and_gradients_are_those_by_hand(activation: str) -> None:
    net = network(activation=activation)
    what = {"activation": activation}
    weights = net.get_weights()
    np.testing.assert_allclose(net(X), by_hand.predict(weights, X, **what), rtol=1e-5, atol=1e-7)
    with tf.GradientTape() as tape:
        loss = plain.cross_entropy_error(CLASSES, net(X))
    variables = [v for layer in net.layers for v in (layer.kernel, layer.bias)]
    found = tape.gradient(loss, variables, unconnected_gradients="zero")
    for ours, theirs in zip(found, by_hand.gradients(weights, X, CLASSES, **what), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_sgd_takes_the_steps_of_keras() -> None:
    """Same weights, same batches, same rate: the fixed biases of both are left alone."""
    ours = network(biases=[0.3, -0.1])
    model = keras.Sequential(
        [
            keras.Input((3,)),
            FixedBiasDense(8, 0.3),
            FixedBiasDense(6, -0.1),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.set_weights(ours.get_weights())
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    for start in range(0, 70, 20):
        x, y = X[start : start + 20], CLASSES[start : start + 20]
        plain.train_step(ours, plain.cross_entropy_error, plain.SGD(0.1), x, y)
        model.train_on_batch(x, y)
    for mine, theirs in zip(ours.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


# --- two forms of training


@pytest.mark.parametrize("batch_size", [16, 70, 100])  # with a short last batch, without, alone
def test_both_forms_take_the_same_steps(batch_size: int) -> None:
    histories, weights = [], []
    for compiled in (False, True):
        net = network()
        what: dict[str, Any] = {"optimizer": plain.SGD(0.2), "test": (X, CLASSES), "seed": 5}
        histories.append(
            plain.fit(net, X, CLASSES, epochs=3, batch_size=batch_size, compiled=compiled, **what)
        )
        weights.append(net.get_weights())
    steps = 3 * -(-70 // batch_size)
    for history in histories:
        assert len(history["loss"]) == steps
        assert len(history["accuracy"]) == len(history["seconds"]) == 3
        assert history["test_accuracy"] == history["accuracy"]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-4)
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    seen: list[list[float]] = []

    def witness(y: Any, p: Any) -> Any:
        seen.append(y.numpy().ravel().tolist())
        return tf.reduce_sum(p)

    y = np.arange(10.0)[:, None]
    net = plain.Network((3, 1), output="identity")
    what: dict[str, Any] = {"loss": witness, "optimizer": plain.SGD(0), "classes": False}
    plain.fit(net, X[:10], y, batch_size=4, epochs=2, seed=0, **what)
    assert [len(batch) for batch in seen] == [4, 4, 2] * 2
    epochs = [[*chain(*seen[:3])], [*chain(*seen[3:])]]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(10))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("compiled", [False, True])
def test_a_fixed_bias_is_never_trained(compiled: bool) -> None:
    net = network(biases=[np.arange(8), 0.25])
    before = net.get_weights()
    plain.fit(net, X, CLASSES, optimizer=plain.SGD(0.5), epochs=2, compiled=compiled)
    after = net.get_weights()
    fixed = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert fixed == [False, True, False, True, False, False]
    np.testing.assert_array_equal(after[1], np.arange(8))


def test_it_learns() -> None:
    net = network()
    history = plain.fit(net, X, CLASSES, optimizer=plain.SGD(0.5), epochs=60, compiled=True, seed=0)
    assert history["accuracy"][-1] > 0.9
    assert history["loss"][-1] < history["loss"][0] / 4


def test_many_trainings_set_off_no_retracing_warning(tensorflow_warnings: list[str]) -> None:
    for _ in range(6):  # the warning comes with the sixth
        plain.fit(network(), X, CLASSES, optimizer=plain.SGD(0.1), compiled=True)
    assert tensorflow_warnings == []


# --- the parts


def test_kernels_are_normal_with_a_deviation_of_a_hundredth_and_biases_zero() -> None:
    layer = plain.DenseModule(784, 100, seed=0)
    kernel = layer.kernel.numpy()
    assert kernel.mean() == pytest.approx(0, abs=2e-4)
    assert kernel.std() == pytest.approx(0.01, rel=0.01)
    assert np.abs(kernel).max() > 0.04  # normal, not truncated at two deviations
    assert not layer.bias.numpy().any()


def test_layers_and_seeds_differ_and_a_seed_is_repeated() -> None:
    kernels = [
        layer.kernel.numpy().tobytes()
        for seed in (0, 1, None, None)
        for layer in plain.Network((4, 4, 4), seed=seed).layers
    ]
    assert len(set(kernels)) == 8
    assert plain.Network((4, 4, 4), seed=1).layers[1].kernel.numpy().tobytes() == kernels[3]


def test_weights_move_between_networks() -> None:
    one, other = network(), plain.Network((3, 8, 6, 3))
    other.set_weights(one.get_weights())
    np.testing.assert_array_equal(one(X), other(X))


def test_losses_take_class_indices_or_one_hot_rows() -> None:
    p = network()(X)
    for loss in (plain.sum_squared_error, plain.cross_entropy_error, plain.root_mean_squared_error):
        assert float(loss(CLASSES, p)) == pytest.approx(float(loss(np.eye(3)[CLASSES], p)))


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: plain.DenseModule(3, 2, "swoosh"), "`activation` must be one of step.*'swoosh'"),
        (lambda: plain.DenseModule(3, 2, bias=[1.0]), r"shape \(2,\). Received: bias of shape \(1"),
        (lambda: plain.Network((3,)), r"Received: widths=\(3,\), biases=None"),
        (lambda: plain.Network((3, 2, 1), biases=[]), "biases=of 0 entries"),
        (lambda: plain.fit(network(), X, X[:3], optimizer=plain.SGD(1)), "70 and 3 examples"),
        (lambda: plain.fit(network(), X[:0], X[:0], optimizer=plain.SGD(1)), "0 and 0 examples"),
        (
            lambda: plain.fit(network(), X, X, optimizer=plain.SGD(1), batch_size=0),
            "batch_size=0",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        make()
