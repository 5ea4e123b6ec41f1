"""The oracle, held against finite differences of itself and against Keras."""

from itertools import pairwise
from typing import Any

import keras
import numpy as np
import pytest

from fixedbias import FixedBiasDense, activations, by_hand, losses

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, 7)


def weights(*widths: int, norm: bool = False, bias: bool = True) -> list[np.ndarray]:
    found = []
    for t, (a, b) in enumerate(pairwise(widths)):
        found.append(RNG.normal(size=(a, b)))
        found += [RNG.normal(size=b)] if bias else []
        found += [RNG.normal(size=b) for _ in range(2)] if norm and t < len(widths) - 2 else []
    return found


def inputs(n: int = 7) -> np.ndarray:
    return RNG.normal(size=(n, 4))


def check_against_differences(start: list[np.ndarray], x: Any, y: Any, **what: Any) -> None:
    """Every derivative is the central difference of the loss, which knows no derivative."""
    found = by_hand.gradients(start, x, y, **what)
    h = 1e-6
    for weight, gradient in zip(start, found, strict=True):
        assert gradient.shape == weight.shape
        for place in np.ndindex(weight.shape):
            kept = weight[place]
            values = []
            for shift in (h, -h):
                weight[place] = kept + shift
                values.append(by_hand.loss(start, x, y, **what))
            weight[place] = kept
            expected = (values[0] - values[1]) / (2 * h)
            assert gradient[place] == pytest.approx(expected, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("activation", by_hand.ACTIVATIONS)
@pytest.mark.parametrize("norm", [False, True])
def test_gradients_of_every_activation_are_finite_differences(activation: str, norm: bool) -> None:
    start = weights(4, 5, 5, 3, norm=norm)
    check_against_differences(start, inputs(), CLASSES, activation=activation)


@pytest.mark.parametrize(
    ("loss", "output"),
    [(loss, out) for loss in by_hand.LOSSES for out in ("softmax", "linear", "tanh")][1:],
)
def test_gradients_of_every_loss_are_finite_differences(loss: str, output: str) -> None:
    if loss == "cross-entropy":
        output = "sigmoid"  # of numbers that are no probabilities there is no logarithm
    y = RNG.choice([-1.0, 1.0], (7, 3)) if loss == "binary-hinge" else CLASSES
    check_against_differences(
        weights(4, 5, 3), inputs(), y, activation="tanh", loss=loss, output=output
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [False, True])
def test_layers_are_told_apart_by_rank(bias: bool, norm: bool) -> None:
    layers = by_hand.split(weights(4, 5, 5, 3, bias=bias, norm=norm))
    assert [layer.kernel.shape for layer in layers] == [(4, 5), (5, 5), (5, 3)]
    assert [layer.bias is not None for layer in layers] == [bias] * 3
    assert [layer.gamma is not None for layer in layers] == [norm, norm, False]
    assert [layer.beta is not None for layer in layers] == [norm, norm, False]


@pytest.mark.parametrize(
    "shapes",
    [[], [(3,)], [(2, 3), (2,)], [(2, 3), (3,), (3,), (3,), (3,)], [(2, 3, 4)], [(2, 3), ()]],
)
def test_what_is_no_network_is_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match=r"`weights` must be kernels of rank 2.*Received: shapes"):
        by_hand.split([np.ones(shape) for shape in shapes])


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"class indices.*\(7, 3\). Received: float64 of shape"):
        by_hand.loss(weights(4, 3), inputs(), np.ones((7, 2)))


def test_a_missing_bias_is_a_bias_of_zero() -> None:
    kernels = weights(4, 5, 3, bias=False)
    zeros = [kernels[0], np.zeros(5), kernels[1], np.zeros(3)]
    x = inputs()
    np.testing.assert_array_equal(by_hand.predict(kernels, x), by_hand.predict(zeros, x))


def test_nothing_overflows() -> None:
    with np.errstate(all="raise", under="ignore"):
        for name, (value, slope) in by_hand.ACTIVATIONS.items():
            for z in (np.array([-1000.0]), np.array([1000.0])):
                assert np.isfinite([value(z), slope(z)]).all(), name
        by_hand.predict([np.array([[1.0, -1.0]])], np.array([[1000.0]]))


# --- against Keras, layer by layer of another make


@pytest.mark.parametrize("activation", by_hand.ACTIVATIONS)
@pytest.mark.parametrize("norm", [False, True])
def test_agrees_with_keras_forward_and_backward(activation: str, norm: bool) -> None:
    stack: list[Any] = [keras.Input((4,))]
    for t in range(2):
        stack.append(FixedBiasDense(5, [0.3, -0.2, 0.1, t, 0.5], activations.get(activation)))
        stack += [keras.layers.LayerNormalization()] if norm else []
    model = keras.Sequential([*stack, keras.layers.Dense(3, activation="softmax")])
    x = inputs().astype("float32")
    start, what = model.get_weights(), {"activation": activation}
    np.testing.assert_allclose(model(x), by_hand.predict(start, x, **what), rtol=1e-5, atol=1e-6)
    check_gradients(model, x, CLASSES, losses.get("cross-entropy"), what)


@pytest.mark.parametrize("loss", ["cross-entropy", "sum-of-squares", "hinge", "huber"])
def test_agrees_with_keras_on_every_loss_over_classes(loss: str) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="softmax")])
    x = inputs().astype("float32")
    check_gradients(model, x, CLASSES, losses.get(loss), {"loss": loss})


@pytest.mark.parametrize("loss", ["sum-of-squares", "binary-hinge", "huber"])
def test_agrees_with_keras_on_every_loss_over_targets(loss: str) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="tanh")])
    x, y = inputs().astype("float32"), RNG.choice([-1.0, 1.0], (7, 2))
    what = {"loss": loss, "output": "tanh"}
    check_gradients(model, x, y, losses.get(loss, of_classes=False), what)


def check_gradients(
    model: keras.Model, x: np.ndarray, y: np.ndarray, loss: keras.losses.Loss, what: dict
) -> None:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        variables = [weight.value for weight in model.weights]
        tape.watch(variables)
        value = loss(y, model(x))
    assert float(value) == pytest.approx(by_hand.loss(model.get_weights(), x, y, **what), rel=1e-5)
    theirs = tape.gradient(value, variables, unconnected_gradients="zero")
    ours = by_hand.gradients(model.get_weights(), x, y, **what)
    for gradient, expected in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
