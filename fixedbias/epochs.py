"""A whole epoch of training, or of evaluation, as one XLA program."""

import weakref
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

    def train(self, data: tuple, order: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Trains on the examples that `order` names, in that order.

        Args:
            data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`: tensors, or nests of tensors,
                whose first axis counts the examples.
            order: Integer tensor of shape `(examples to train on,)`: indices into `data`.
            batch_size: Examples in a step.

        Returns:
            The model's metrics over these examples, as scalar tensors. Reading one waits for
            the epoch to end.
        """
        result: dict[str, tf.Tensor] = self._train(data, order, batch_size)
        return result

    def evaluate(self, data: tuple, batch_size: int) -> dict[str, tf.Tensor]:
        """The model's metrics over all of `data`, as `model.evaluate` computes them."""
        result: dict[str, tf.Tensor] = self._evaluate(data, batch_size)
        return result


def device_data(data: Any) -> Any:
    """The arrays of a nest as tensors on the default device.

    Floating-point arrays become `keras.config.floatx()`, as in `fit`; integers keep their
    dtype, so uint8 images stay a quarter of the size of float32 ones. `None` stays.
    """

    def put(array: Any) -> Any:
        if array is None:
            return None
        tensor = tf.convert_to_tensor(array)
        return tf.cast(tensor, keras.config.floatx()) if tensor.dtype.is_floating else tensor

    return keras.tree.map_structure(put, data, none_is_leaf=True)


def build(model: keras.Model, data: tuple) -> None:
    """Creates every variable that training needs, on one example.

    XLA cannot create variables inside a compiled loop. Nothing is trained and no random
    number is drawn: the example passes forward only, in inference mode.
    """
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(_rows(data, slice(0, 1)))
    standard = type(model).train_step is keras.Model.train_step
    if standard or not model.built:
        y_pred = model(x, training=False)
    if standard:
        model.compute_loss(x, y, y_pred, sample_weight)
        model.compute_metrics(x, y, y_pred, sample_weight)
        model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def _rows(data: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda tensor: tensor[rows], data)


def _train_epoch(
    model: keras.Model, data: tuple, order: tf.Tensor, batch_size: int
) -> dict[str, tf.Tensor]:
    def step(indices: tf.Tensor) -> None:
        model.train_step(keras.tree.map_structure(lambda tensor: tf.gather(tensor, indices), data))

    model.reset_metrics()
    steps, rest = divmod(order.shape[0], batch_size)
    _repeat(steps, lambda i: step(tf.slice(order, [i * batch_size], [batch_size])))
    if rest:
        step(order[steps * batch_size :])
    metrics: dict[str, tf.Tensor] = model.get_metrics_result()
    return metrics


def _evaluate(model: keras.Model, data: tuple, batch_size: int) -> dict[str, tf.Tensor]:
    def batch(i: tf.Tensor) -> Any:
        # `tf.slice` and not t[a:b], whose length XLA would not know.
        return keras.tree.map_structure(
            lambda t: tf.slice(
                t, [i * batch_size, *[0] * (t.shape.rank - 1)], [batch_size, *t.shape[1:]]
            ),
            data,
        )

    model.reset_metrics()
    steps, rest = divmod(keras.tree.flatten(data)[0].shape[0], batch_size)
    _repeat(steps, lambda i: model.test_step(batch(i)))
    if rest:
        model.test_step(_rows(data, slice(steps * batch_size, None)))
    metrics: dict[str, tf.Tensor] = model.get_metrics_result()
    return metrics


def _repeat(steps: int, body: Any) -> None:
    """Runs `body(i)` for i = 0 ... steps - 1 inside the program being traced."""

    def run(i: tf.Tensor) -> tf.Tensor:
        body(i)
        return i + 1

    if steps:
        tf.while_loop(lambda i: i < steps, run, [0], maximum_iterations=steps)
