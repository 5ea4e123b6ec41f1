"""The same networks in TensorFlow alone, without Keras: modules, losses, SGD and a training loop.

It shows what a dense network is when no framework does it for one, and it trains in two forms: step
by step, as such code is usually written, and with a whole epoch as one XLA program.

Where it does not help: there is nothing here to save, to monitor or to change but what is written
below. Beyond that, take Keras.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import tensorflow as tf


def step(x: Any) -> Any:
    """1 where x > 0, else 0. Its gradient is zero: nothing before it learns."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x > 0, x.dtype)


ACTIVATIONS: dict[str, Callable] = {
    "step": step,
    "sigmoid": tf.sigmoid,
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "identity": tf.identity,
    # Over the last axis. Exponentials divided by their sum over the whole batch, as one finds it
    # published, make no probabilities: the loss is then too large by about the log of the batch
    # size, and every example's gradient depends on the others.
    "softmax": tf.nn.softmax,
}
"""Activations by name; all but `step` are TensorFlow's own."""


def dense(x: Any, kernel: Any, bias: Any, activation: Callable) -> Any:
    """`activation(x @ kernel + bias)`, for x of shape (batch, inputs)."""
    return activation(tf.matmul(x, kernel) + bias)


class DenseModule(tf.Module):
    """A dense layer as a `tf.Module`.

    Args:
        inputs, units: Sizes of input and output.
        activation: A name in `ACTIVATIONS`.
        bias: The fixed bias, a number or `units` numbers. By default the bias is trained, from 0.
        stddev: The kernel is drawn from a normal distribution of mean 0 and this deviation.
        seed: Of the kernel.
        name: Of the module.

    Raises:
        ValueError: The activation is unknown, or the bias has another length than `units`.

    Example:

    >>> layer = DenseModule(3, 2, bias=[0.5, -0.5])
    >>> layer(tf.zeros((1, 3))).numpy()
    array([[0.5, 0. ]], dtype=float32)
    >>> [v.name for v in layer.trainable_variables]
    ['kernel:0']
    """

    def __init__(
        self,
        inputs: int,
        units: int,
        activation: str = "relu",
        *,
        bias: Any = None,
        stddev: float = 0.01,
        seed: Any = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"`activation` must be one of {', '.join(ACTIVATIONS)}. "
                f"Received: activation={activation!r}"
            )
        if np.shape(bias if bias is not None else 0) not in ((), (units,)):
            raise ValueError(
                f"`bias` must be one number or have one entry per unit, shape ({units},). "
                f"Received: bias of shape {np.shape(bias)}"
            )
        self.activation = ACTIVATIONS[activation]
        normal = np.random.default_rng(seed).normal(0, stddev, (inputs, units))
        self.kernel = tf.Variable(normal, dtype="float32", name="kernel")
        start = np.broadcast_to(0.0 if bias is None else bias, (units,))
        self.bias = tf.Variable(start, dtype="float32", name="bias", trainable=bias is None)

    def __call__(self, x: Any) -> Any:
        return dense(x, self.kernel, self.bias, self.activation)


class Network(tf.Module):
    """Dense layers one after the other.

    Args:
        widths: Sizes from the input to the output: `(784, 100, 50, 10)` has three layers.
        activation: Of the hidden layers, a name in `ACTIVATIONS`.
        output: Of the last layer.
        biases: Fixed biases of the hidden layers, one entry each; by default biases are trained.
        stddev, seed: As for `DenseModule`; every layer draws its own.

    Raises:
        ValueError: There are fewer than two widths, or another number of biases than of hidden
            layers.

    Example:

    >>> network = Network((784, 100, 50, 10), "tanh", seed=0)
    >>> network(tf.zeros((32, 28, 28))).shape
    TensorShape([32, 10])
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str = "relu",
        output: str = "softmax",
        *,
        biases: Sequence[Any] | None = None,
        stddev: float = 0.01,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        hidden = len(widths) - 2
        if hidden < 0 or (biases is not None and len(biases) != hidden):
            raise ValueError(
                "`widths` must name input and output, and `biases` one bias per hidden layer. "
                f"Received: widths={tuple(widths)}, biases="
                f"{None if biases is None else f'of {len(biases)} entries'}"
            )
        seeds = np.random.SeedSequence(seed).spawn(hidden + 1)
        self.layers = []
        for t, (inputs, units) in enumerate(pairwise(widths)):
            own: dict[str, Any] = {"stddev": stddev, "seed": seeds[t]}
            if t < hidden:
                own |= {"activation": activation, "bias": None if biases is None else biases[t]}
            else:
                own["activation"] = output
            self.layers.append(DenseModule(inputs, units, **own))

    def __call__(self, x: Any) -> Any:
        """The output for inputs of shape (batch, ...), flattened behind the first axis."""
        x = tf.cast(x, "float32")
        if len(x.shape) != 2:
            x = tf.reshape(x, (-1, self.layers[0].kernel.shape[0]))
        for layer in self.layers:
            x = layer(x)
        return x

    def get_weights(self) -> list[np.ndarray]:
        """Kernel and bias of every layer, as `keras.Model.get_weights` orders them."""
        return [w.numpy() for layer in self.layers for w in (layer.kernel, layer.bias)]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Assigns what `get_weights` of a network of the same widths gives."""
        own = [w for layer in self.layers for w in (layer.kernel, layer.bias)]
        for variable, weight in zip(own, weights, strict=True):
            variable.assign(weight)


def sum_squared_error(y: Any, p: Any) -> Any:
    """Half the squared errors' sum over the outputs, averaged over the batch.

    Args:
        y: Targets: of the output's shape, or class indices, integers of shape (batch,).
        p: Output, floating-point, of shape (batch, outputs) or (outputs,).
    """
    p = tf.convert_to_tensor(p)
    return tf.reduce_mean(0.5 * tf.reduce_sum((p - _one_hot(y, p)) ** 2, axis=-1))


def cross_entropy_error(y: Any, p: Any) -> Any:
    """Minus the log of the right class's probability, averaged over the batch.

    A probability of 0 counts as 1e-7, so that its logarithm is finite.

    Args:
        y, p: As for `sum_squared_error`; p must be probabilities.
    """
    p = tf.convert_to_tensor(p)
    return -tf.reduce_mean(tf.reduce_sum(_one_hot(y, p) * tf.math.log(p + 1e-7), axis=-1))


def root_mean_squared_error(y: Any, p: Any) -> Any:
    """The root of the mean squared error over all outputs: of their unit, not of its square.

    Its gradient has the same length whatever the error, so that SGD with a fixed rate ends up
    circling the minimum, and none where the error is 0.

    Args:
        y, p: As for `sum_squared_error`.
    """
    p = tf.convert_to_tensor(p)
    return tf.sqrt(tf.reduce_mean((p - _one_hot(y, p)) ** 2))


def accuracy(network: Callable, x: Any, y: Any) -> float:
    """The share of examples whose largest output is that of their class.

    Args:
        network: Gives the output for x.
        x: Inputs.
        y: Class indices of shape (batch,), or one-hot rows.
    """
    p = network(x)
    right = tf.argmax(_one_hot(y, p), axis=-1) == tf.argmax(p, axis=-1)
    return float(tf.reduce_mean(tf.cast(right, "float32")))


class SGD:
    """Plain stochastic gradient descent: `w -= rate * gradient`. No momentum, no decay.

    Args:
        rate: Learning rate.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def apply(self, gradients: Sequence[Any], variables: Sequence[tf.Variable]) -> None:
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(self.rate * gradient)


def train_step(network: tf.Module, loss: Callable, optimizer: SGD, x: Any, y: Any) -> Any:
    """One step: forward, gradients by `tf.GradientTape`, update. Returns the loss before it."""
    with tf.GradientTape() as tape:
        value = loss(y, network(x))
    variables = network.trainable_variables
    optimizer.apply(tape.gradient(value, variables, unconnected_gradients="zero"), variables)
    return value


def fit(
    network: tf.Module,
    x: Any,
    y: Any,
    *,
    loss: Callable = cross_entropy_error,
    optimizer: SGD,
    batch_size: int = 32,
    epochs: int = 1,
    test: tuple[Any, Any] | None = None,
    classes: bool = True,
    compiled: bool = False,
    seed: int | None = None,
) -> dict[str, list[float]]:
    """Trains a network; every epoch has an order of its own, a last short batch is trained on.

    Both forms take the same steps. Step by step, every operation is sent to the device from Python
    as it comes (eagerly). Compiled, the data is resident on the device and the epoch one XLA
    program, so Python does nothing between two steps; the first epoch waits for XLA.

    Args:
        network: A callable module.
        x: Inputs, cast to float32, whose first axis counts the examples.
        y: Targets as the loss takes them.
        loss: Called as `loss(y, p)`; returns a scalar.
        optimizer: Has `apply(gradients, variables)`.
        batch_size: Examples in a step.
        epochs: How many times to go through the examples.
        test: `(x, y)` to take the accuracy on after every epoch.
        classes: Whether the targets are classes, so that there is an accuracy.
        compiled: The form.
        seed: Of the order of the examples.

    Returns:
        `loss`, one entry per step; `accuracy` and, with `test`, `test_accuracy`, one per epoch;
        `seconds`, the training time of every epoch, accuracies apart.

    Raises:
        ValueError: x and y differ in length or are empty, or `batch_size` is not positive.

    Example:

    >>> x, y = np.eye(2, dtype="float32"), np.array([0, 1])
    >>> network = Network((2, 2), seed=0)
    >>> history = fit(network, x, y, optimizer=SGD(0.5), batch_size=2, epochs=5, compiled=True)
    >>> len(history["loss"]), history["accuracy"][-1]
    (5, 1.0)
    """
    if len(x) != len(y) or not len(x) or batch_size < 1:
        raise ValueError(
            "x and y must have the same number of examples, at least one, and `batch_size` be "
            f"positive. Received: {len(x)} and {len(y)} examples, batch_size={batch_size}"
        )
    x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
    one = partial(train_step, network, loss, optimizer)
    epoch = partial(_epoch_compiled if compiled else _epoch_step_by_step, one, batch_size)
    if compiled:
        epoch = tf.function(epoch, jit_compile=True, autograph=False)
    rng = np.random.default_rng(seed)
    history: dict[str, list[float]] = {"loss": [], "accuracy": [], "seconds": []}
    for _ in range(epochs):
        order = rng.permutation(len(x)).astype("int32")
        begin = time.perf_counter()
        losses = np.asarray(epoch(x, y, tf.constant(order)))  # waits for the last step
        history["seconds"].append(time.perf_counter() - begin)
        history["loss"] += losses.tolist()
        if classes:
            history["accuracy"].append(accuracy(network, x, y))
            if test is not None:
                history.setdefault("test_accuracy", []).append(accuracy(network, *test))
    return history


def _one_hot(y: Any, p: Any) -> Any:
    y = tf.convert_to_tensor(y)
    if y.dtype.is_integer and len(y.shape) < len(p.shape):
        return tf.one_hot(y, p.shape[-1], dtype=p.dtype)
    return tf.cast(y, p.dtype)


def _epoch_step_by_step(step: Callable, size: int, x: Any, y: Any, order: Any) -> Any:
    losses = []
    for start in range(0, order.shape[0], size):
        rows = order[start : start + size]
        losses.append(step(tf.gather(x, rows), tf.gather(y, rows)))
    return tf.stack(losses)


def _epoch_compiled(step: Callable, size: int, x: Any, y: Any, order: Any) -> Any:
    steps, rest = divmod(order.shape[0], size)

    def body(i: Any, losses: Any) -> Any:
        rows = tf.slice(order, [i * size], [size])
        return i + 1, losses.write(i, step(tf.gather(x, rows), tf.gather(y, rows)))

    losses = tf.TensorArray("float32", steps + bool(rest), element_shape=())
    if steps:
        _, losses = tf.while_loop(
            lambda i, _: i < steps, body, (0, losses), maximum_iterations=steps
        )
    if rest:
        rows = order[steps * size :]
        losses = losses.write(steps, step(tf.gather(x, rows), tf.gather(y, rows)))
    return losses.stack()
