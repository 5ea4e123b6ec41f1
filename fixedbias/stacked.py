"""`fit_stacked`: many networks of one shape trained at once, in one XLA program."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.epochs import build, build_optimizer, device_data
from fixedbias.fitting import as_arrays
from fixedbias.training import fit_compiled

State = tuple[list[Any], list[Any]]
"""Trainable and other variables."""


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
            optimizer's settings or in how far they are trained; one is not compiled, or has a
            metric other than `accuracy`; labels are not integers, one for each example; a weight
            has a constraint; the optimizer looks at more than one entry of a gradient at a time, as
            global clipping does, or does more than its steps, as for loss scaling and averages of
            the weights; or the estimate exceeds `memory_limit`. What is excluded from weight decay
            Keras does not tell: it decays here like the rest.

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
    x, y, _ = as_arrays(x, y, None)
    if validation_data is not None:
        validation_data = as_arrays(*validation_data, None)[:2]
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


class StackedProgram:
    """Epochs of several models of one shape as one XLA program, their variables stacked.

    The models' values are taken when it is made; `write_back` returns them.

    Args:
        models: Compiled models that differ in nothing but values; the first one's step is used.
        data: `(x, y)` as they will train on.
    """

    def __init__(self, models: Sequence[keras.Model], data: Any) -> None:
        self.models = list(models)
        for model in self.models:
            build_optimizer(model)
        first = self.models[0]
        build(first, data)
        names, y = list(first.get_metrics_result()), data[1]
        outputs = first.compute_output_shape(data[0].shape)
        known = names == ["loss"] or (names == ["loss", "accuracy"] and outputs[-1] > 1)
        if not known or not y.dtype.is_integer or y.shape.rank != 1:
            raise ValueError(
                "`fit_stacked` takes integer labels, one for each example, and no metrics but "
                f"`accuracy`, of two classes or more. Received: y of {y.dtype.name} and shape "
                f"{tuple(y.shape)}, outputs of shape {outputs} and metrics {names[1:]}"
            )
        weights = [_variables(model) for model in self.models]
        stacks = [
            [_stack(same) for same in zip(*kind, strict=True)]
            for kind in zip(*weights, strict=True)
        ]
        self.state: State = (stacks[0], stacks[1])
        totals = [tf.Variable(tf.zeros(len(self.models))) for _ in first.get_metrics_result()]
        # One optimizer for all: it updates every entry by itself, so the axis is no matter to it.
        self.optimizer = type(first.optimizer).from_config(first.optimizer.get_config())
        self.optimizer.build(self.state[0])
        self._slots = list(zip(*(m.optimizer.variables for m in self.models), strict=True))
        for mine, theirs in zip(self.optimizer.variables, self._slots, strict=True):
            if mine.shape == theirs[0].shape:  # there is one for all: a rate, a count of steps
                if len({float(variable) for variable in theirs}) > 1:
                    raise ValueError(
                        "`fit_stacked` takes models that have been trained equally far, at equal "
                        f"rates. Received: {theirs[0].name} of {_values(theirs)}"
                    )
                mine.assign(theirs[0])
            else:
                mine.assign(_values(theirs))
        compiled = partial(tf.function, jit_compile=True, autograph=False)
        self._train = compiled(partial(_train_epoch, first, self.optimizer, self.state, totals))
        self._evaluate = compiled(partial(_evaluate, first, self.state, totals))

    def train(self, data: Any, orders: tf.Tensor, batch_size: int) -> dict[str, Any]:
        """Trains every model on the examples that its row of `orders` names.

        Args:
            data: `(x, y)`, tensors whose first axis counts the examples.
            orders: Integers of shape `(models, examples)`.
            batch_size: Examples in a step of each model.

        Returns:
            The metrics, each of shape `(models,)`.
        """
        return dict(self._train(data, orders, batch_size))

    def evaluate(self, data: Any, batch_size: int) -> dict[str, Any]:
        """The metrics of every model over all of `data`."""
        return dict(self._evaluate(data, batch_size))

    def write_back(self) -> None:
        """Gives every model and its optimizer the values they have been trained to."""
        for k, model in enumerate(self.models):
            for variables, stacks in zip(_variables(model), self.state, strict=True):
                for variable, stack in zip(variables, stacks, strict=True):
                    variable.assign(stack[k])
        for mine, theirs in zip(self.optimizer.variables, self._slots, strict=True):
            for k, variable in enumerate(theirs):
                variable.assign(mine[k] if mine.shape != variable.shape else mine)


def _variables(model: keras.Model) -> State:
    return model.trainable_variables, model.non_trainable_variables


def _values(same: Sequence[keras.Variable]) -> np.ndarray:
    return np.stack([variable.numpy() for variable in same])


def _stack(same: Sequence[keras.Variable]) -> keras.Variable:
    return keras.Variable(_values(same), dtype=same[0].dtype, trainable=same[0].trainable)


def _step(model: keras.Model, training: bool, state: State, x: Any, y: Any) -> tuple[Any, ...]:
    """Gradients, other variables, loss and hits of one model's step: what is stacked."""
    own = _variables(model)
    mapping = [
        pair
        for variables, values in zip(own, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(state[0])
        with keras.StatelessScope(state_mapping=mapping) as scope:
            predicted = model(x, training=training)
            loss = model.compute_loss(x=x, y=y, y_pred=predicted, training=training)
    gradients = tape.gradient(loss, state[0]) if training else []
    others = [tf.convert_to_tensor(scope.get_current_value(v)) for v in own[1]]
    # Not Keras's own metrics: they bitcast, which `vectorized_map` cannot stack.
    hits = tf.argmax(predicted, axis=-1, output_type="int32") == tf.cast(y, "int32")
    return gradients, others, loss, tf.reduce_mean(tf.cast(hits, "float32"))


def _tensors(state: State) -> State:
    trainable, others = state
    return [tf.convert_to_tensor(v) for v in trainable], [tf.convert_to_tensor(v) for v in others]


def _mapped(function: Any, stacked: Any) -> Any:
    # Without the fall-back, which would run the models one by one inside the program.
    return tf.vectorized_map(function, stacked, fallback_to_while_loop=False)


def _train_epoch(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    state: State,
    totals: list[tf.Variable],
    data: Any,
    orders: tf.Tensor,
    batch_size: int,
) -> dict[str, Any]:
    def step(start: Any, size: int) -> Any:
        indices = tf.slice(orders, [0, start], [-1, size])
        batch = [tf.gather(array, indices) for array in data]
        gradients, others, *measured = _mapped(
            lambda one: _step(model, True, *one), (_tensors(state), *batch)
        )
        optimizer.apply(gradients, state[0])
        for variable, value in zip(state[1], others, strict=True):
            variable.assign(value)
        return measured

    return _epoch(totals, step, orders.shape[1], batch_size)


def _evaluate(
    model: keras.Model, state: State, totals: list[tf.Variable], data: Any, batch_size: int
) -> dict[str, Any]:
    def step(start: Any, size: int) -> Any:
        batch = [
            tf.slice(t, [start, *[0] * (t.shape.rank - 1)], [size, *t.shape[1:]]) for t in data
        ]
        _, _, *measured = _mapped(lambda one: _step(model, False, one, *batch), _tensors(state))
        return measured

    return _epoch(totals, step, data[0].shape[0], batch_size)


def _epoch(totals: list[tf.Variable], step: Any, examples: int, batch_size: int) -> dict[str, Any]:
    """All steps of an epoch, the short last one after the loop; means over the examples."""

    def add(start: Any, size: int) -> None:
        # As many as there are totals: without an accuracy, its hits are not computed either.
        for total, value in zip(totals, step(start, size), strict=False):
            total.assign_add(value * size)

    def body(i: tf.Tensor) -> tf.Tensor:
        add(i * batch_size, batch_size)
        return i + 1

    for total in totals:
        total.assign(tf.zeros_like(total))
    in_loop = examples // batch_size
    if in_loop:
        tf.while_loop(lambda i: i < in_loop, body, [0], maximum_iterations=in_loop)
    if examples % batch_size:
        add(in_loop * batch_size, examples % batch_size)
    means = [total / examples for total in totals]
    return dict(zip(("loss", "accuracy"), means, strict=False))


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
