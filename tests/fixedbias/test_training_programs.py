"""`fit_compiled` runs an epoch as one program, with the examples in an order of its own."""

import gc
import weakref
from typing import Any

import keras
import numpy as np
import pytest
from keras import callbacks, ops

from fixedbias.training import epoch_program, fit_compiled
from tests.fixedbias.trainings import BATCH, EXAMPLES, Subclassed, X, Y, regression, small

slow = pytest.mark.slow


# --- the order of the examples --------------------------------------------------------------


class Witness(keras.Model):
    """Counts how often it trains on every example, and remembers when it did so last."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = self.add_weight(shape=(EXAMPLES,), initializer="zeros", trainable=False)
        self.when = self.add_weight(shape=(EXAMPLES,), initializer="zeros", trainable=False)
        self.step = self.add_weight(shape=(), initializer="zeros", trainable=False)
        self.compile(loss="mse")

    def call(self, x: Any) -> Any:
        return x

    def train_step(self, data: Any) -> dict:
        here = ops.sum(ops.one_hot(data[0], EXAMPLES), axis=0)
        self.seen.assign_add(here)
        self.when.assign(ops.where(here > 0, self.step, self.when))
        self.step.assign_add(1.0)
        return {"steps": self.step.value}


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own() -> None:
    model, orders = Witness(), []
    note = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: orders.append(model.when.numpy() - 3 * epoch)
    )
    x = np.arange(EXAMPLES)
    history = fit_compiled(model, x, x, 6, epochs=3, callbacks=[note], verbose=0)
    assert history.history["steps"] == [3, 6, 9]
    np.testing.assert_array_equal(model.seen, np.full(EXAMPLES, 3))
    for order in orders:
        assert sorted(order) == [0] * 6 + [1] * 6 + [2] * 4
    assert len({order.tobytes() for order in orders}) == 3

    def order(**fit: Any) -> list:
        fit_compiled(model, x, x, 6, epochs=1, verbose=0, **fit)
        return (model.when.numpy() - model.step.numpy()).tolist()

    assert order(seed=1) == order(seed=1) != order(seed=2)
    assert order() != order()
    keras.utils.set_random_seed(5)
    first = order()
    keras.utils.set_random_seed(5)
    assert first == order()
    assert order(shuffle=False) == [-3] * 6 + [-2] * 6 + [-1] * 4


# --- one program ----------------------------------------------------------------------------


def traces(model: keras.Model) -> tuple[int, int]:
    program = epoch_program(model, None)
    functions = program._train, program._evaluate
    return tuple(function.experimental_get_tracing_count() for function in functions)


def test_an_epoch_is_one_xla_program_traced_once_however_many_epochs() -> None:
    model = regression()
    fit = {"batch_size": BATCH, "validation_split": 0.5, "verbose": 0}
    fit_compiled(model, X, Y, epochs=5, **fit)
    program = epoch_program(model, None)
    assert traces(model) == (1, 1)
    for function in (program._train, program._evaluate):
        (concrete,) = function._list_all_concrete_functions()
        assert concrete.function_def.attr["_XlaMustCompile"].b
    fit_compiled(model, X, Y, epochs=2, **fit)
    assert epoch_program(model, None) is program
    assert traces(model) == (1, 1)


@slow
def test_compile_makes_a_new_program() -> None:
    model = small()
    program = epoch_program(model, (X, Y))
    assert epoch_program(model, (X, Y)) is program
    assert epoch_program(model, (X, Y), jit_compile=False) is not program
    program = epoch_program(model, (X, Y))
    model.compile(model.optimizer, "mae")
    assert epoch_program(model, (X, Y)) is not program
    history = fit_compiled(model, X, Y, EXAMPLES, verbose=0)
    model.set_weights([np.zeros((6, 2)), np.zeros(2)])
    history = fit_compiled(model, X, Y, EXAMPLES, verbose=0)
    assert history.history["loss"][0] == pytest.approx(np.abs(Y).mean(), rel=1e-5)


def test_without_xla() -> None:
    models = []
    for jit_compile in (True, False):
        keras.utils.set_random_seed(1)
        models.append(small())
        fit_compiled(models[-1], X, Y, BATCH, jit_compile=jit_compile, shuffle=False, verbose=0)
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    (concrete,) = epoch_program(models[1], None, False)._train._list_all_concrete_functions()
    assert not concrete.function_def.attr["_XlaMustCompile"].b


def test_many_models_set_off_no_retracing_warning(tensorflow_warnings: list[str]) -> None:
    for _ in range(6):
        fit_compiled(small(), X[:8], Y[:8], BATCH, verbose=0)
    assert tensorflow_warnings == []


def test_a_trained_model_can_be_collected() -> None:
    class Own(Subclassed):
        def distance(self, y: Any, y_pred: Any) -> Any:
            return ops.mean((y - y_pred) ** 2, axis=-1)

    model = Own()
    model.compile("adam", model.distance, metrics=[model.distance])
    fit_compiled(model, X, Y, BATCH, validation_split=0.5, verbose=0)
    dead = weakref.ref(model)
    del model
    gc.collect()
    assert dead() is None


def test_an_interrupted_training_can_go_on() -> None:
    def interrupt(epoch: int, logs: dict) -> None:
        if epoch == 1:
            raise KeyboardInterrupt

    model = small()
    stop = callbacks.LambdaCallback(on_epoch_end=interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit_compiled(model, X, Y, BATCH, epochs=5, callbacks=[stop], verbose=0)
    assert int(model.optimizer.iterations) == 4
    fit_compiled(model, X, Y, BATCH, verbose=0)
    model.fit(X, Y, batch_size=BATCH, verbose=0)
    assert int(model.optimizer.iterations) == 8
