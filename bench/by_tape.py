"""The engine `plain`: a training loop by hand around any model, `tf.GradientTape` and no `fit`."""

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.epochs import build_optimizer

# The step of every model, so that it is traced once.
_steps: weakref.WeakKeyDictionary[keras.Model, Callable] = weakref.WeakKeyDictionary()


def tape_step(model: keras.Model) -> Callable[[Any, Any], tf.Tensor]:
    """One training step of a compiled model as a TensorFlow graph, XLA off: called with x and y.

    The update is the model's own optimizer's, so that this engine trains what the others train.

    Returns:
        A function that returns the loss before the step.
    """
    if model not in _steps:
        build_optimizer(model)
        step = partial(_step, weakref.proxy(model))
        _steps[model] = tf.function(step, jit_compile=False, autograph=False, reduce_retracing=True)
    return _steps[model]


def fit_by_tape(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    *,
    batch_size: int,
    epochs: int,
    validation_data: tuple[Any, Any],
    validation_batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback],
    seed: int,
) -> dict[str, list[float]]:
    """Trains on the batches that `fit_compiled` makes of the same seed.

    Returns:
        By epoch: `loss`, and what `model.evaluate` says of the validation data under `val_`.
    """
    step, order = tape_step(model), np.arange(len(x))
    rng = np.random.default_rng(seed)
    hooks = keras.callbacks.CallbackList(list(callbacks), model=model)
    history: dict[str, list[float]] = {"loss": []}
    hooks.on_train_begin()
    for epoch in range(epochs):
        hooks.on_epoch_begin(epoch)
        order = rng.permutation(order)
        losses, sizes = [], []
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            losses.append(step(x[rows], y[rows]))
            sizes.append(len(rows))
        history["loss"].append(float(np.average(np.array(losses), weights=sizes)))
        hooks.on_test_begin()
        found = model.evaluate(
            *validation_data, batch_size=validation_batch_size, verbose=0, return_dict=True
        )
        for name, value in found.items():
            history.setdefault(f"val_{name}", []).append(value)
        hooks.on_epoch_end(epoch, found)
    hooks.on_train_end()
    return history


def _step(model: keras.Model, x: Any, y: Any) -> tf.Tensor:
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
        if model.losses:
            loss += sum(model.losses)
        scaled = model.optimizer.scale_loss(loss)
    variables = model.trainable_variables
    gradients = tape.gradient(scaled, [variable.value for variable in variables])
    model.optimizer.apply(gradients, variables)
    return loss
