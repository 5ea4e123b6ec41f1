"""An arm of a cell is trained from the very start for every seed, on the same batches as others."""

import json

import numpy as np
import pytest

from bench.arms import ARMS
from bench.engines import prepare_data, train, training_burst
from bench.models import CellModel
from bench.plan import Cell
from bench.weights import unpack_picture
from fixedbias import bias_values
from fixedbias.datasets import load_dataset


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits")


def cell_model(arm, dataset, precision="float32", engine="compiled"):
    import keras

    keras.config.set_dtype_policy(precision)
    cell = Cell(2, 12, 64, precision, "cpu", engine, "linspace", "digits")
    return CellModel(ARMS[arm], cell, prepare_data(engine, dataset))


def losses(found):
    return [history["loss"] for history in found["histories"]]


@pytest.mark.parametrize("precision", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_same_arm_built_twice_trains_alike_to_the_last_bit(dataset, precision):
    one, two = (cell_model("dense", dataset, precision).train(2, 2) for _ in range(2))
    assert losses(one) == losses(two)
    assert one["accuracies"] == two["accuracies"]


def test_a_seed_does_not_depend_on_those_before_it(dataset):
    model = cell_model("fixed", dataset)
    first = model.train(2, 2)
    model.restart(1)
    what = {"batch_size": 64, "data": model.data}
    again = train("compiled", model.keras_model, epochs=2, seed=1, **what)
    assert again["loss"] == first["histories"][1]["loss"]


def test_frozen_and_fixed_are_the_same_training(dataset):
    """One holds the fixed bias in a `Dense`, the other is the layer: same batches, same numbers."""
    frozen, fixed = (cell_model(arm, dataset).train(3, 1) for arm in ("dense-frozen", "fixed"))
    np.testing.assert_allclose(losses(frozen), losses(fixed), rtol=1e-4)


def test_what_training_did_to_the_weights_is_kept(dataset):
    fixed, dense = (cell_model(arm, dataset).train(1, 2)["weights"] for arm in ("fixed", "dense"))
    assert list(fixed) == ["hidden_0/kernel", "hidden_0/bias", "output/kernel", "output/bias"]
    bias = fixed["hidden_0/bias"]
    assert bias["change"] == 0
    assert bias["biases"]["before"] == bias["biases"]["after"] == bias_values_4(12)
    assert dense["hidden_0/bias"]["change"] > 0
    assert min(fixed[k]["change"] for k in fixed if k != "hidden_0/bias") > 0
    # Both start from the same kernel, and differ by what they learnt.
    histograms = [arm["hidden_0/kernel"]["histograms"] for arm in (fixed, dense)]
    assert histograms[0]["before"] == histograms[1]["before"]
    assert histograms[0]["after"] != histograms[1]["after"]
    assert sum(histograms[0]["after"]["counts"]) == 784 * 12
    assert unpack_picture(fixed["hidden_0/kernel"]["picture"]).shape == (784, 8)
    assert len(json.dumps(fixed)) < 14_000  # a record stays small


def bias_values_4(units):
    return [float(f"{v:.4g}") for v in bias_values("linspace", 0, units)]


@pytest.mark.parametrize("engine", ["compiled", "fit", "fit-xla"])
def test_timing_leaves_the_task_unlearnt_and_training_learns_it(dataset, engine):
    model = cell_model("fixed", dataset, engine=engine)
    burst = training_burst(engine, model.keras_model, model.data, 64)
    for _ in range(20):
        burst.wait(burst.launch())
    x, y = model.data.test
    _, timed = model.keras_model.evaluate(np.asarray(x), np.asarray(y), verbose=0)
    found = model.train(20, 1)
    assert timed < 0.4  # labels that mean nothing; chance is 0.1
    assert found["accuracies"][0] > 0.8
    assert len(found["histories"][0]["seconds"]) == 20
