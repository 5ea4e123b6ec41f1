"""An epoch of training is one XLA program with one loop, and data stays where it is."""

import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fixedbias.epochs import EpochProgram, build, device_data


def program(examples: int) -> tuple[keras.Model, EpochProgram, tuple]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(examples, 6)), rng.integers(0, 3, examples)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = device_data((x, y))
    build(model, data)
    return model, EpochProgram(model), data


def test_the_loop_is_inside_and_its_trip_count_is_known() -> None:
    _, epoch, data = program(22)
    get_program = epoch._train.experimental_get_compiler_ir(data, tf.range(22), 4)
    text = get_program(stage="optimized_hlo")
    assert re.findall(r'known_trip_count":\{"n":"(\d+)"', text) == ["5"]
    # Called with all the examples; nothing in it goes back to the host.
    assert "f32[22,6]" in text
    assert not re.findall(r"infeed|outfeed|host|send\(|recv\(", text)


def test_building_trains_nothing_and_draws_nothing() -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)])
    model.compile("adam", "mse", metrics=["mae"])
    before = [np.asarray(value) for value in model.variables]
    build(model, (tf.zeros((5, 6)), tf.zeros((5, 3))))
    for old, new in zip(before, model.variables[: len(before)], strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.optimizer.built
    assert int(model.optimizer.iterations) == 0
    assert model.get_metrics_result() == {"loss": 0, "mae": 0}


def test_order_chooses_the_examples() -> None:
    model, epoch, data = program(22)
    few = tf.constant([3, 1, 4, 1, 5])
    epoch.train(data, few, 2)
    assert int(model.optimizer.iterations) == 3


def test_a_program_is_looked_up_by_all_that_it_depends_on() -> None:
    """Data and orders of other lengths, other batches, and a return to the first."""
    model, epoch, data = program(22)
    longer = device_data((np.ones((30, 6)), np.zeros(30)))
    counts = [int(model.optimizer.iterations)]
    for given, examples, batch in [
        (data, 22, 4),
        (data, 20, 4),
        (data, 20, 5),
        (longer, 30, 4),
        (data, 22, 4),
    ]:
        epoch.train(given, tf.range(examples), batch)
        counts.append(int(model.optimizer.iterations))
    assert np.diff(counts).tolist() == [6, 5, 4, 8, 6]
    assert epoch._train.experimental_get_tracing_count() == 4
    assert float(epoch.evaluate(data, 4)["loss"]) == pytest.approx(
        model.evaluate(*data, verbose=0), rel=1e-5
    )


def test_the_same_arrays_in_another_nest_are_another_program() -> None:
    class Sum(keras.Model):
        def call(self, x: Any) -> Any:
            return sum(keras.tree.flatten(x))

    model = Sum()
    model.compile(loss="mse")
    x, y = tf.ones((4, 1)), tf.ones((4, 1))
    named, listed = ({"a": x, "b": x}, y), ([x, x], y)
    epoch = EpochProgram(model)
    assert [float(epoch.evaluate(data, 2)["loss"]) for data in (named, listed, named)] == [1] * 3


def test_an_epoch_can_be_run_eagerly_to_look_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model, epoch, data = program(8)
    seen: list[bool] = []
    monkeypatch.setattr(
        model, "train_step", lambda batch: seen.append(tf.executing_eagerly()) or {}, raising=True
    )
    tf.config.run_functions_eagerly(True)
    try:
        epoch.train(data, tf.range(8), 4)
    finally:
        tf.config.run_functions_eagerly(False)
    assert seen
    assert all(seen)


def test_every_epoch_begins_with_fresh_metrics() -> None:
    model, epoch, data = program(8)
    model.optimizer.learning_rate = 0.0
    losses = [float(epoch.train(data, tf.range(i, i + 4), 4)["loss"]) for i in (0, 4)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    for half, loss in zip((slice(4), slice(4, 8)), losses, strict=True):
        part = keras.tree.map_structure(lambda array, rows=half: array[rows], data)
        assert float(epoch.evaluate(part, 4)["loss"]) == pytest.approx(loss, rel=1e-5)


def test_device_data_casts_floats_and_nothing_else() -> None:
    data = {"a": np.ones(2), "b": np.ones(2, "float16"), "c": np.ones(2, "uint8"), "d": None}
    found = device_data((data, [True, False]))[0]
    assert found["a"].dtype == found["b"].dtype == "float32"
    assert found["c"].dtype == "uint8"
    assert found["d"] is None
    keras.config.set_floatx("float64")
    assert device_data(np.ones(2, "float32")).dtype == "float64"


@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_device_data_leaves_tensors_where_they_are(dtype: str) -> None:
    tensor = tf.ones((2, 3), dtype)
    assert device_data(tensor) is tensor
