"""Trains one network with `fit_compiled`, and on several devices: in a process of its own.

    python -m tests.fixedbias.replicated '{"replicas": 2, ...}'

Logical devices have to be made before TensorFlow uses any. With `TF_CONFIG` set, a worker of many.
Prints what was found as JSON, in its last line.
"""

import json
import os
import sys
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias import fit_compiled, fit_replicated, mlp

RNG = np.random.default_rng(0)
X, Y = RNG.uniform(size=(99, 6, 6)).astype("float32"), RNG.integers(0, 10, 99)


def make(
    optimizer: str, loss_scale: float | None, dropout: bool, learning_rate: float
) -> keras.Model:
    model = mlp(3, 16, "constant", input_shape=(6, 6), seed=0)
    if dropout:
        model = keras.Sequential([keras.layers.Dropout(0.5), model])
        model.build((None, 6, 6))
    chosen = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[optimizer](learning_rate)
    if loss_scale is not None:
        chosen = keras.optimizers.LossScaleOptimizer(chosen, initial_scale=loss_scale)
    model.compile(chosen, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def main(
    replicas: int,
    optimizer: str = "adam",
    policy: str = "float32",
    loss_scale: float | None = None,
    dropout: bool = False,
    learning_rate: float = 0.01,
    **fit: Any,
) -> dict[str, Any]:
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, parts)
        strategy = tf.distribute.MirroredStrategy([f"cpu:{n}" for n in range(replicas)])
    keras.config.set_dtype_policy(policy)
    settings = (optimizer, loss_scale, dropout, learning_rate)
    with strategy.scope():
        model = make(*settings)
    before = model.get_weights()
    fit = {"seed": 3, "verbose": 0, "validation_data": (X[:33], Y[:33])} | fit
    history = fit_replicated(model, X, Y, **fit).history
    weights = model.get_weights()
    expected = make(*settings)
    fit.pop("jit_compile", None)
    theirs = fit_compiled(expected, X, Y, **fit).history if not dropout else history
    pairs = list(zip(expected.get_weights(), weights, strict=True))
    return {
        "replicas": strategy.num_replicas_in_sync,
        "moved": max(float(np.abs(a - b).max()) for a, b in zip(before, weights, strict=True)),
        "error": max(float(np.abs(a - b).max()) for a, b in pairs),
        "history": history,
        "expected": theirs,
        "steps": [int(m.optimizer.iterations.numpy()) for m in (model, expected)],
        "total": float(sum(np.abs(w).sum() for w in weights)),
    }


if __name__ == "__main__":
    try:
        found = main(**json.loads(sys.argv[1]))
    except ValueError as error:
        found = {"refused": str(error)}
    print(json.dumps(found))
