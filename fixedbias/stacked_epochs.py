"""Epochs of many networks of one shape, stacked into one XLA program."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fixedbias.epochs import build, build_optimizer

State = tuple[list[Any], list[Any]]
"""Trainable and other variables."""


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
        # With the losses that layers add, which `compute_loss` sums up.
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
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
