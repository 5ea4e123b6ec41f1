"""`fit_compiled` gives what `fit` gives, whatever the model, and refuses what it cannot do."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import callbacks, layers, ops
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fixedbias.layers import FixedBiasDense
from fixedbias.networks import mlp
from fixedbias.training import epoch_program, fit_compiled

slow = pytest.mark.slow

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
    for expected, found in zip(models[0].variables, models[1].variables, strict=True):
        np.testing.assert_allclose(
            np.asarray(found),
            np.asarray(expected),
            rtol=tolerance,
            atol=tolerance,
            err_msg=found.path,
        )
    return models[1]


# --- what fit gives: batches, data, weights -------------------------------------------------


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


# --- what fit gives: models and their own steps ---------------------------------------------


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


# --- callbacks ------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[tuple[str, str], list[tuple[int, float]]]:
    found = {}
    for writer in ("train", "validation"):
        events = EventAccumulator(str(folder / writer))
        events.Reload()
        for tag in events.Tags()["tensors"]:
            if tag != "keras":
                points = events.Tensors(tag)
                found[writer, tag] = [
                    (point.step, float(tf.make_ndarray(point.tensor_proto))) for point in points
                ]
    return found


# Keras calls `np.array` on HDF5 data sets, whose `__array__` has no `copy`.
@pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
def test_callbacks_that_act_at_epochs_do_what_they_do_in_fit(tmp_path: Path) -> None:
    folders = iter([tmp_path / "fit", tmp_path / "compiled"])

    def make() -> keras.Model:
        model, folder = small(optimizer=keras.optimizers.SGD(0.5)), next(folders)
        stack[:] = [
            callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True),
            callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            callbacks.ReduceLROnPlateau("loss", patience=0),
            callbacks.ModelCheckpoint(str(folder / "{epoch}.keras")),
            callbacks.CSVLogger(str(tmp_path / f"{folder.name}.csv")),
            callbacks.TensorBoard(folder),
        ]
        return model

    stack: list[callbacks.Callback] = []
    model = check_equal(make, X, Y, epochs=9, validation_split=0.5, callbacks=stack)
    # Else early stopping was not tested.
    assert 2 < len(model.history.epoch) < 9

    ours, theirs = tmp_path / "compiled", tmp_path / "fit"
    assert sorted(path.name for path in ours.glob("*.keras")) == sorted(
        path.name for path in theirs.glob("*.keras")
    )
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "compiled.csv"), pd.read_csv(tmp_path / "fit.csv"), rtol=1e-5
    )
    written, expected = scalars(ours), scalars(theirs)
    assert written.keys() == expected.keys()
    assert {("train", "epoch_loss"), ("validation", "epoch_loss")} <= written.keys()
    for tag, points in expected.items():
        np.testing.assert_allclose(written[tag], points, rtol=1e-5, err_msg=str(tag))


def test_a_callback_sees_plain_numbers_and_can_stop_the_training() -> None:
    seen: list[tuple[str, Any]] = []

    class Watch(callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            seen.append(("train begins", logs))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append((f"epoch {epoch}", logs))
            self.model.stop_training = epoch == 1

        def on_test_end(self, logs: Any = None) -> None:
            seen.append(("test ends", logs))

        def on_train_end(self, logs: Any = None) -> None:
            seen.append(("train ends", logs))

    model = small()
    history = fit_compiled(
        model, X, Y, BATCH, epochs=5, validation_split=0.5, callbacks=[Watch()], verbose=0
    )
    names = [name for name, _ in seen]
    assert names == ["train begins", "test ends", "epoch 0", "test ends", "epoch 1", "train ends"]
    logs = seen[-1][1]
    assert sorted(logs) == ["loss", "val_loss"]
    assert all(type(value) is float for value in logs.values())
    assert history.history["loss"][-1] == logs["loss"]
    assert history is model.history
    assert fit_compiled(model, X, Y, BATCH, epochs=2, verbose=0).epoch == [0, 1]


def test_a_callback_list_is_used_as_it_is() -> None:
    model = small()
    given = callbacks.CallbackList([callbacks.History()], model=model)
    history = fit_compiled(model, X, Y, BATCH, epochs=2, callbacks=given)
    assert history is given.callbacks[0]
    assert len(history.history["loss"]) == 2


def test_progress(capsys: pytest.CaptureFixture) -> None:
    model, held_out = small(), (X[:8], Y[:8])
    bar = ["Epoch 1/2", "2/2", "val_loss", "Epoch 2/2"]
    lines = ["Epoch 1/2", "2/2 - ", " - val_loss: ", "Epoch 2/2"]
    for verbose, printed in [(0, []), (1, bar), ("auto", bar), (2, lines)]:
        fit_compiled(model, X, Y, BATCH, 2, validation_data=held_out, verbose=verbose)
        output = capsys.readouterr().out
        assert bool(output) == bool(printed)
        for text in printed:
            assert text in output


def batch_callback(hook: str) -> callbacks.Callback:
    """A callback with one hook of its own."""
    own = {hook: lambda self, batch, logs=None: None}
    return type("Own", (callbacks.Callback,), own)()


class OwnCheckpoint(callbacks.ModelCheckpoint):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Does something."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: batch_callback("on_train_batch_begin"),
        lambda: batch_callback("on_train_batch_end"),
        lambda: batch_callback("on_test_batch_begin"),
        lambda: batch_callback("on_test_batch_end"),
        lambda: batch_callback("on_batch_end"),
        lambda: callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None),
        lambda: callbacks.ModelCheckpoint("x.keras", save_freq=2),
        lambda: OwnCheckpoint("x.keras"),
        lambda: callbacks.TensorBoard(update_freq="batch"),
        lambda: callbacks.TensorBoard(profile_batch=(2, 3)),
        lambda: callbacks.TerminateOnNaN(),
        lambda: callbacks.BackupAndRestore("x"),
        lambda: callbacks.CallbackList([callbacks.TerminateOnNaN()]),
    ],
)
def test_callbacks_that_act_at_batches_are_refused(
    make: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    callback = make()
    with pytest.raises(ValueError, match=r"act at epochs only, .* `on_.*batch_.*Received: "):
        fit_compiled(small(), X, Y, callbacks=callback)


# --- what is refused ------------------------------------------------------------------------


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
