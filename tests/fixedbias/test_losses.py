"""The losses: Keras's where it has them, and that classes come as indices to all."""

import keras
import numpy as np
import pytest

from fixedbias import losses

P = np.random.default_rng(0).dirichlet(np.ones(3), 5).astype("float32")
Y = np.array([0, 2, 1, 1, 0])


def test_what_keras_has_is_kerass() -> None:
    kinds = {
        ("cross-entropy", True): keras.losses.SparseCategoricalCrossentropy,
        ("hinge", False): keras.losses.CategoricalHinge,
        ("binary-hinge", False): keras.losses.Hinge,
        ("huber", False): keras.losses.Huber,
    }
    for (name, of_classes), kind in kinds.items():
        assert type(losses.get(name, of_classes=of_classes)) is kind


def test_the_sum_of_squares_is_half_the_outputs_times_the_mean() -> None:
    y = np.eye(3)[Y]
    ours = losses.SumOfSquares()(y, P)
    assert float(ours) == pytest.approx(0.5 * ((P - y) ** 2).sum(1).mean())
    assert float(ours) == pytest.approx(1.5 * float(keras.losses.MeanSquaredError()(y, P)))


@pytest.mark.parametrize("name", ["sum-of-squares", "hinge", "huber"])
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_class_indices_do_as_one_hot_targets_do(name: str, shape: tuple[int, ...]) -> None:
    indices, one_hot = losses.get(name), losses.get(name, of_classes=False)
    assert float(indices(Y.reshape(shape), P)) == pytest.approx(float(one_hot(np.eye(3)[Y], P)))


def test_sample_weights_weigh() -> None:
    loss, weights = losses.get("hinge"), np.array([1.0, 0, 0, 0, 0])
    assert float(loss(Y, P, weights)) == pytest.approx(float(loss(Y[:1], P[:1])) / 5)


@pytest.mark.parametrize("name", ["cross-entropy", "sum-of-squares", "hinge", "huber"])
def test_a_loss_survives_its_config(name: str) -> None:
    loss = losses.get(name)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(copy) is type(loss)
    assert float(copy(Y, P)) == float(loss(Y, P))


@pytest.mark.parametrize(
    ("name", "of_classes"), [("log", True), ("binary-hinge", True), ("cross-entropy", False)]
)
def test_a_loss_that_there_is_not_is_refused(name: str, of_classes: bool) -> None:
    with pytest.raises(ValueError, match=f"must be one of .*huber.*Received: name='{name}'"):
        losses.get(name, of_classes=of_classes)
