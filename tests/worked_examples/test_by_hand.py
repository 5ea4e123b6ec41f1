"""By hand: a network of nine numbers and its output, and what such a network can tell apart."""

import keras
import numpy as np
import pytest

from fixedbias import FixedBiasDense, by_hand, fit_compiled, losses

HIDDEN_KERNEL = [
    [-1.08239257, 0.32482854, 0.95010394, 0.00501535, -0.47380614],
    [-0.56682748, 1.15749049, 0.91618514, 0.37518814, -0.67639047],
]
HIDDEN_BIAS = [-0.18290569, 0.21453567, 0.01353107, 0.27740911, 0.09604219]
OUTPUT_KERNEL = [[-0.8775745], [1.09351909], [0.21981503], [1.31380796], [-0.10301871]]
OUTPUT_BIAS = [0.27410847]
PUBLISHED = [np.array(w) for w in (HIDDEN_KERNEL, HIDDEN_BIAS, OUTPUT_KERNEL, OUTPUT_BIAS)]
TANH = {"activation": "tanh", "output": "tanh"}


def test_the_published_2_5_1_network_gives_its_output_by_hand() -> None:
    out = by_hand.predict(PUBLISHED, np.array([[0.3, 0.1]]), **TANH)
    assert out.shape == (1, 1)
    assert out[0, 0] == pytest.approx(0.93015909, abs=1e-7)


def test_keras_gives_the_same_from_the_same_weights() -> None:
    model = keras.Sequential(
        [
            keras.Input((2,)),
            FixedBiasDense(5, HIDDEN_BIAS, "tanh"),
            keras.layers.Dense(1, activation="tanh"),
        ]
    )
    model.set_weights(PUBLISHED)
    out = model(np.array([[0.3, 0.1]], "float32"))
    assert float(out[0, 0]) == pytest.approx(0.93015909, abs=1e-6)


def half_plane(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of the unit square, and 1 where x1 + x2 > 0.5, else -1."""
    x = np.random.default_rng(seed).random((n, 2))
    return x, np.where(x.sum(1, keepdims=True) > 0.5, 1.0, -1.0)


def right(p: np.ndarray, y: np.ndarray) -> float:
    return float((np.sign(p) == y).mean())


def test_a_network_made_right_by_set_weights_tells_the_half_planes_apart() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="tanh")])
    model.set_weights([np.array([[1.0], [1.0]]), np.array([-0.5])])
    x, y = half_plane(10_000, 0)
    x = x[np.abs(x.sum(1) - 0.5) > 1e-6]  # float32 cannot tell closer points from the border
    y = np.where(x.sum(1, keepdims=True) > 0.5, 1.0, -1.0)
    assert right(model(x).numpy(), y) == 1
    assert right(by_hand.predict(model.get_weights(), x, output="tanh"), y) == 1


def test_the_network_trained_with_the_hinge_loss_tells_most_of_them_apart() -> None:
    """The published 85 % is what always saying "above" gives here, 7/8; so more is asked for."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(1, activation="tanh"),
        ]
    )
    hinge = losses.get("binary-hinge", of_classes=False)
    model.compile(keras.optimizers.Adam(0.01), hinge)
    x, y = half_plane(2000, 0)
    # Rate and seed are chosen to leave the plateau of always "above". With Adam at 0.001 and SGD at
    # 0.01, three seeds each, none had left it after 60 epochs; with Adam at 0.01 all three had.
    fit_compiled(model, x, y, epochs=40, verbose=0, seed=0)
    test_x, test_y = half_plane(2000, 1)
    share = right(by_hand.predict(model.get_weights(), test_x, **TANH), test_y)
    assert (test_y > 0).mean() == pytest.approx(7 / 8, abs=0.02)
    assert share >= 0.95
