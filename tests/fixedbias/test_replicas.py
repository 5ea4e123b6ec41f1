"""One network on several devices gives what it gives on one, and refuses what it cannot do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fixedbias import fit_compiled, fit_replicated

ROOT = Path(__file__).parents[2]
X = np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
Y = X @ np.array([[1.0], [2.0], [3.0], [4.0]], "float32")


def start(config: dict | None = None, **how: Any) -> subprocess.Popen:
    """Trains in a process of its own; `how` is as for `tests.fixedbias.replicated`."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    if config is not None:
        environment["TF_CONFIG"] = json.dumps(config)
    command = [sys.executable, "-m", "tests.fixedbias.replicated", json.dumps(how)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> dict[str, Any]:
    try:
        out, err = process.communicate(timeout=250)
    finally:
        process.kill()
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def train(**how: Any) -> dict[str, Any]:
    return finish(start(**how))


def check(found: dict[str, Any], tolerance: float = 2e-7, share: float = 1e-4) -> None:
    """Weights and history are those of one device, and there was something to learn.

    Args:
        found: By the process.
        tolerance: Largest difference of a weight.
        share: The same, as a share of how far the weights went.
    """
    assert found["replicas"] > 1
    assert found["moved"] > 1e-3
    assert found["error"] < min(tolerance, share * found["moved"])
    assert found["steps"][0] == found["steps"][1]
    assert found["history"].keys() == found["expected"].keys()
    for name, values in found["expected"].items():
        if "accuracy" not in name or tolerance < 1e-5:
            np.testing.assert_allclose(found["history"][name], values, rtol=max(1e-6, tolerance))


def model_of(strategy: tf.distribute.Strategy, **compile_args: Any) -> keras.Model:
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "linear", name="a")])
        model.compile(**{"optimizer": "sgd", "loss": "mse"} | compile_args)
    return model


@pytest.fixture(scope="module")
def one() -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(["cpu:0"])


def test_two_devices_give_the_numbers_of_one_with_a_last_batch_of_one_example():
    # 99 = 7 x 14 + 1: of the last batch one device has an example, the other none.
    check(train(replicas=2, optimizer="sgd", batch_size=14, epochs=2, jit_compile=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"replicas": 2, "batch_size": 32, "epochs": 3},
        {"replicas": 3, "batch_size": 8, "epochs": 1, "optimizer": "sgd"},
    ],
    ids=["Adam, XLA", "three devices, no batch divisible"],
)
def test_devices_give_the_numbers_of_one(how):
    check(train(**how))


@pytest.mark.slow
def test_float16_differs_by_its_rounding_alone():
    how = {"policy": "mixed_float16", "loss_scale": 256.0, "optimizer": "sgd"}
    found = train(replicas=2, batch_size=32, epochs=1, **how)
    # A float16 has 11 bits: the parts of a gradient round to some 5e-4 of themselves.
    check(found, tolerance=1e-3, share=0.01)


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one_device():
    workers = []
    with socket.socket() as a, socket.socket() as b:
        for listener in (a, b):
            listener.bind(("127.0.0.1", 0))
            workers.append(f"127.0.0.1:{listener.getsockname()[1]}")
    both = [
        start(
            {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}},
            replicas=2,
            batch_size=14,
            epochs=2,
        )
        for index in (0, 1)
    ]
    found = [finish(process) for process in both]
    for one in found:
        check(one)
    assert found[0]["total"] == found[1]["total"]
    assert found[0]["history"] == found[1]["history"]


@pytest.mark.slow
def test_layers_that_write_in_the_forward_pass_train_without_xla():
    found = train(replicas=2, dropout=True, batch_size=32, epochs=1, jit_compile=False)
    assert found["moved"] > 1e-3


def test_one_device_of_a_strategy_trains_as_fit_compiled(one, tensorflow_warnings):
    ours, theirs = model_of(one), model_of(tf.distribute.get_strategy())
    theirs.set_weights(ours.get_weights())
    fit = {"batch_size": 4, "epochs": 2, "seed": 1, "verbose": 0, "validation_data": (X, Y)}
    found, expected = fit_replicated(ours, X, Y, **fit), fit_compiled(theirs, X, Y, **fit)
    for name, values in expected.history.items():
        np.testing.assert_allclose(found.history[name], values, rtol=1e-6)
    np.testing.assert_allclose(ours.get_weights()[0], theirs.get_weights()[0], atol=1e-6)
    assert not [line for line in tensorflow_warnings if "retracing" in line]


class OwnStep(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> dict:
        return {}


def own_step(strategy: tf.distribute.Strategy) -> keras.Model:
    with strategy.scope():
        model = OwnStep()
        model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        (
            lambda strategy: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]),
            {},
            "must be compiled first",
        ),
        (
            lambda strategy: model_of(strategy, optimizer=keras.optimizers.SGD(clipnorm=1.0)),
            {},
            "without `clipnorm`. Received: clipnorm=1.0",
        ),
        (own_step, {}, "Keras's own `train_step`. Received: a model of class OwnStep"),
        (lambda strategy: model_of(strategy, run_eagerly=True), {}, "Received: run_eagerly=True"),
        (model_of, {"batch_size": 0}, "`batch_size` must be a positive integer"),
        (model_of, {"y": Y[:3]}, "the same number of examples, .* Received: 10 and 3"),
    ],
)
def test_refuses_with_a_sentence(one, make, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit_replicated(make(one), **{"x": X, "y": Y} | arguments)


@pytest.mark.slow
def test_refuses_a_batch_that_is_smaller_than_the_number_of_devices():
    found = train(replicas=2, batch_size=1)
    assert "Received: batch_size=1 for 2 devices" in found["refused"]


def test_a_second_training_goes_on_with_the_optimizer_of_the_first(one):
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(), initial_scale=4.0)
    model = model_of(one, optimizer=scaled)
    for _ in range(2):
        fit_replicated(model, X, Y, epochs=1, verbose=0, validation_data=(X, Y))
        names = [variable.path for variable in model.optimizer.variables]
        assert len(names) == len({*names})
    assert int(model.optimizer.inner_optimizer.iterations.numpy()) == 2 * -(-len(X) // 32)
