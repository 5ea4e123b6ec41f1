"""Invariants 1 to 4 of the design on every device and in every precision."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from bench.arms import ARMS
from bench.engines import prepare_data, training_burst
from bench.models import build_model
from bench.plan import Cell
from fixedbias import FixedBiasDense, by_hand, fit_compiled, load_dataset, mlp

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (70, 28, 28)).astype("uint8")
Y = RNG.integers(0, 10, 70)
BIAS = np.linspace(-0.5, 0.5, 16).astype("float32")


def network(hidden=None, bias=BIAS, optimizer=None) -> keras.Model:
    more = {} if hidden is None else {"hidden": hidden}
    model = mlp(3, 16, [bias, bias], rescale=1 / 255, seed=0, **more)
    optimizer = optimizer or keras.optimizers.SGD(0.1)
    model.compile(
        optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=True
    )
    return model


def frozen(units, *, bias, **common):
    return keras.layers.Dense(units, bias_initializer=keras.initializers.Constant(0.0), **common)


def nobias(units, *, bias, **common):
    return keras.layers.Dense(units, use_bias=False, **common)


def freeze(model: keras.Model) -> None:
    for layer in model.layers:
        if layer.name.startswith("hidden"):
            layer.bias.assign(BIAS)
            layer.bias.trainable = False


def kernels(model: keras.Model) -> list[np.ndarray]:
    return [v.numpy() for v in model.trainable_variables]


def close(a, b, tolerance: float) -> None:
    for one, other in zip(a, b, strict=True):
        one, other = np.asarray(one, "float64"), np.asarray(other, "float64")
        assert np.max(np.abs(one - other)) <= tolerance * np.max(np.abs(other))


def on_device(setting, variables) -> bool:
    kind = setting.device.partition(":")[0].upper()
    return all(kind in variable.value.device for variable in variables)


def test_1_every_arm_starts_from_equal_kernels_and_sees_the_same_batches(setting):
    cell = Cell(3, 16, 32, setting.precision, setting.device, "compiled", "constant", "digits")
    models = [build_model(ARMS[name], cell, 7) for name in ("dense", "dense-nobias", "fixed")]
    starts = [[v.numpy() for v in m.trainable_variables if v.name == "kernel"] for m in models]
    assert all(np.array_equal(a, b) for s in starts[1:] for a, b in zip(starts[0], s, strict=True))
    assert on_device(setting, models[2].variables)
    # A bias of zero cannot be told from none: the same batches give the same losses.
    zeros = [network(hidden, np.zeros(16, "float32")) for hidden in (None, nobias)]
    losses = [fit_compiled(m, X, Y, 32, 3, 0, seed=5).history["loss"] for m in zeros]
    assert losses[0] == pytest.approx(losses[1], rel=setting.tolerance)
    other = fit_compiled(network(bias=np.zeros(16, "float32")), X, Y, 32, 3, 0, seed=6)
    assert other.history["loss"] != pytest.approx(losses[0], rel=1e-6)


# Of saving in Keras, with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_2_a_fixed_bias_never_changes(setting, tmp_path):
    model = network(optimizer=keras.optimizers.AdamW(0.01, weight_decay=0.1))
    model.trainable = False
    model.trainable = True
    model.compile(model.optimizer, "sparse_categorical_crossentropy", jit_compile=True)
    before = kernels(model)
    fit_compiled(model, X, Y, 32, 2, 0, seed=0)
    model.fit(X, Y, batch_size=32, verbose=0)
    assert not np.array_equal(before[0], kernels(model)[0])
    model.save(tmp_path / "m.keras")
    for one in (
        model,
        keras.models.clone_model(model),
        keras.models.load_model(tmp_path / "m.keras"),
    ):
        layers = [layer for layer in one.layers if isinstance(layer, FixedBiasDense)]
        assert len(layers) == 2
        for layer in layers:
            assert np.array_equal(layer.bias.numpy(), BIAS)


def test_3_it_equals_dense_with_that_bias_frozen(setting):
    fixed, dense = network(), network(frozen)
    freeze(dense)
    dense.compile(keras.optimizers.SGD(0.1), dense.loss, jit_compile=True)
    close([fixed.predict(X, verbose=0)], [dense.predict(X, verbose=0)], setting.tolerance)
    for model in (fixed, dense):
        fit_compiled(model, X, Y, 70, 1, 0, seed=0)
    close(kernels(fixed), kernels(dense), setting.tolerance)


def test_3_with_a_zero_bias_it_equals_dense_without(setting):
    fixed, dense = network(bias=np.zeros(16, "float32")), network(nobias)
    close([fixed.predict(X, verbose=0)], [dense.predict(X, verbose=0)], setting.tolerance)
    for model in (fixed, dense):
        fit_compiled(model, X, Y, 70, 1, 0, seed=0)
    close(kernels(fixed), kernels(dense), setting.tolerance)


def test_4_fit_compiled_gives_what_fit_gives_with_a_short_last_batch(setting):
    ours, keras_own = network(), network()
    a = fit_compiled(ours, X, Y, 32, 1, 0, shuffle=False).history  # batches of 32, 32 and 6
    b = keras_own.fit(X, Y, batch_size=32, epochs=1, shuffle=False, verbose=0).history
    assert a["loss"] == pytest.approx(b["loss"], rel=setting.tolerance)
    close(kernels(ours), kernels(keras_own), setting.tolerance)


def test_every_device_agrees_with_the_oracle(setting):
    """Outputs and the gradients of a step, against NumPy's float64: so CPU and GPU agree."""
    model = network()
    weights = [w.astype("float64") for w in model.get_weights()]
    x = X.astype("float64") / 255
    close([model.predict(X, verbose=0)], [by_hand.predict(weights, x)], setting.tolerance)
    wanted = by_hand.gradients(weights, x, Y)
    before = model.get_weights()
    fit_compiled(model, X, Y, 70, 1, 0, seed=0)
    for w, start, end, gradient in zip(
        model.weights, before, model.get_weights(), wanted, strict=True
    ):
        if w.trainable:
            stepped = (start - end) / 0.1
            # The difference of two weights has the weights' rounding, ten times over.
            slack = 10 * 2**-23 * np.max(np.abs(start)) + setting.tolerance * np.max(
                np.abs(gradient)
            )
            assert np.max(np.abs(stepped - gradient)) <= slack


def test_a_device_agrees_with_a_cpu_without_xla(setting):
    """After an epoch: the same program on this device, and plain operations on the CPU."""
    here, there = network(), None
    fit_compiled(here, X, Y, 32, 1, 0, seed=0)
    with tf.device("cpu"):
        there = network()
        fit_compiled(there, X, Y, 32, 1, 0, seed=0, jit_compile=False)
    close(kernels(here), kernels(there), 4 * setting.tolerance)
    assert on_device(setting, here.variables)


def test_what_is_timed_waits_for_the_device(setting):
    """A sample fetches one scalar, which is a number only once the work is done."""
    cell = Cell(2, 256, 32, setting.precision, setting.device, "compiled", "constant", "digits")
    data = prepare_data("compiled", load_dataset("digits"))
    burst = training_burst("compiled", build_model(ARMS["fixed"], cell, 0), data, 32, 1024)

    def seconds(count: int) -> tuple[float, float]:
        """Until the last of some launches was waited for, and from there until all is done."""
        begin = time.perf_counter()
        for _ in range(count):
            launched = burst.launch()
        assert np.isfinite(burst.wait(launched))
        waited = time.perf_counter()
        tf.test.experimental.sync_devices()
        return waited - begin, time.perf_counter() - waited

    seconds(1)  # compiles, and warms the other up
    worked, left = min((seconds(20) for _ in range(3)), key=lambda pair: pair[1])
    assert left < worked / 4
