"""All arms are one network: forward and gradients agree with the oracle, which is no arm."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from bench.arms import ARMS, find_arm
from bench.models import build_model
from bench.plan import Cell
from fixedbias import bias_values, by_hand

NAMES = [*ARMS, "freeze-after=0", "freeze-after=2"]
# Relative to the largest number there is in an array.
TOLERANCE = {"float32": 1e-5, "mixed_float16": 4e-3, "mixed_bfloat16": 3e-2}
X = np.random.default_rng(0).integers(0, 256, (32, 28, 28), "uint8")
Y = np.random.default_rng(1).integers(0, 10, 32)


def kernels(model: keras.Model) -> list[keras.Variable]:
    layers = [layer for layer in model.layers if layer.weights and "norm" not in layer.name]
    return [layer.weights[0] for layer in layers]


def weights_by_hand(name: str, model: keras.Model, cell: Cell) -> list[np.ndarray]:
    """Kernels as they are; biases as the arm's definition has them, not as its layer does."""
    found = []
    for t, kernel in enumerate(kernels(model)):
        start = np.zeros(cell.units) if name == "dense" else bias_values(cell.bias, t, cell.units)
        hidden = t < cell.layers - 1
        bias = start if hidden else model.get_layer("output").bias.numpy()
        found += [kernel.numpy()] if hidden and name == "dense-nobias" else [kernel.numpy(), bias]
        if hidden and cell.norm == "layer":
            found += model.get_layer(f"norm_{t}").get_weights()
    return found


def check(name: str, cell: Cell, tolerance: float) -> None:
    keras.config.set_dtype_policy(cell.precision)
    model = build_model(find_arm(name), cell, 3)
    weights = weights_by_hand(name, model, cell)
    output = "linear" if cell.loss == "hinge" else "softmax"
    what = {"activation": cell.activation, "output": output}

    def close(ours, theirs) -> None:
        ours = tf.cast(ours, "float64").numpy()
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()

    @tf.function(jit_compile=cell.engine != "fit")
    def both(x, y):
        with tf.GradientTape() as tape:
            out = model(x, training=True)
            loss = model.loss(y, out)
        sources = [kernel.value for kernel in kernels(model)]
        return out, tape.gradient(loss, sources, unconnected_gradients="zero")

    out, gradients = both(X, Y)
    close(out, by_hand.predict(weights, X / 255, **what))
    expected = by_hand.gradients(weights, X / 255, Y, loss=cell.loss, **what)
    for ours, theirs in zip(gradients, [g for g in expected if g.ndim == 2], strict=True):
        close(ours, theirs)


def cell(**changes: object) -> Cell:
    common = {"layers": 3, "units": 24, "batch_size": 32, "precision": "float32", "device": "cpu"}
    rest = {"engine": "compiled", "bias": "linspace", "data": "digits"}
    return Cell(**common | rest | changes)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("precision", "engine"),
    [("float32", "fit"), *((precision, "compiled") for precision in TOLERANCE)],
)
def test_every_arm_agrees_with_the_oracle(name, engine, precision):
    # A rounding of a sum near zero turns the slope of relu from 0 to 1: no tolerance covers that.
    activation = "relu" if precision == "float32" else "tanh"
    checked = cell(engine=engine, precision=precision, activation=activation)
    check(name, checked, TOLERANCE[precision])


@pytest.mark.parametrize("name", ["fixed-lambda", "plain"])
@pytest.mark.parametrize("activation", sorted({*by_hand.ACTIVATIONS} - {"relu"}))
def test_with_every_activation(name, activation):
    check(name, cell(activation=activation, engine="fit"), 1e-5)


@pytest.mark.parametrize("name", ["dense", "dense-nobias", "fixed", "fixed-lambda", "plain"])
@pytest.mark.parametrize("layers", [2, 4])
def test_with_layer_normalisation(name, layers):
    check(name, cell(norm="layer", layers=layers, engine="fit"), 3e-5)


@pytest.mark.parametrize("loss", ["sum-of-squares", "hinge", "huber"])
def test_with_every_loss(loss):
    check("fixed", cell(loss=loss, engine="fit"), 1e-5)


def test_all_ways_to_write_the_fixed_bias_give_the_same_output():
    """Closer to one another than to the oracle: they are the same operations."""
    outputs = [
        build_model(find_arm(name), cell(), 0)(X).numpy()
        for name in ("fixed", "dense-frozen", "fixed-lambda", "plain", "freeze-after=0")
    ]
    for output in outputs[1:]:
        np.testing.assert_allclose(output, outputs[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["freeze-after=", "freeze-after=x", "freeze-after=-1", "freeze"])
def test_an_arm_that_there_is_not_is_refused(name):
    with pytest.raises(ValueError, match=f"An arm must be one of .*EPOCHS.* Received: {name}"):
        find_arm(name)
