"""One arm of a cell as a Keras model: built alike in every arm, trained anew for every seed."""

import math
import statistics
import time
from typing import Any

import keras

from bench.arms import ARMS, REFERENCE, Arm
from bench.engines import Data, train
from bench.plan import Cell
from bench.tasks import task_of
from bench.weights import Weights, describe_weights, read_weights
from fixedbias import activations, bias_values, losses, mlp
from fixedbias.epochs import build_optimizer


def build_model(arm: Arm, cell: Cell, seed: int) -> keras.Model:
    """The cell's network with hidden layers of this arm, compiled, from the kernels of `seed`.

    Raises:
        ValueError: A layer's output has not the shape (batch, units).
    """
    policy = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy(arm.precision or policy)
        return _build_model(arm, cell, seed)
    finally:
        keras.config.set_dtype_policy(policy)


def _build_model(arm: Arm, cell: Cell, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    biases = [bias_values(cell.bias, t, cell.units) for t in range(cell.layers - 1)]
    task = task_of(cell.data)
    common: dict[str, Any] = {
        "activation": activations.get(cell.activation),
        "input_shape": task.input_shape,
        "classes": task.outputs,
        "rescale": task.rescale,
        "seed": seed,
        "layer_norm": cell.norm == "layer",
        # Scores are what a hinge is made for, and numbers have no bounds.
        "output_activation": "softmax" if task.classes and cell.loss != "hinge" else "linear",
    }
    model = mlp(cell.layers, cell.units, biases, hidden=arm.hidden, **common)
    # Layers that choose their kernels themselves start from the others' kernels too.
    usual = ARMS[REFERENCE].hidden
    start = model
    if arm.hidden is not usual:
        start = mlp(cell.layers, cell.units, biases, hidden=usual, **common)
    for t, bias in enumerate(biases):
        layer, other = model.get_layer(f"hidden_{t}"), start.get_layer(f"hidden_{t}")
        if tuple(layer.output.shape) != (None, cell.units):
            raise ValueError(
                f"a hidden layer must give the shape (batch, {cell.units}). "
                f"Received: {layer.output.shape} from {type(layer).__name__}"
            )
        kernel = getattr(layer, "kernel", None)
        if start is not model and kernel is not None and kernel.shape == other.kernel.shape:
            kernel.assign(other.kernel)
        arm.prepare(layer, bias)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=losses.get(cell.loss, of_classes=task.classes),
        # By this name in every record; that of a task without classes is R^2.
        metrics=["accuracy" if task.classes else keras.metrics.R2Score(name="accuracy")],
        jit_compile=cell.engine not in ("fit", "plain"),
    )
    return model


class CellModel:
    """One arm of a cell: trains it, again from the start for every seed, compiling once."""

    def __init__(self, arm: Arm, cell: Cell, data: Data) -> None:
        self.arm, self.cell, self.data = arm, cell, data
        self.keras_model = build_model(arm, cell, 0)
        build_optimizer(self.keras_model)
        variables = self.keras_model.optimizer.variables
        self._start = [(variable, variable.numpy()) for variable in variables]

    def train(self, epochs: int, seeds: int) -> dict[str, Any]:
        what: dict[str, Any] = {"data": self.data, "batch_size": self.cell.batch_size}
        what["callbacks"] = self.arm.callbacks()
        histories, compile_seconds = [], math.nan
        weights: Weights = {}
        if seeds:
            begin = time.perf_counter()
            train(self.cell.engine, self.keras_model, epochs=1, labels=self.data.noise, **what)
            compile_seconds = time.perf_counter() - begin
        training_seconds = 0.0
        for seed in range(seeds):
            self.restart(seed)
            start = read_weights(self.keras_model) if seed == 0 else {}
            begin = time.perf_counter()
            histories.append(
                train(self.cell.engine, self.keras_model, epochs=epochs, seed=seed, **what)
            )
            training_seconds += time.perf_counter() - begin
            if start:
                weights = describe_weights(start, read_weights(self.keras_model))
        if seeds:
            compile_seconds -= statistics.median(s for h in histories for s in h["seconds"])
        self.restart(0)  # what is timed starts alike in every arm, trained before or not
        return {
            "parameters": self.keras_model.count_params(),
            "trainable_parameters": sum(
                math.prod(v.shape) for v in self.keras_model.trainable_variables
            ),
            "compile_seconds": compile_seconds,
            "training_seconds": training_seconds,
            "input_seconds": self.data.input_seconds,
            "histories": histories,
            "accuracies": [history["val_accuracy"][-1] for history in histories],
            "weights": weights,
        }

    def restart(self, seed: int) -> None:
        """Weights and optimizer as a new model of this seed has them."""
        self.keras_model.set_weights(build_model(self.arm, self.cell, seed).get_weights())
        for variable, value in self._start:
            variable.assign(value)
