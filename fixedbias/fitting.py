"""What trainings by whole epochs share: arguments checked as `fit` would, and the loop."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

_BATCH_HOOKS = [
    f"on_{phase}batch_{edge}" for phase in ("", "train_", "test_") for edge in ("begin", "end")
]


def run_epochs(
    model: keras.Model,
    train: Callable[[np.ndarray], Mapping[str, Any]],
    test: Callable[[], Mapping[str, Any]] | None,
    *,
    examples: int,
    batch_size: int,
    epochs: int,
    verbose: int | str = "auto",
    callbacks: Any = None,
    shuffle: bool = True,
    initial_epoch: int = 0,
    validation_freq: int | Sequence[int] = 1,
    seed: int | None = None,
) -> keras.callbacks.History:
    """The loop over epochs, with the callbacks of `fit`.

    Equal seeds give equal orders, whatever `train` does with them.

    Args:
        model: The model, for the callbacks.
        train: Trains an epoch in the order it is given, int32 of shape `(examples,)`, and returns
            the model's metrics.
        test: Returns the metrics of the validation data.
        examples, batch_size: How many there are, and in a step.
        epochs, verbose, callbacks, shuffle, initial_epoch, validation_freq, seed: As for
            `fit_compiled`.

    Returns:
        The `History`.

    Raises:
        ValueError: `keras.config` limits the steps of an epoch.
    """
    if keras.config.max_steps_per_epoch():
        raise ValueError(
            "Training by epochs takes whole epochs: use `model.fit`, or fewer examples. Received: "
            f"`keras.config.max_steps_per_epoch()` of {keras.config.max_steps_per_epoch()}"
        )
    if (limit := keras.config.max_epochs()) and limit < epochs:
        warnings.warn(f"Limiting epochs to {limit}", stacklevel=3)
        epochs = limit
    rng = np.random.default_rng(np.random.randint(2**32, dtype="uint64") if seed is None else seed)
    order = np.arange(examples, dtype="int32")

    callback_list: Any = callbacks
    if not isinstance(callbacks, keras.callbacks.CallbackList):
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
        # Stopped already: `fit` looks when it has trained a batch, or as many as it does at once.
        most = batch_size * model.steps_per_execution if model.stop_training else examples
        logs = python_logs(train(order[:most]))
        if test is not None and _validates(epoch, validation_freq):
            callback_list.on_test_begin()
            found = python_logs(test())
            callback_list.on_test_end(found)
            logs |= {f"val_{name}": value for name, value in found.items()}
        callback_list.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    if epochs > 0 and isinstance(model.optimizer, keras.optimizers.Optimizer):
        # Weights of an optimizer that keeps a moving average of them are set here.
        model.optimizer.finalize_variable_values(model.trainable_variables)
    callback_list.on_train_end(logs)
    return model.history


def check_callbacks(callbacks: Any) -> None:
    """Refuses callbacks that act at batches, or speak to `fit` alone.

    Raises:
        ValueError: One does.
    """
    for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
        if callback is None:
            continue
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "`BackupAndRestore` tells `model.fit` alone with which epoch to go on: use "
                "`ModelCheckpoint`, and `initial_epoch` after loading. Received: BackupAndRestore"
            )
        idle = _idle_at_batches(callback)
        for hook in _BATCH_HOOKS:
            if getattr(getattr(callback, hook), "__func__", None) is not getattr(idle, hook):
                raise ValueError(
                    "Callbacks can act at epochs only, because batches run without the host: use "
                    f"`model.fit` for this one, or move its `{hook}` to the end of the epoch. "
                    f"Received: {type(callback).__name__}"
                )


def check_steps(model: keras.Model, function: str) -> None:
    """Refuses a model with a step of its own, where Keras's are what is trained by.

    Raises:
        ValueError: It has one.
    """
    for name in ("train_step", "test_step", "compute_metrics"):
        if getattr(getattr(model, name), "__func__", None) is not getattr(keras.Model, name):
            raise ValueError(
                f"`{function}` trains by Keras's own `{name}`. Received: a model of class "
                f"{type(model).__name__}, which has another"
            )


def _idle_at_batches(callback: keras.callbacks.Callback) -> type:
    """The Keras class whose batch hooks do nothing when set up as this callback is."""
    match callback:
        case keras.callbacks.ModelCheckpoint(save_freq="epoch"):
            return keras.callbacks.ModelCheckpoint
        # No public attribute tells whether it will profile batches.
        case keras.callbacks.TensorBoard(update_freq="epoch", _should_trace=False):
            return keras.callbacks.TensorBoard
        case keras.callbacks.ProgbarLogger():
            return keras.callbacks.ProgbarLogger
    return keras.callbacks.Callback


def _check_arrays(**data: Any) -> None:
    lengths = []
    for name, nest in data.items():
        for array in keras.tree.flatten(nest):
            if array is None:
                continue
            if not hasattr(array, "__array__") or not len(array.shape):
                raise ValueError(
                    "Training by epochs takes arrays or tensors that fit in memory, or nests of "
                    "them; for lists of numbers call `np.array`, for generators, `tf.data` and "
                    "sparse data use `model.fit`. "
                    f"Received: {name} of {type(nest).__name__}, with {type(array).__name__}"
                )
            lengths.append(int(array.shape[0]))
    if len(set(lengths)) != 1 or 0 in lengths:
        raise ValueError(
            "x, y and sample_weight must have the same number of examples, at least one. "
            f"Received: {' and '.join(map(str, lengths)) or 'no data'}"
        )


def as_arrays(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """The data as arrays, with weights for every output."""
    _check_arrays(x=x, y=y, sample_weight=sample_weight)
    shared = sample_weight is not None and not keras.tree.is_nested(sample_weight)
    if shared and keras.tree.is_nested(y):
        sample_weight = keras.tree.map_structure(lambda _: sample_weight, y)

    def array(data: Any) -> Any:
        if not hasattr(data, "to_numpy"):
            return data
        values = data.to_numpy()  # a column of a data frame stays one, as in `fit`
        return values[:, None] if values.ndim == 1 else values

    arrays: tuple = keras.tree.map_structure(array, (x, y, sample_weight))
    return arrays


def pack(arrays: tuple[Any, Any, Any]) -> Any:
    """What the model's step takes, as `fit` passes it."""
    return keras.tree.lists_to_tuples(keras.utils.pack_x_y_sample_weight(*arrays))


def _validates(epoch: int, frequency: int | Sequence[int]) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


def python_logs(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Logs as numbers, without nesting. Reading them waits for the end of the epoch."""
    result: dict[str, Any] = {}
    for name, value in logs.items():
        if isinstance(value, Mapping):
            result |= python_logs(value)
        else:
            result[name] = float(value) if value.shape.rank == 0 else value.numpy()
    return result
