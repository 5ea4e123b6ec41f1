"""`fit_compiled` gives what `fit` gives, whatever the batches, data and weights."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import layers, ops

from fixedbias.layers import FixedBiasDense
from tests.fixedbias.trainings import (
    BIAS,
    EXAMPLES,
    LABELS,
    WEIGHTS,
    X,
    Y,
    check_equal,
    classifier,
    sequential,
    small,
)

slow = pytest.mark.slow


@pytest.mark.parametrize(
    "batch_size",
    [
        7,  # and a last batch of 2
        20,
        pytest.param(16, marks=slow),
        pytest.param(1, marks=slow),
        pytest.param(15, marks=slow),
        pytest.param(np.int64(5), marks=slow),
        pytest.param(None, marks=slow),  # 32, as in `fit`
    ],
)
def test_any_batch_size(batch_size: Any) -> None:
    check_equal(small, X, Y, batch_size=batch_size)


class Noise(layers.Layer):
    """Adds noise in inference too, as the sampling layer of a variational autoencoder does."""

    def __init__(self) -> None:
        super().__init__()
        self.seed_generator = keras.random.SeedGenerator(3)

    def call(self, x: Any) -> Any:
        return x + 0.1 * keras.random.normal(ops.shape(x), seed=self.seed_generator)


def noisy(*stack: keras.layers.Layer, **compile_args: Any) -> keras.Model:
    # XLA draws random numbers in a way of its own: they are those of `fit` compiled by XLA.
    random = layers.Dropout(0.5), layers.BatchNormalization(), Noise()
    return sequential(*stack, *random, layers.Dense(2), jit_compile=True, **compile_args)


def test_random_layers_and_batch_statistics() -> None:
    check_equal(noisy, X, Y)


def weighed_and_validated(make: Callable = sequential) -> None:
    def model() -> keras.Model:
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
        return make(
            FixedBiasDense(4, BIAS, kernel_regularizer="l2", activity_regularizer="l1"),
            layers.Dense(2),
            optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.1, clipnorm=0.5),
            metrics=["mae"],
            weighted_metrics=["mse"],
        )

    check_equal(
        model,
        X,
        Y,
        initial_epoch=1,
        epochs=4,
        sample_weight=WEIGHTS,
        validation_data=(X[:8], Y[:8], WEIGHTS[:8]),
        validation_freq=[2, 4],
        validation_batch_size=4,
    )


def test_sample_weights_schedule_weight_decay_regularizers_and_validation() -> None:
    weighed_and_validated()


@slow
def test_all_of_these_at_once() -> None:
    weighed_and_validated(noisy)


@pytest.mark.parametrize("policy", ["mixed_float16"], indirect=True)
def test_loss_scaling_and_a_step_that_overflows(policy: str) -> None:
    def make() -> keras.Model:
        return sequential(
            FixedBiasDense(2, 0.5, None),
            optimizer=keras.optimizers.LossScaleOptimizer(
                keras.optimizers.SGD(0.01), initial_scale=2.0**6, dynamic_growth_steps=2
            ),
        )

    # Half the rounding of float16 in the weights' gradients, of size 1.
    model = check_equal(make, 20 * X, 20 * Y, tolerance=1e-3, epochs=5)
    assert 1 < int(model.optimizer.inner_optimizer.iterations) < 10
    np.testing.assert_array_equal(model.layers[0].bias, [0.5, 0.5])


def two_headed(inputs: Any = dict) -> keras.Model:
    a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
    hidden = layers.Concatenate()([a, b])
    p, q = layers.Dense(2, name="p")(hidden), layers.Dense(1, name="q")(hidden)
    if inputs is dict:
        model = keras.Model({"a": a, "b": b}, {"p": p, "q": q})
        model.compile("sgd", {"p": "mse", "q": "mae"}, {"p": 1.0, "q": 0.5}, {"p": ["mae"]})
    else:
        model = keras.Model([a, b], [p, q])
        model.compile("sgd", ["mse", "mae"])
    return model


def test_dicts_of_inputs_and_outputs() -> None:
    # A last batch of 7: Keras takes the mean of every output's loss over batches, not examples.
    a, b = X[:15], Y[:15]
    check_equal(two_headed, {"a": a, "b": b}, {"p": b, "q": b[:, :1]})


@slow
@pytest.mark.parametrize(
    "sample_weight", [WEIGHTS, {"p": WEIGHTS, "q": WEIGHTS**2}], ids=["shared", "each"]
)
def test_weights_of_several_outputs(sample_weight: Any) -> None:
    y = {"p": Y, "q": Y[:, :1]}
    check_equal(two_headed, {"a": X, "b": Y}, y, sample_weight=sample_weight)


@slow
@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_of_inputs_and_outputs(kind: type) -> None:
    check_equal(lambda: two_headed(list), kind([X, Y]), kind([Y, Y[:, :1]]))


@slow
def test_an_output_without_targets() -> None:
    def make() -> keras.Model:
        a = keras.Input((6,))
        b = layers.Dense(2)(a)
        model = keras.Model(a, [b, layers.ReLU()(b)])
        model.compile("sgd", ["mse", None])
        return model

    check_equal(make, X, [Y, None])


def test_no_targets() -> None:
    class Penalty(layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(ops.mean(x**2))
            return x

    check_equal(lambda: sequential(layers.Dense(2), Penalty(), loss=None), X)


def test_class_weights_weigh_the_training_alone() -> None:
    weights = {0: 1.0, 2: 3.0}  # 1 by default
    check_equal(classifier, X, LABELS, class_weight=weights, validation_split=0.5)


@slow
@pytest.mark.parametrize(
    "labels",
    [LABELS[:, None], LABELS.astype("float32"), np.eye(3)[LABELS], tf.constant(LABELS)],
    ids=["column", "floats", "one-hot", "tensor"],
)
def test_class_weights_of(labels: Any) -> None:
    one_hot = labels.shape[1:] == (3,)
    loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
    check_equal(lambda: classifier(loss), X, labels, class_weight={0: 1.0, 2: 3.0})


@slow
def test_class_weights_of_negative_labels() -> None:
    y = np.sign(Y[:, :1])
    check_equal(lambda: sequential(layers.Dense(1)), X, y, class_weight={-1: 5.0})


@slow
def test_data_frames() -> None:
    backwards = np.arange(EXAMPLES)[::-1]
    x = pd.DataFrame(X.astype("float64"), index=backwards)
    check_equal(small, x, pd.DataFrame(Y), validation_split=0.3)
    y = pd.Series(Y[:, 0], index=backwards)
    check_equal(small, x, y, validation_split=0.3)  # y as a column, for both outputs


def test_no_epochs() -> None:
    model = check_equal(small, X, Y, epochs=0)
    assert model.history.history == {}
