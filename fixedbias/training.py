"""`fit_compiled`: `model.fit` with whole epochs inside XLA."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.epochs import EpochProgram, build, device_data

_BATCH_HOOKS = (
    "on_batch_begin",
    "on_batch_end",
    "on_train_batch_begin",
    "on_train_batch_end",
    "on_test_batch_begin",
    "on_test_batch_end",
)

# The last program of every model, so that a second call need not compile again; a program is
# out of date once `compile` has given the model another optimizer or other metrics.
_programs: weakref.WeakKeyDictionary[keras.Model, tuple[list, EpochProgram]] = (
    weakref.WeakKeyDictionary()
)


def fit_compiled(
    model: keras.Model,
    x: Any,
    y: Any = None,
    batch_size: int = 32,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    validation_split: float = 0.0,
    validation_data: tuple | None = None,
    shuffle: bool = True,
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    initial_epoch: int = 0,
    validation_batch_size: int | None = None,
    validation_freq: int | Sequence[int] = 1,
    *,
    seed: int | None = None,
    jit_compile: bool = True,
) -> keras.callbacks.History:
    """Trains a compiled Keras model, each epoch being one call of one XLA program.

    A drop-in for `model.fit` where the data fits on the device: it is put there once, and
    the loop over the steps runs inside XLA, so the host does nothing between two steps. On
    the same batches it gives what `fit` gives; a last batch that is shorter is trained on
    as it is, as in `fit`. Data that is on the device already, as tensors, stays where it is.

    Where it does not help: the first epoch waits for XLA, a second or more, so a training
    of a few hundred steps ends sooner with `fit`; and where a step is long (wide layers,
    large batches) the host's part of it was small to begin with.

    Args:
        model: Any compiled Keras model whose step XLA can compile. A `train_step` or
            `test_step` of its own is honoured.
        x, y: Arrays, tensors, or nests of them, whose first axis counts the examples.
            Floating-point data is cast to `keras.config.floatx()`; integers stay as they
            are, so images may stay uint8 (see `rescale` of `mlp`).
        batch_size: Examples in a step.
        epochs: Epoch to stop at, counted from 0 as in `fit`.
        verbose: 0 is silent, 1 or `"auto"` shows a bar, 2 a line per epoch.
        callbacks: Callbacks that act at epochs: `EarlyStopping`, `ModelCheckpoint`,
            `LearningRateScheduler`, `ReduceLROnPlateau`, `CSVLogger`, `TensorBoard`, ...
        validation_split: Fraction of the data, taken from its end, to validate on.
        validation_data: `(x, y)` or `(x, y, sample_weight)` to validate on.
        shuffle: Whether every epoch has an order of its own.
        class_weight: Weight of every class, by index; y must be class indices or one-hot.
        sample_weight: Weight of every example.
        initial_epoch: Epoch to start at.
        validation_batch_size: Defaults to `batch_size`.
        validation_freq: Validate every so many epochs, or after the listed ones (from 1).
        seed: Makes the order of the examples reproducible. By default it comes from NumPy's
            global state, which `keras.utils.set_random_seed` sets.
        jit_compile: `False` keeps the loop on the device but does without XLA.

    Returns:
        The `History`, as `fit` returns it.

    Raises:
        ValueError: The model is not compiled, runs eagerly or is distributed; the data is
            not arrays, is empty, or its parts differ in length; an argument is out of
            range; or a callback acts at batches, which the host never sees.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((100, 4)); y = np.ones((100, 1))
    >>> history = fit_compiled(model, x, y, batch_size=32, epochs=3, verbose=0)
    >>> sorted(history.history), len(history.history["loss"])
    (['loss'], 3)
    """
    _check_model(model)
    _check_positive(batch_size=batch_size)
    if validation_batch_size is not None:
        _check_positive(validation_batch_size=validation_batch_size)
    _check_callbacks(callbacks)
    if class_weight is not None:
        if sample_weight is not None:
            raise ValueError("Only one of `class_weight` and `sample_weight` can be given.")
        sample_weight = _class_weights(y, class_weight)

    data, examples = _check_data(x, y, sample_weight)
    validation = None
    if validation_data is not None:
        validation, _ = _check_data(*keras.utils.unpack_x_y_sample_weight(validation_data))
    elif validation_split:
        data, validation, examples = _split(data, examples, validation_split)
    data, validation = device_data(data), device_data(validation)
    program = epoch_program(model, data, jit_compile)
    rng = np.random.default_rng(np.random.randint(2**32, dtype="uint64") if seed is None else seed)
    order = np.arange(examples, dtype="int32")

    callback_list = keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=verbose != 0,
        verbose=verbose,
        epochs=epochs,
        steps=-(-examples // batch_size),
        model=model,
    )
    model.stop_training = False
    callback_list.on_train_begin()
    logs: dict[str, Any] = {}
    for epoch in range(initial_epoch, epochs):
        callback_list.on_epoch_begin(epoch)
        if shuffle:
            order = rng.permutation(order)
        logs = _python(program.train(data, tf.convert_to_tensor(order), batch_size))
        if validation is not None and _validates(epoch, validation_freq):
            callback_list.on_test_begin()
            found = _python(program.evaluate(validation, validation_batch_size or batch_size))
            callback_list.on_test_end(found)
            logs |= {f"val_{name}": value for name, value in found.items()}
        callback_list.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    if epochs > 0:
        # Weights of an optimizer that keeps a moving average of them are set here.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    callback_list.on_train_end(logs)
    return model.history


def epoch_program(model: keras.Model, data: tuple, jit_compile: bool = True) -> EpochProgram:
    """The model's epoch program, the same one until `compile` is called again.

    Args:
        model: A compiled Keras model.
        data: Resident data to build the model with, should it not be built (see `device_data`).
        jit_compile: As for `fit_compiled`.
    """
    # `compile` makes a new loss tracker every time, so the metrics tell whether it was called.
    state = [jit_compile, model.optimizer, *model.metrics] if model.built else []
    known, program = _programs.get(model, (None, None))
    if program is None or known is None or not _identical(known, state):
        build(model, data)
        program = EpochProgram(model, jit_compile=jit_compile)
        _programs[model] = [jit_compile, model.optimizer, *model.metrics], program
    return program


def _identical(a: list, b: list) -> bool:
    return len(a) == len(b) and all(p is q for p, q in zip(a, b, strict=True))


def _check_model(model: keras.Model) -> None:
    if not model.compiled:
        raise ValueError("The model must be compiled first: call `model.compile(...)`.")
    if model.run_eagerly:
        raise ValueError(
            "`fit_compiled` cannot run a model eagerly: compile it with `run_eagerly=False`, "
            "or use `model.fit`. Received: run_eagerly=True"
        )
    replicas = model.distribute_strategy.num_replicas_in_sync
    if replicas > 1:
        raise ValueError(
            f"`fit_compiled` trains on one device. Received: a model of {replicas} replicas"
        )


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")


def _check_callbacks(callbacks: Any) -> None:
    base = keras.callbacks.Callback
    for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
        if callback is None or _acts_at_epochs(callback):
            continue
        for hook in _BATCH_HOOKS:
            if getattr(getattr(callback, hook), "__func__", None) is not getattr(base, hook):
                raise ValueError(
                    "Callbacks of `fit_compiled` can act at epochs only, because batches run "
                    f"inside XLA: use `model.fit` for this one, or move its `{hook}` to the "
                    f"end of the epoch. Received: {type(callback).__name__}"
                )


def _acts_at_epochs(callback: keras.callbacks.Callback) -> bool:
    """Keras callbacks that have batch hooks but, set up like this, do nothing in them."""
    match callback:
        case keras.callbacks.ModelCheckpoint():
            return bool(callback.save_freq == "epoch")
        case keras.callbacks.TensorBoard():
            return bool(callback.update_freq == "epoch" and not callback.profile_batch)
        case keras.callbacks.ProgbarLogger():
            return True
    return False


def _check_data(x: Any, y: Any, sample_weight: Any) -> tuple[tuple, int]:
    data = (x, y, sample_weight)
    if sample_weight is None:
        data = (x,) if y is None else (x, y)
    arrays = [a for a in keras.tree.flatten(data) if a is not None]
    for array in arrays:
        if not getattr(array, "shape", None):
            raise ValueError(
                "`fit_compiled` takes arrays or tensors that fit in memory; for generators "
                f"and `tf.data` use `model.fit`. Received: {type(array).__name__}"
            )
    lengths = {int(array.shape[0]) for array in arrays}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            "x, y and sample_weight must have the same number of examples, at least one. "
            f"Received: {' and '.join(str(array.shape[0]) for array in arrays)}"
        )
    return data, lengths.pop()


def _split(data: tuple, examples: int, fraction: float) -> tuple[tuple, tuple, int]:
    cut = int(examples * (1 - fraction))
    if not 0 < cut < examples:
        raise ValueError(
            "`validation_split` must leave examples on both sides. "
            f"Received: validation_split={fraction} of {examples} examples"
        )

    def part(rows: slice) -> tuple:
        result: tuple = keras.tree.map_structure(lambda array: array[rows], data)
        return result

    return part(slice(None, cut)), part(slice(cut, None)), cut


def _class_weights(y: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    classes = np.asarray(y)
    if classes.ndim == 2 and classes.shape[1] > 1:
        classes = classes.argmax(axis=1)
    classes = classes.reshape(len(classes)).astype("int64")
    table = np.ones(max([int(classes.max()), *class_weight]) + 1, keras.config.floatx())
    table[list(class_weight)] = list(class_weight.values())
    return table[classes]


def _validates(epoch: int, frequency: int | Sequence[int]) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


def _python(metrics: dict[str, tf.Tensor]) -> dict[str, Any]:
    return {
        name: float(value) if value.shape.rank == 0 else value.numpy()
        for name, value in metrics.items()
    }
