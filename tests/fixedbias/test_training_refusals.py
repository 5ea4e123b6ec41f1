"""What `fit_compiled` cannot do it refuses, and says what it was given."""

from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf
from keras import layers

from fixedbias.training import fit_compiled
from tests.fixedbias.trainings import WEIGHTS, X, Y, small

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, r"`batch_size` must be .* Received: batch_size=0"),
        ({"batch_size": 2.0}, r"`batch_size` must be .* Received: batch_size=2.0"),
        ({"batch_size": True}, r"`batch_size` must be .* Received: batch_size=True"),
        ({"validation_batch_size": 0}, r"`validation_batch_size` must be .* Received: "),
        ({"shuffle": "batch"}, r"`shuffle` must be True or False. Received: shuffle='batch'"),
        (
            {"validation_split": 1.0},
            r"examples on both sides. Received: validation_split=1.0 of 16",
        ),
        ({"validation_split": 0.01, "x": X[:1], "y": Y[:1]}, r"Received: validation_split=0.01"),
        ({"validation_split": -0.5}, r"examples on both sides. Received: validation_split=-0.5"),
        ({"y": Y[:5]}, r"the same number of examples, .* Received: 16 and 5"),
        ({"sample_weight": WEIGHTS[:5]}, r"the same number of examples, .* 16 and 16 and 5"),
        ({"validation_data": (X, Y[:5])}, r"the same number of examples, .* Received: 16 and 5"),
        ({"x": X[:0], "y": Y[:0]}, r"at least one. Received: 0 and 0"),
        ({"x": None, "y": None}, r"at least one. Received: no data"),
        ({"class_weight": {0: 1}, "sample_weight": WEIGHTS}, r"Received: both"),
        ({"class_weight": {0: 1}, "y": [Y, Y]}, r"needs y to be one array. Received: y of list"),
        ({"class_weight": {0: 1}, "y": None}, r"needs y to be one array. Received: y of NoneT"),
        ({"x": 3.0}, r"takes arrays or tensors .* Received: x of float, with float"),
        ({"x": X.tolist()}, r"takes arrays or tensors .* Received: x of list, with float"),
        ({"x": iter([X])}, r"Received: x of list_iterator"),
        ({"x": tf.sparse.from_dense(X)}, r"Received: x of SparseTensor"),
        ({"x": tf.ragged.constant([[1], [1, 2]])}, r"Received: x of RaggedTensor"),
        ({"x": tf.data.Dataset.from_tensors((X, Y)), "y": None}, r"use `model.fit`. Received: x "),
        ({"validation_data": tf.data.Dataset.from_tensors((X, Y))}, r"Received: x of _Tensor"),
    ],
)
def test_unusable_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_compiled(small(), **{"x": X, "y": Y} | arguments)


def test_unusable_models_are_refused() -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="must be compiled first"):
        fit_compiled(model, X, Y)
    model.compile(run_eagerly=True)
    with pytest.raises(
        ValueError, match=r"cannot run a model eagerly.* Received: run_eagerly=True"
    ):
        fit_compiled(model, X, Y)


def test_models_of_several_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(keras.Model, "distribute_strategy", strategy)
    with pytest.raises(ValueError, match=r"use `fit_replicated`\. Received: a model of 2 replicas"):
        fit_compiled(small(), X, Y)
