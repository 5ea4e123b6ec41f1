"""A whole epoch of training, or of evaluation, as one XLA program."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import tensorflow as tf


class EpochProgram:
    """Runs whole epochs of a compiled Keras model, each as one call of one XLA program.

    Keras on TensorFlow compiles one step and loops outside; here the loop over the steps is
    inside. The trip count is known when the program is compiled, which lets XLA run the loop
    on a GPU without asking the host before every step. Each mini-batch is gathered inside
    the loop from data resident on the device: gathering a shuffled epoch up front was three
    times slower.

    Every step is the model's own `train_step`, so its loss, metrics, optimizer, loss scaling
    and regularisation are those of `model.fit`. A step that is left over, with fewer examples
    than a batch, follows the loop, as in `fit`.

    A program is compiled at its first call for every new combination of data shapes and batch
    size. It refers to the model weakly: keep the model.

    Args:
        model: A built and compiled Keras model, its optimizer and metrics built too.
        jit_compile: `False` runs the same loop as a TensorFlow graph without XLA.

    Example:

    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> data = device_data((np.ones((10, 4), "float32"), np.ones((10, 1), "float32")))
    >>> build(model, data)
    >>> program = EpochProgram(model)
    >>> losses = [float(program.train(data, tf.range(10), 4)["loss"]) for _ in range(3)]
    >>> losses[0] > losses[1] > losses[2]
    True
    """

    def __init__(self, model: keras.Model, *, jit_compile: bool = True) -> None:
        # A partial of its own for every program, because TensorFlow counts retraces by code
        # object and would warn once a process has trained a handful of models.
        compiled = partial(tf.function, jit_compile=jit_compile, autograph=False)
        self._train = compiled(partial(_train_epoch, weakref.proxy(model)))
        self._evaluate = compiled(partial(_evaluate, weakref.proxy(model)))
        self._traced: dict[tuple, Any] = {}

    def train(self, data: Any, order: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Trains on the examples that `order` names, in that order.

        Args:
            data: What the model's step takes, `(x, y)` as a rule (in general what
                `keras.utils.pack_x_y_sample_weight` gives): tensors, or nests of tensors,
                whose first axis counts the examples.
            order: Integer tensor of shape `(examples to train on,)`: indices into `data`.
            batch_size: Examples in a step.

        Returns:
            The model's metrics over these examples, as scalar tensors. Reading one waits for
            the epoch to end.
        """
        result: dict[str, tf.Tensor] = self._call(self._train, data, order, batch_size)
        return result

    def text(
        self, data: Any, order: tf.Tensor, batch_size: int, stage: str = "optimized_hlo"
    ) -> str:
        """XLA's program of `train` for these arguments, as text.

        Args:
            data, order, batch_size: As for `train`; nothing is trained.
            stage: `"hlo"` for what XLA is given, `"optimized_hlo"` for what it makes of it on the
                model's device.
        """
        compiler = self._train.experimental_get_compiler_ir(data, order, batch_size)
        return str(compiler(stage=stage))

    def evaluate(self, data: Any, batch_size: int) -> dict[str, tf.Tensor]:
        """The model's metrics over all of `data`, as `model.evaluate` computes them."""
        result: dict[str, tf.Tensor] = self._call(self._evaluate, data, batch_size)
        return result

    def _call(self, function: Any, *arguments: Any) -> Any:
        """Calls the function as it was traced for such arguments.

        To look that up costs `tf.function` half of what it takes to start a program, 0.5 of 1 ms:
        as much as dozens of small steps.
        """
        if tf.config.functions_run_eagerly():
            return function(*arguments)
        kinds = keras.tree.map_structure(
            lambda leaf: (leaf.shape, leaf.dtype, leaf.device) if tf.is_tensor(leaf) else leaf,
            arguments,
        )
        key = (function, repr(kinds))  # the nest is part of what was traced, and need not hash
        if key not in self._traced:
            self._traced[key] = function.get_concrete_function(*arguments)
        return self._traced[key](*arguments)


def device_data(data: Any) -> Any:
    """The arrays of a nest as tensors on the default device.

    Floating-point arrays become `keras.config.floatx()`, as in `fit`; integers keep their
    dtype, so uint8 images stay a quarter of the size of float32 ones. `None` stays.
    """

    def put(array: Any) -> Any:
        tensor = tf.convert_to_tensor(array)
        return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor

    return map_arrays(put, data)


def build(model: keras.Model, data: Any) -> None:
    """Creates every variable that training needs: weights, optimizer state and metrics.

    As in `fit`, tracing a step creates them, so nothing is trained and no random number is
    drawn. It comes first, on its own, so that the program resets every metric.
    """
    batch = map_arrays(lambda tensor: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype), data)
    tf.function(model.train_step, autograph=False).get_concrete_function(batch)


def build_optimizer(model: keras.Model) -> None:
    """Creates the variables of a compiled model's optimizer, once.

    Keras's `LossScaleOptimizer` would make its own anew at every `build`, and leave those that are
    in use behind.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def count_examples(data: Any) -> int:
    return next(int(array.shape[0]) for array in keras.tree.flatten(data) if array is not None)


def map_arrays(function: Callable[[Any], Any], data: Any) -> Any:
    """A nest's arrays mapped, its `None` left."""
    return keras.tree.map_structure(lambda leaf: None if leaf is None else function(leaf), data)


def _train_epoch(
    model: keras.Model, data: Any, order: tf.Tensor, batch_size: int
) -> dict[str, tf.Tensor]:
    def batch(start: Any, size: int) -> Any:
        indices = tf.slice(order, [start], [size])
        return map_arrays(lambda tensor: tf.gather(tensor, indices), data)

    return _run(model, "train_step", batch, order.shape[0], batch_size)


def _evaluate(model: keras.Model, data: Any, batch_size: int) -> dict[str, tf.Tensor]:
    def batch(start: Any, size: int) -> Any:
        # `tf.slice` and not t[a:b], whose length XLA would not know.
        return map_arrays(
            lambda t: tf.slice(t, [start, *[0] * (t.shape.rank - 1)], [size, *t.shape[1:]]), data
        )

    return _run(model, "test_step", batch, count_examples(data), batch_size)


def _run(
    model: keras.Model,
    step_name: str,
    batch: Callable[[Any, int], Any],
    examples: int,
    batch_size: int,
) -> dict[str, tf.Tensor]:
    """Runs the model's step on every batch, inside the program being traced.

    Returns what `fit` reports: the model's metrics or, where a step of the user's own returns
    something else, what its last call returned. That call is then kept out of the loop.
    """

    def step(start: Any, size: int) -> Any:
        data = batch(start, size)
        if examples % batch_size:
            # To Keras a batch is then of unknown size, as in `fit`: some of it looks at the
            # static shape, the mean loss of every output for one. XLA sees the true shape.
            data = map_arrays(
                lambda t: tf.raw_ops.PlaceholderWithDefault(input=t, shape=[None, *t.shape[1:]]),
                data,
            )
        return getattr(model, step_name)(data)

    own = any(
        getattr(getattr(model, name), "__func__", None) is not getattr(keras.Model, name)
        for name in (step_name, "compute_metrics")
    )
    in_loop = (examples - 1 if own else examples) // batch_size
    done = in_loop * batch_size

    def body(i: tf.Tensor) -> list:
        step(i * batch_size, batch_size)
        return [i + 1]

    model.reset_metrics()
    if in_loop:
        tf.while_loop(lambda i: i < in_loop, body, [0], maximum_iterations=in_loop)
    logs = step(done, examples - done) if examples > done else {}
    metrics = model.get_metrics_result()
    result: dict[str, tf.Tensor] = logs if own and set(logs) != set(metrics) else metrics
    return result
