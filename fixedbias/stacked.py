"""`fit_stacked`: many networks of one shape trained at once, in one XLA program."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.arguments import positive
from fixedbias.epochs import device_data
from fixedbias.fitting import as_arrays, check_steps
from fixedbias.stacked_epochs import StackedProgram
from fixedbias.training import fit_compiled


def fit_stacked(
    models: Sequence[keras.Model],
    x: Any,
    y: Any,
    batch_size: int = 32,
    epochs: int = 1,
    *,
    seeds: Sequence[int],
    validation_data: tuple[Any, Any] | None = None,
    stacked: bool | None = None,
    memory_limit: int | None = None,
) -> list[dict[str, list[float]]]:
    """Trains networks of one shape at once, each from its own kernels on its own batches.

    A small network leaves most of a GPU idle: its step is some thirty short kernels. Stacked,
    the kernels of all networks are one, over a leading axis that counts the networks, and every
    network gets what `fit_compiled` would have given it with its seed.

    Where it does not help: on a CPU, which a single network keeps busy; there the networks are
    trained one after the other. Nor for networks wide enough to fill a GPU alone.

    Args:
        models: Compiled Keras models that differ in nothing but the values of their variables.
        x, y: Arrays shared by all, as for `fit_compiled`.
        batch_size: Examples in a step of each network.
        epochs: Epochs to train.
        seeds: One per model; sets the order of the examples.
        validation_data: `(x, y)`, evaluated after every epoch.
        stacked: `True` in one program, `False` one after the other; by default as is faster on
            the device in use: stacked on a GPU.
        memory_limit: Bytes that the program may take by `stacked_bytes`.

    Returns:
        A history for every model, as `History.history` of `fit`.

    Raises:
        ValueError: There are no models, or not one seed for each; they differ in shape, in the
            optimizer's settings or in how far they are trained; one is not compiled, or has a step
            of its own; labels are not integers, one for each example; a weight has a constraint;
            the optimizer looks at more than one entry of a gradient at a time, as global clipping
            does, or does more than its steps, as for loss scaling and averages of the weights;
            `batch_size` is not a positive integer; or, where they are stacked, one has a metric
            other than `accuracy`, or the estimate exceeds `memory_limit`. What is excluded from
            weight decay Keras does not tell: it decays here like the rest.

    Example:

    >>> def network():
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    ...     model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    ...     return model
    >>> models = [network() for _ in range(3)]
    >>> x, y = np.ones((20, 4), "float32"), np.ones(20, "int32")
    >>> histories = fit_stacked(models, x, y, 8, 2, seeds=[0, 1, 2], stacked=True)
    >>> [len(history["loss"]) for history in histories]
    [2, 2, 2]
    """
    if not models or len(models) != len(seeds):
        raise ValueError(
            "`fit_stacked` needs at least one model, and one seed for each. "
            f"Received: {len(models)} models and {len(seeds)} seeds"
        )
    for model in models:
        _check(model, models[0])
    batch_size = positive("batch_size", batch_size)
    x, y, _ = as_arrays(x, _labels(y), None)
    if validation_data is not None:
        validation_data = as_arrays(validation_data[0], _labels(validation_data[1]), None)[:2]
    if stacked is None:
        stacked = len(models) > 1 and bool(tf.config.list_logical_devices("GPU"))
    if not stacked:
        return [
            fit_compiled(
                m, x, y, batch_size, epochs, 0, validation_data=validation_data, seed=s
            ).history.copy()
            for m, s in zip(models, seeds, strict=True)
        ]
    need = stacked_bytes(models[0], len(models), batch_size)
    if memory_limit is not None and need > memory_limit:
        raise ValueError(
            f"`memory_limit` must cover the stacked program, about {need:,} bytes: stack fewer "
            f"models at a time. Received: memory_limit={memory_limit:,} for {len(models)} models"
        )
    return _train(models, x, y, batch_size, epochs, seeds, validation_data)


def stacked_bytes(model: keras.Model, count: int, batch_size: int) -> int:
    """About how much device memory `count` stacked models take in training, the data apart.

    Variables are counted twice, since XLA may keep the old beside the new, gradients once, and
    the output of every layer twice, for its value and its gradient.
    """

    def size(variables: Any) -> int:
        return sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in variables)

    state = size(model.variables) + 2 * size(model.trainable_variables)  # Adam has two slots
    outputs = sum(
        int(np.prod(layer.output.shape[1:])) * tf.as_dtype(layer.output.dtype).size
        for layer in model.layers
    )
    one = 2 * state + size(model.trainable_variables) + 2 * batch_size * outputs
    return count * one


def _train(
    models: Sequence[keras.Model],
    x: Any,
    y: Any,
    batch_size: int,
    epochs: int,
    seeds: Sequence[int],
    validation_data: tuple[Any, Any] | None,
) -> list[dict[str, list[float]]]:
    data = device_data((x, y))
    held_out = None if validation_data is None else device_data(validation_data)
    program = StackedProgram(models, data)
    generators = [np.random.default_rng(seed) for seed in seeds]
    orders = [np.arange(len(x), dtype="int32") for _ in models]
    histories: list[dict[str, list[float]]] = [{} for _ in models]
    for _ in range(epochs):
        orders = [rng.permutation(order) for rng, order in zip(generators, orders, strict=True)]
        logs = program.train(data, tf.constant(np.stack(orders)), batch_size)
        if held_out is not None:
            found = program.evaluate(held_out, batch_size)
            logs |= {f"val_{name}": values for name, values in found.items()}
        for name, values in logs.items():
            for history, value in zip(histories, np.asarray(values), strict=True):
                history.setdefault(name, []).append(float(value))
    program.write_back()
    return histories


def _labels(y: Any) -> np.ndarray:
    """Labels as a vector. Also where models are not stacked: what a CPU takes a GPU shall take."""
    labels: np.ndarray = np.asarray(y)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "`fit_stacked` takes integer labels, one for each example. "
            f"Received: y of {labels.dtype} and shape {labels.shape}"
        )
    return labels


# Whose update of an entry depends on that entry and its own slots alone.
_ELEMENTWISE = (
    "SGD",
    "Adam",
    "AdamW",
    "Adamax",
    "Nadam",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "Ftrl",
    "Lion",
)

_BEYOND = ("clipnorm", "global_clipnorm", "loss_scale_factor", "use_ema")
"""Settings for which an entry's update needs more than the entry, or a step more than `apply`."""


def _check(model: keras.Model, first: keras.Model) -> None:
    if not model.compiled:
        raise ValueError("The models must be compiled first: call `model.compile(...)`.")
    check_steps(model, "fit_stacked")
    optimizer = model.optimizer
    name = type(optimizer).__name__
    together = [n for n in _BEYOND if getattr(optimizer, n, None)]
    if name not in _ELEMENTWISE or together:
        raise ValueError(
            "`fit_stacked` takes optimizers that update every entry by itself "
            f"({', '.join(_ELEMENTWISE)}), without clipping by norm, loss scaling and averages of "
            f"the weights; train the models one after the other with `fit_compiled`. "
            f"Received: {name}" + "".join(f" with {n}={getattr(optimizer, n)}" for n in together)
        )
    if any(v.constraint is not None for v in model.trainable_variables):
        raise ValueError(
            "`fit_stacked` takes models without constraints, which would see all models as one. "
            f"Received: a constraint in {model.name}"
        )
    shapes = [[(tuple(v.shape), v.dtype) for v in m.weights] for m in (first, model)]
    if shapes[0] != shapes[1] or _settings(first.optimizer) != _settings(optimizer):
        raise ValueError(
            "`fit_stacked` takes models of one shape, with optimizers of one kind and the same "
            f"settings. Received: {first.name} and {model.name}, which differ"
        )


def _settings(optimizer: keras.optimizers.Optimizer) -> tuple[type, dict[str, Any]]:
    return type(optimizer), {k: v for k, v in optimizer.get_config().items() if k != "name"}
