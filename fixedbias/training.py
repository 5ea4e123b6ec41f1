"""`fit_compiled`: `model.fit` with whole epochs inside XLA."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.arguments import positive
from fixedbias.epochs import EpochProgram, build, count_examples, device_data, map_arrays
from fixedbias.fitting import as_arrays, check_callbacks, pack, run_epochs

# The last program of every model, so that a second call need not compile again; a program is
# out of date once `compile` has given the model another optimizer or other metrics. These are
# referred to weakly, because a metric may refer to the model.
_programs: weakref.WeakKeyDictionary[keras.Model, tuple[list, EpochProgram]] = (
    weakref.WeakKeyDictionary()
)


def fit_compiled(
    model: keras.Model,
    x: Any,
    y: Any = None,
    batch_size: int | None = None,
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
    as it is, as in `fit`. Random layers draw the numbers of a `fit` compiled by XLA. Data that
    is on the device already, as tensors, stays where it is.

    Where it does not help: the first epoch waits for XLA, a second or more, so a training
    of a few hundred steps ends sooner with `fit`; and where a step is long (wide layers,
    large batches) the host's part of it was small to begin with.

    Args:
        model: Any compiled Keras model whose step XLA can compile. A `train_step` or
            `test_step` of its own is honoured.
        x, y: Arrays, tensors, data frames, or nests of them, whose first axis counts the
            examples. Floating-point data is cast to `keras.config.floatx()`; integers stay as
            they are, so images may stay uint8 (see `rescale` of `mlp`).
        batch_size: Examples in a step, 32 by default.
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
            range; a callback acts at batches, which the host never sees; or `keras.config`
            limits the steps of an epoch.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.ones((100, 4)); y = np.ones((100, 1))
    >>> history = fit_compiled(model, x, y, batch_size=32, epochs=3, verbose=0)
    >>> sorted(history.history), len(history.history["loss"])
    (['loss'], 3)
    """
    _check_model(model)
    batch_size = positive("batch_size", 32 if batch_size is None else batch_size)
    if validation_batch_size is None:
        validation_batch_size = batch_size
    validation_batch_size = positive("validation_batch_size", validation_batch_size)
    if shuffle == "batch":
        raise ValueError("`shuffle` must be True or False. Received: shuffle='batch'")
    if class_weight is not None and sample_weight is not None:
        raise ValueError("Give `class_weight` or `sample_weight`. Received: both")
    check_callbacks(callbacks)

    arrays, held_out = as_arrays(x, y, sample_weight), None
    if validation_data is not None:
        held_out = as_arrays(*keras.utils.unpack_x_y_sample_weight(validation_data))
    elif validation_split:
        arrays, held_out = _split(arrays, validation_split)
    if class_weight is not None:  # these weigh the training alone
        arrays = (*arrays[:2], _class_weights(arrays[1], class_weight))
    examples = count_examples(arrays)
    data = device_data(pack(arrays))
    validation = None if held_out is None else device_data(pack(held_out))
    program = epoch_program(model, data, jit_compile)

    def train(order: np.ndarray) -> Mapping[str, Any]:
        return program.train(data, tf.convert_to_tensor(order), batch_size)

    def test() -> Mapping[str, Any]:
        return program.evaluate(validation, validation_batch_size)

    return run_epochs(
        model,
        train,
        None if validation is None else test,
        examples=examples,
        batch_size=batch_size,
        epochs=epochs,
        verbose=verbose,
        callbacks=callbacks,
        shuffle=shuffle,
        initial_epoch=initial_epoch,
        validation_freq=validation_freq,
        seed=seed,
    )


def epoch_program(model: keras.Model, data: Any, jit_compile: bool = True) -> EpochProgram:
    """The model's epoch program, the same one until `compile` is called again.

    Args:
        model: A compiled Keras model.
        data: Resident data to build the model with, should it not be built (see `device_data`).
        jit_compile: As for `fit_compiled`.
    """
    known, program = _programs.get(model, ([], None))
    if program is None or known != _identity(model, jit_compile):
        build(model, data)
        program = EpochProgram(model, jit_compile=jit_compile)
        _programs[model] = _identity(model, jit_compile), program
    return program


def _identity(model: keras.Model, jit_compile: bool) -> list:
    """Tells whether `compile` was called: it makes a new loss tracker every time.

    A model may have a `metrics` of its own that leaves the tracker out; Keras's has it.
    """
    parts = [model.optimizer, *keras.Model.metrics.fget(model), *model.metrics]
    return [jit_compile, *(weakref.ref(part) for part in parts if part is not None)]


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
            "`fit_compiled` trains on one device; on several, use `fit_replicated`. "
            f"Received: a model of {replicas} replicas"
        )


def _split(arrays: tuple, fraction: float) -> tuple[tuple, tuple]:
    examples = count_examples(arrays)
    cut = int(examples * (1 - fraction))
    if not 0 < cut < examples:
        raise ValueError(
            "`validation_split` must leave examples on both sides. "
            f"Received: validation_split={fraction} of {examples} examples"
        )

    def part(rows: slice) -> tuple:
        result: tuple = map_arrays(lambda array: array[rows], arrays)
        return result

    return part(slice(None, cut)), part(slice(cut, None))


def _class_weights(y: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    if y is None or keras.tree.is_nested(y):
        raise ValueError(
            f"`class_weight` needs y to be one array. Received: y of {type(y).__name__}"
        )
    classes = np.asarray(y)
    if classes.ndim > 1:
        classes = classes.argmax(axis=-1) if classes.shape[-1] > 1 else classes.squeeze(-1)
    values, place = np.unique(np.round(classes).astype("int32"), return_inverse=True)
    weights = np.array([class_weight.get(int(value), 1.0) for value in values])
    return weights[place.reshape(classes.shape)]
