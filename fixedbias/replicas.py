"""`fit_replicated`: one network trained on several devices at once, each taking part of a batch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.arguments import positive
from fixedbias.epochs import build_optimizer, count_examples, device_data, map_arrays
from fixedbias.fitting import as_arrays, check_callbacks, check_steps, pack, run_epochs

_Nest = Any
_Shares = tuple[Any, int, Any, int]


def fit_replicated(
    model: keras.Model,
    x: Any,
    y: Any = None,
    batch_size: int | None = None,
    epochs: int = 1,
    verbose: int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    validation_data: tuple | None = None,
    shuffle: bool = True,
    initial_epoch: int = 0,
    *,
    seed: int | None = None,
    jit_compile: bool = True,
) -> keras.callbacks.History:
    """Trains a model that was compiled under a `tf.distribute` strategy, data-parallel.

    Every device holds the weights and all of the data, takes its part of each batch, and the
    gradients are summed. The batches are those of `fit_compiled` with the same seed, and so are the
    numbers, but for the order in which floats are added. Where the devices cannot share a batch
    evenly, the last one of an epoch for one, they count by their examples (Keras's own `fit` counts
    them alike, which gives other numbers). Layers that look at a whole batch or draw at random see
    a device's part of it: `BatchNormalization` has the numbers of one device only with
    `synchronized=True`, and `Dropout` drops others.

    XLA compiles the forward and backward pass of every device. Summing gradients and updating
    weights stay outside, as does the loop over the steps: TensorFlow's XLA refuses both with
    variables of several devices, on CPUs at least. The host therefore works at every step, which
    `fit_compiled` on one device avoids: for small networks one device is faster.

    Make one strategy and use it for every model of a process: TensorFlow confuses the sums of two.

    Over several hosts, run the same program on each with `TF_CONFIG` set and a
    `tf.distribute.MultiWorkerMirroredStrategy`, which `fit` of Keras 3 does not support. A worker
    that is lost ends the others or leaves them waiting: start all again from a checkpoint.

    Args:
        model: Built and compiled in `strategy.scope()`, with Keras's own `train_step` and
            `test_step`. Its losses must be means over the batch, as Keras's are.
        x, y: Arrays, tensors or nests of them, whose first axis counts the examples; see
            `fit_compiled`. Every worker needs all of them.
        batch_size: Examples in a step, over all devices together; 32 by default.
        epochs: Epoch to stop at.
        verbose: 0 is silent, 1 or `"auto"` shows a bar, 2 a line per epoch.
        callbacks: Callbacks that act at epochs. On several workers, write files from one alone.
        validation_data: `(x, y)` to validate on after every epoch.
        shuffle: Whether every epoch has an order of its own.
        initial_epoch: Epoch to start at.
        seed: Makes the order of the examples reproducible. Several workers need one.
        jit_compile: `False` does without XLA. Layers that write to variables in the forward pass,
            such as `BatchNormalization` and `Dropout`, need it.

    Returns:
        The `History`; its numbers are those of all devices together.

    Raises:
        ValueError: The model is not compiled, has a step of its own, runs eagerly, or clips
            gradients (each device would clip its own); a batch is smaller than the number of
            devices; several workers have no seed; or the data is not arrays.

    Example:

    >>> strategy = tf.distribute.MirroredStrategy(["cpu:0"])  # as many as there are
    >>> with strategy.scope():
    ...     model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    ...     model.compile("sgd", "mse")
    >>> x = np.ones((100, 4)); y = np.ones((100, 1))
    >>> history = fit_replicated(model, x, y, batch_size=32, epochs=3, verbose=0, seed=0)
    >>> len(history.history["loss"])
    3
    """
    strategy = model.distribute_strategy
    batch_size = positive("batch_size", 32 if batch_size is None else batch_size)
    _check_model(model, strategy, batch_size, seed)
    check_callbacks(callbacks)
    arrays = as_arrays(x, y, None)
    held_out = None
    if validation_data is not None:
        held_out = pack(as_arrays(*keras.utils.unpack_x_y_sample_weight(validation_data)))
    program = ReplicatedProgram(model, jit_compile=jit_compile)
    data = program.put(pack(arrays))
    validation = None if held_out is None else program.put(held_out)

    def test() -> dict[str, tf.Tensor]:
        order = np.arange(count_examples(held_out), dtype="int32")
        return program.evaluate(validation, program.share(order, batch_size))

    return run_epochs(
        model,
        lambda order: program.train(data, program.share(order, batch_size)),
        None if held_out is None else test,
        examples=count_examples(arrays),
        batch_size=batch_size,
        epochs=epochs,
        verbose=verbose,
        callbacks=callbacks,
        shuffle=shuffle,
        initial_epoch=initial_epoch,
        seed=seed,
    )


class ReplicatedProgram:
    """Runs whole epochs of a model on the devices of its strategy.

    Args:
        model: As for `fit_replicated`.
        jit_compile: Whether XLA compiles the forward and backward pass.
    """

    def __init__(self, model: keras.Model, *, jit_compile: bool = True) -> None:
        self._model, self._strategy = model, model.distribute_strategy
        # Partials of its own, for TensorFlow counts retraces by code object.
        graph = partial(tf.function, autograph=False)
        compiled = partial(graph, jit_compile=True) if jit_compile else lambda function: function
        self._gradients = compiled(partial(_gradients, model))
        self._forward = compiled(partial(_forward, model, training=False))
        self._train = graph(partial(self._epoch, self._train_step))
        self._evaluate = graph(partial(self._epoch, self._test_step))
        self._put = graph(lambda data: self._strategy.run(_copy, args=(data,)))

    def put(self, data: _Nest) -> _Nest:
        """The arrays of a nest on every device, and the model's metrics built for them."""
        resident = self._put(device_data(data))
        one = map_arrays(lambda array: tf.convert_to_tensor(array[:1]), device_data(data))
        x, y, weight = keras.utils.unpack_x_y_sample_weight(one)
        with self._strategy.scope():
            build_optimizer(self._model)
            # Metrics make their variables at first use, which no graph over several devices can:
            # here that use is without effect, but the variables stay.
            with keras.StatelessScope():
                self._model.compute_metrics(x, y, self._model(x), weight)
        return resident

    def train(self, data: _Nest, shares: _Shares) -> dict[str, tf.Tensor]:
        """Trains on the examples that the shares name, in that order.

        Args:
            data: From `put`.
            shares: From `share`.

        Returns:
            The model's metrics over these examples, as scalar tensors. Reading one waits for the
            epoch to end.
        """
        result: dict[str, tf.Tensor] = self._train(data, *shares)
        return result

    def evaluate(self, data: _Nest, shares: _Shares) -> dict[str, tf.Tensor]:
        """The model's metrics over the examples that the shares name."""
        result: dict[str, tf.Tensor] = self._evaluate(data, *shares)
        return result

    def share(self, order: np.ndarray, batch_size: int) -> _Shares:
        """An order of examples cut into batches, and these among the devices.

        Args:
            order: Indices into the data, int32 of shape `(examples,)`.
            batch_size: Examples in a step, over all devices together.

        Returns:
            Of the whole batches each device's part, int32 `(steps, part)`, and their size; of the
            batch that is left over each device's part, `(part,)`, and its size.
        """
        steps = len(order) // batch_size
        whole, rest = np.split(order, [steps * batch_size])

        def part(array: np.ndarray) -> _Nest:
            def of(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
                parts = np.array_split(array, context.num_replicas_in_sync, axis=-1)
                return tf.constant(parts[context.replica_id_in_sync_group])

            return self._strategy.experimental_distribute_values_from_function(of)

        return part(whole.reshape(steps, batch_size)), batch_size, part(rest), len(rest)

    def _epoch(
        self,
        step: Callable[[_Nest, tf.Tensor, int], None],
        data: _Nest,
        whole: _Nest,
        batch_size: int,
        rest: _Nest,
        left: int,
    ) -> dict[str, tf.Tensor]:
        self._model.reset_metrics()
        (first, *_) = self._strategy.experimental_local_results(whole)
        steps = first.shape[0]

        def body(i: tf.Tensor) -> tf.Tensor:
            self._strategy.run(
                lambda data, order: step(data, order[i], batch_size), args=(data, whole)
            )
            return i + 1

        if steps:
            tf.while_loop(lambda i: i < steps, body, [0], maximum_iterations=steps)
        if left:
            self._strategy.run(lambda data, order: step(data, order, left), args=(data, rest))
        result: dict[str, tf.Tensor] = self._model.get_metrics_result()
        return result

    def _train_step(self, data: _Nest, indices: tf.Tensor, size: int) -> None:
        """What one device does of a step; `size` counts the examples of all devices."""
        count = indices.shape[0]
        replicas = self._strategy.num_replicas_in_sync
        # The gradients are summed, and each device's loss is a mean over its own examples, of which
        # Keras has taken the replicas-th part.
        weight = count * replicas / size
        loss, predictions, gradients = self._gradients(data, _stand_in(indices), weight)
        self._model.optimizer.apply(gradients, self._model.trainable_variables)
        self._count(data, indices, loss, predictions)

    def _test_step(self, data: _Nest, indices: tf.Tensor, size: int) -> None:
        loss, predictions = self._forward(data, _stand_in(indices))
        self._count(data, indices, loss, predictions)

    def _count(self, data: _Nest, indices: tf.Tensor, loss: tf.Tensor, predictions: _Nest) -> None:
        if not indices.shape[0]:  # a device without examples has taken part, and has learnt nothing
            return
        x, y, weight = _batch(data, indices)
        (tracker,) = (metric for metric in self._model.metrics if metric.name == "loss")
        replicas = self._strategy.num_replicas_in_sync
        tracker.update_state(loss * replicas, sample_weight=indices.shape[0])
        self._model.compute_metrics(x, y, predictions, weight)


def _gradients(
    model: keras.Model, data: _Nest, indices: tf.Tensor, weight: float
) -> tuple[tf.Tensor, _Nest, list[tf.Tensor]]:
    with tf.GradientTape() as tape:
        loss, predictions = _forward(model, data, indices, training=True)
        scaled = model.optimizer.scale_loss(loss * weight)
    return loss, predictions, tape.gradient(scaled, model.trainable_variables)


def _forward(
    model: keras.Model, data: _Nest, indices: tf.Tensor, *, training: bool
) -> tuple[tf.Tensor, _Nest]:
    x, y, weight = _batch(data, indices)
    predictions = model(x, training=training)
    return model.compute_loss(x, y, predictions, weight, training=training), predictions


def _batch(data: _Nest, indices: tf.Tensor) -> tuple[_Nest, _Nest, _Nest]:
    batch: tuple = keras.utils.unpack_x_y_sample_weight(
        map_arrays(lambda tensor: tf.gather(tensor, indices), data)
    )
    return batch


def _copy(data: _Nest) -> _Nest:
    return map_arrays(tf.identity, data)


def _stand_in(indices: tf.Tensor) -> tf.Tensor:
    """For a device without examples the first one of all, which then counts nothing."""
    return indices if indices.shape[0] else tf.zeros([1], indices.dtype)


def _check_model(model: keras.Model, strategy: Any, batch_size: int, seed: int | None) -> None:
    if not model.compiled:
        raise ValueError("The model must be compiled first: call `model.compile(...)`.")
    if model.run_eagerly:
        raise ValueError(
            "`fit_replicated` cannot run a model eagerly: compile it with `run_eagerly=False`. "
            "Received: run_eagerly=True"
        )
    check_steps(model, "fit_replicated")
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    for name in ("clipnorm", "clipvalue", "global_clipnorm"):
        if (value := getattr(inner, name, None)) is not None:
            raise ValueError(
                "Every device would clip its own part of the gradients, which is not what one "
                f"device does: compile without `{name}`. Received: {name}={value}"
            )
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise ValueError(
            "`batch_size` counts the examples of all devices, and must be at least one for each. "
            f"Received: batch_size={batch_size} for {replicas} devices"
        )
    workers = replicas // max(1, len(strategy.extended.worker_devices))
    if seed is None and workers > 1:
        raise ValueError("Several workers must shuffle alike: give a `seed`. Received: seed=None")
