"""`fit_compiled` gives what `fit` gives, whatever the model, its optimizer and its own steps."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from fixedbias.layers import FixedBiasDense
from fixedbias.networks import mlp
from fixedbias.training import epoch_program, fit_compiled
from tests.fixedbias.trainings import (
    BATCH,
    BIAS,
    EXAMPLES,
    LABELS,
    RNG,
    WEIGHTS,
    Subclassed,
    X,
    Y,
    check_equal,
    regression,
    sequential,
)

slow = pytest.mark.slow


@slow
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5),
        lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
        lambda: keras.optimizers.Lion(0.01, weight_decay=0.1),
    ],
    ids=["momentum", "moving average", "gradient accumulation", "lion"],
)
def test_optimizers(optimizer: Callable) -> None:
    model = check_equal(lambda: regression(optimizer=optimizer()), X, Y)
    np.testing.assert_array_equal(model.layers[0].bias, BIAS)


@slow
def test_metrics() -> None:
    def make() -> keras.Model:
        metrics = ["accuracy", "auc", keras.metrics.F1Score(threshold=0.5), "precision"]
        head = layers.Dense(1, "sigmoid")
        return sequential(head, loss="binary_crossentropy", metrics=metrics)

    check_equal(make, X, LABELS[:, None] > 1, tolerance=1e-4, validation_split=0.3)


@slow
def test_convolutions() -> None:
    def make() -> keras.Model:
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(3, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.BatchNormalization(),
                layers.Flatten(),
                layers.Dense(2),
            ]
        )
        model.compile("adam", "mse")
        return model

    check_equal(make, RNG.normal(size=(EXAMPLES, 8, 8, 1)), Y, tolerance=1e-4)


@slow
def test_masks_embeddings_and_recurrence() -> None:
    def make() -> keras.Model:
        recurrent = [layers.Embedding(9, 4, mask_zero=True), layers.LSTM(3), layers.Dense(2)]
        model = keras.Sequential([keras.Input((7,)), *recurrent])
        model.compile("adam", "mse")
        return model

    check_equal(make, RNG.integers(0, 9, size=(EXAMPLES, 7)), Y, tolerance=1e-4)


class OwnLogs(Subclassed):
    """Steps that report something else than the model's metrics."""

    def train_step(self, data: Any) -> dict:
        loss = self.learn(data)
        return {"mine": loss, "nested": {"double": 2 * loss}}

    def test_step(self, data: Any) -> dict:
        return {"theirs": ops.mean(ops.abs(self(data[0]) - data[1]))}


class OwnMetrics(Subclassed):
    """The usual step of the Keras guides: a tracker of its own, reported by name."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = keras.metrics.Mean("mine")

    @property
    def metrics(self) -> list:
        return [self.tracker]

    def train_step(self, data: Any) -> dict:
        self.tracker.update_state(self.learn(data))
        return {"mine": self.tracker.result()}


def test_compile_makes_a_new_program_of_a_model_with_metrics_of_its_own() -> None:
    model = OwnMetrics()
    model.compile("sgd", "mse")
    program = epoch_program(model, (X, Y))
    assert epoch_program(model, (X, Y)) is program
    model.compile(model.optimizer, "mae")
    assert epoch_program(model, (X, Y)) is not program


class MoreMetrics(Subclassed):
    """Keras's step, with one figure more."""

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict:
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**found, "largest": ops.max(y_pred)}


@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        (OwnLogs, 15),
        pytest.param(OwnLogs, 16, marks=slow),
        (OwnMetrics, 16),
        pytest.param(OwnMetrics, 15, marks=slow),
        pytest.param(MoreMetrics, 15, marks=slow),
        pytest.param(Subclassed, 15, marks=slow),
    ],
)
def test_subclassed_model(kind: type[keras.Model], examples: int) -> None:
    def make() -> keras.Model:
        model = kind()
        model.compile("sgd", "mse")
        return model

    validation = (X[:8], Y[:8]) if kind is OwnLogs else None
    check_equal(make, X[:examples], Y[:examples], validation_data=validation)


@pytest.mark.parametrize(
    ("x", "y", "sample_weight"),
    [
        ([X, Y], None, None),
        ({"a": X, "b": LABELS}, None, None),
        (X.astype("float64"), LABELS.astype("uint8"), None),
        ([X, {"a": [X]}], (Y, Y), None),
        (X, [Y, {"a": Y}], WEIGHTS),
        (X, [Y, None], None),
    ],
)
@pytest.mark.parametrize("batch_size", [8, pytest.param(7, marks=slow)])  # then, a last one of 2
def test_a_step_is_given_what_fit_gives_it(
    x: Any, y: Any, sample_weight: Any, batch_size: int
) -> None:
    given: list = []

    class Look(keras.Model):
        def call(self, x: Any) -> Any:
            return x

        def train_step(self, data: Any) -> dict:
            given[-1] = keras.tree.map_structure(
                lambda t: t if t is None else (t.dtype, tuple(t.shape)), data
            )
            return {"loss": tf.zeros(())}

    for train in (keras.Model.fit, fit_compiled):
        model = Look()
        model.compile()
        given.append(None)
        train(model, x, y, batch_size, sample_weight=sample_weight, verbose=0)
    assert given[0] == given[1]


@slow
def test_model_with_two_optimizers_and_bare_inputs() -> None:
    class TwoOptimizers(Subclassed):
        def compile(self, first: Any, second: Any) -> None:
            super().compile(optimizer=None, jit_compile=True)
            self.first, self.second = first, second

        def train_step(self, x: tf.Tensor) -> dict:
            assert tf.is_tensor(x)  # not `(x,)`
            noise = keras.random.normal(tf.shape(x), seed=3)
            with tf.GradientTape() as tape:
                loss = ops.mean(self(x + noise) ** 2)
            kernel, bias = tape.gradient(loss, self.trainable_weights)
            self.first.apply([kernel], [self.dense.kernel])
            self.second.apply([bias], [self.dense.bias])
            return {"loss": loss}

    def make() -> keras.Model:
        model = TwoOptimizers()
        model.compile(keras.optimizers.SGD(0.1), keras.optimizers.Adam(0.1))
        return model

    check_equal(make, X)


@pytest.mark.parametrize(
    "policy",
    ["float32", *(pytest.param(p, marks=slow) for p in ("mixed_float16", "mixed_bfloat16"))],
    indirect=True,
)
def test_a_fixed_bias_trains_as_a_frozen_one(policy: str) -> None:
    class FrozenDense(layers.Dense):
        def __init__(self, units: int, bias: Any, **kwargs: Any) -> None:
            super().__init__(units, bias_initializer=keras.initializers.Constant(bias), **kwargs)

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            self.bias.trainable = False

    weights = []
    for hidden in (FixedBiasDense, FrozenDense):
        model = mlp(2, 4, [BIAS], input_shape=(6,), classes=3, hidden=hidden, seed=0)
        model.compile("sgd", "sparse_categorical_crossentropy")
        fit_compiled(model, X, LABELS, BATCH, epochs=2, seed=0, verbose=0)
        weights.append(model.get_weights())
    # The same program but for the names, hence the same bits.
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
