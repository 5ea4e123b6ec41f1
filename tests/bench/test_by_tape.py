"""The engine `plain` trains what the others train, without `fit`."""

import keras
import numpy as np
import pytest

from bench.arms import find_arm
from bench.by_tape import tape_step
from bench.engines import prepare_data, training_burst
from bench.models import CellModel
from bench.plan import Cell
from fixedbias.datasets import load_dataset


@pytest.fixture(scope="module")
def dataset():
    return load_dataset("digits")


def found(dataset, arm: str, engine: str, precision: str = "float32") -> dict:
    keras.config.set_dtype_policy(precision)
    cell = Cell(3, 12, 100, precision, "cpu", engine, "linspace", "digits")
    return CellModel(find_arm(arm), cell, prepare_data(engine, dataset)).train(3, 2)


@pytest.mark.parametrize("arm", ["fixed", "plain", "freeze-after=1"])
def test_a_loop_by_hand_trains_as_the_compiled_engine_does(dataset, arm):
    """Same seeds, same batches (the last one is short), same optimizer."""
    ours, theirs = (found(dataset, arm, engine) for engine in ("plain", "compiled"))
    for mine, other in zip(ours["histories"], theirs["histories"], strict=True):
        np.testing.assert_allclose(mine["loss"], other["loss"], rtol=1e-3)
        np.testing.assert_allclose(mine["val_loss"], other["val_loss"], rtol=1e-3)
        assert len(mine["seconds"]) == 3
    np.testing.assert_allclose(ours["accuracies"], theirs["accuracies"], atol=0.01)


def test_loss_scaling_is_the_optimizers(dataset):
    ours, theirs = (found(dataset, "fixed", e, "mixed_float16") for e in ("plain", "compiled"))
    np.testing.assert_allclose(
        ours["histories"][0]["loss"], theirs["histories"][0]["loss"], rtol=2e-2
    )


def test_a_burst_is_of_as_many_examples_as_it_says_and_traces_once(dataset):
    cell = Cell(2, 12, 100, "float32", "cpu", "plain", "linspace", "digits")
    model = CellModel(find_arm("fixed"), cell, prepare_data("plain", dataset))
    burst = training_burst("plain", model.keras_model, model.data, 100)
    before = int(model.keras_model.optimizer.iterations.numpy())
    burst.wait(burst.launch())
    burst.wait(burst.launch())
    steps = int(model.keras_model.optimizer.iterations.numpy()) - before
    assert steps == 2 * -(-burst.examples // 100)
    assert burst.examples == 1442
    # One for batches of 100, one for those of any size.
    assert tape_step(model.keras_model).experimental_get_tracing_count() <= 2


@pytest.mark.parametrize("engine", ["plain", "compiled"])
def test_the_loss_scale_starts_anew_with_every_seed(dataset, engine):
    """A second `build` would make a second scale, and a restart set back the one unused."""
    cell = Cell(2, 4, 100, "mixed_float16", "cpu", engine, "linspace", "digits")
    keras.config.set_dtype_policy("mixed_float16")
    model = CellModel(find_arm("fixed"), cell, prepare_data(engine, dataset))
    optimizer = model.keras_model.optimizer
    before, scale = len(optimizer.variables), float(optimizer.dynamic_scale.numpy())
    model.train(1, 1)
    training_burst(engine, model.keras_model, model.data, 100).launch()
    assert len(optimizer.variables) == before
    optimizer.dynamic_scale.assign(2 * scale)
    model.restart(0)
    assert float(optimizer.dynamic_scale.numpy()) == scale
