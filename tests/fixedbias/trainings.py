"""Small models, their data, and what it means that `fit_compiled` gives what `fit` gives."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from fixedbias.layers import FixedBiasDense
from fixedbias.training import fit_compiled

EXAMPLES, BATCH = 16, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(EXAMPLES, 6)).astype("float32")
Y = RNG.normal(size=(EXAMPLES, 2)).astype("float32")
LABELS = RNG.integers(0, 3, EXAMPLES)
WEIGHTS = RNG.uniform(size=EXAMPLES).astype("float32")
BIAS = [-0.5, 0.0, 0.5, 1.0]


def sequential(*stack: keras.layers.Layer, **compile_args: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((6,)), *stack])
    model.compile(**{"optimizer": "sgd", "loss": "mse"} | compile_args)
    return model


def small(**compile_args: Any) -> keras.Model:
    return sequential(layers.Dense(2), **compile_args)


def regression(**compile_args: Any) -> keras.Model:
    return sequential(FixedBiasDense(4, BIAS), layers.Dense(2), **compile_args)


def classifier(loss: str = "sparse_categorical_crossentropy") -> keras.Model:
    return sequential(layers.Dense(3, "softmax"), loss=loss, weighted_metrics=["accuracy"])


def check_equal(
    make: Callable[[], keras.Model], *data: Any, tolerance: float = 1e-5, **fit: Any
) -> keras.Model:
    """Trains two models alike, with `fit` and with `fit_compiled`: all must be equal.

    Compared are the history, the weights and the state of optimizer and metrics. Float32 sums
    in another order, hence the tolerance: some 100 roundings.
    """
    fit = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0} | fit
    models, histories = [], []
    for train in (keras.Model.fit, fit_compiled):
        keras.utils.set_random_seed(1)
        models.append(make())
        histories.append(train(models[-1], *data, **fit))
    theirs, ours = histories
    assert (ours.epoch, ours.params) == (theirs.epoch, theirs.params)
    assert sorted(ours.history) == sorted(theirs.history)
    for name, values in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], values, rtol=tolerance, err_msg=name)
    for kind in ("variables", "optimizer", "metrics_variables"):
        theirs, ours = (getattr(model, kind) or [] for model in models)
        if kind == "optimizer":
            theirs, ours = (getattr(optimizer, "variables", []) for optimizer in (theirs, ours))
        for expected, found in zip(theirs, ours, strict=True):
            np.testing.assert_allclose(
                np.asarray(found),
                np.asarray(expected),
                rtol=tolerance,
                atol=tolerance,
                err_msg=f"{kind} {found.path}",
            )
    return models[1]


class Subclassed(keras.Model):
    """Built by its first batch; its `call` does not take `training`."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def learn(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean((self(x) - y) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return loss
