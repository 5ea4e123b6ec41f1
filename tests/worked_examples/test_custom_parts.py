"""Custom parts: activations and losses beside those of Keras, and layer normalisation."""

import keras
import numpy as np
import pytest
from keras import ops

from fixedbias import activations, losses

X = np.array([-3.0, -1.0, 0.0, 0.5, 2.0, 3.0], "float32")


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swish", X * sigmoid(X)),
        ("mish", X * np.tanh(np.log(1 + np.exp(X)))),
        ("elish", np.where(X >= 0, X, np.exp(X) - 1) * sigmoid(X)),
        ("hard_sigmoid", np.maximum(0, np.minimum(1, 0.2 * X + 0.5))),
        ("step", [0, 0, 0, 1, 1, 1]),
    ],
)
def test_activation_is_its_formula(name: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(activations.get(name)(ops.array(X)), expected, atol=1e-6)


def test_swish_and_mish_are_kerass_own() -> None:
    assert activations.get("swish") is keras.activations.swish
    assert activations.get("mish") is keras.activations.mish


def test_the_hard_sigmoid_of_keras_3_has_another_slope() -> None:
    ours = activations.get("hard_sigmoid")(ops.array([1.0]))
    theirs = keras.activations.hard_sigmoid(ops.array([1.0]))
    assert float(ours[0]) == pytest.approx(0.7)
    assert float(theirs[0]) == pytest.approx(2 / 3)


def test_losses_of_one_output_by_their_formulae() -> None:
    y, p = np.array([[0.0, 1.0, 0.0]]), np.array([[0.25, 0.5, 2.5]])
    values = {
        "sum-of-squares": (0.25**2 + 0.5**2 + 2.5**2) / 2,
        "hinge": 1 + 2.5 - 0.5,
        "huber": (0.25**2 / 2 + 0.5**2 / 2 + (2.5 - 0.5)) / 3,
    }
    for name, expected in values.items():
        assert float(losses.get(name, of_classes=False)(y, p)) == pytest.approx(expected)
        assert float(losses.get(name)(np.array([1]), p)) == pytest.approx(expected)
    hinge = losses.get("binary-hinge", of_classes=False)
    assert float(hinge(np.array([[1.0, -1.0]]), np.array([[0.25, 0.5]]))) == (0.75 + 1.5) / 2


def test_sparse_cross_entropy_is_the_log_of_the_right_classs_probability() -> None:
    p = np.array([[0.0182, 0.2452, 0.7366]])
    assert float(losses.get("cross-entropy")(np.array([1]), p)) == pytest.approx(
        -np.log(0.2452), rel=1e-4
    )
