"""Stacked training gives every network what it would have learnt alone."""

from functools import partial
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest

from fixedbias import FixedBiasDense, fit_compiled, mlp
from fixedbias.stacked import fit_stacked, stacked_bytes
from fixedbias.stacked_epochs import StackedProgram

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (50, 28, 28)).astype("uint8")
Y = RNG.integers(0, 10, 50).astype("int32")


def make(seed: int, optimizer: Any = None) -> keras.Model:
    model = mlp(3, 8, "ramp", rescale=1 / 255, seed=seed)
    model.compile(
        optimizer or keras.optimizers.Adam(1e-2),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=True,
    )
    return model


@pytest.mark.parametrize(  # with and without a short last batch
    "batch_size", [16, pytest.param(10, marks=pytest.mark.slow)]
)
def test_every_seed_gets_what_it_gets_alone(batch_size: int) -> None:
    seeds = [3, 1, 4]
    stack, alone = [make(seed) for seed in seeds], [make(seed) for seed in seeds]
    held_out = X[:20], Y[:20]
    histories = fit_stacked(
        stack, X, Y, batch_size, 2, seeds=seeds, validation_data=held_out, stacked=True
    )
    for seed, one, other, history in zip(seeds, stack, alone, histories, strict=True):
        expected = fit_compiled(
            other, X, Y, batch_size, 2, 0, validation_data=held_out, seed=seed
        ).history
        assert history.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-4, err_msg=name)
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)
        assert int(one.optimizer.iterations) == int(other.optimizer.iterations)
    assert not np.allclose(stack[0].get_weights()[0], stack[1].get_weights()[0])


@pytest.mark.parametrize("precision", ["mixed_bfloat16"])
def test_fixed_biases_stay_when_stacked(precision: str) -> None:
    keras.config.set_dtype_policy(precision)
    models = [make(seed) for seed in (0, 1)]
    before = [model.get_layer("hidden_1").bias.numpy() for model in models]
    fit_stacked(models, X, Y, 16, 1, seeds=[0, 1], stacked=True)
    for model, bias in zip(models, before, strict=True):
        np.testing.assert_array_equal(model.get_layer("hidden_1").bias.numpy(), bias)


def test_on_a_cpu_they_are_trained_one_after_the_other(monkeypatch: Any) -> None:
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(StackedProgram, "__init__", None)  # would fail if it were used
    models = [make(seed) for seed in (0, 1)]
    assert len(fit_stacked(models, X, Y, 16, 1, seeds=[0, 1])) == 2


REFUSED = {
    "clipping": (keras.optimizers.Adam(global_clipnorm=1.0), "Adam with global_clipnorm=1.0"),
    "scaled loss": (keras.optimizers.SGD(loss_scale_factor=128.0), "loss_scale_factor=128.0"),
    "average": (keras.optimizers.Adam(use_ema=True), "use_ema=True"),
    "layer-wise": (keras.optimizers.Lamb(), "Received: Lamb"),
    "loss scale": (
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        "Received: LossScaleOptimizer",
    ),
}


@pytest.mark.parametrize(("optimizer", "words"), REFUSED.values(), ids=REFUSED)
def test_optimizers_that_look_at_a_whole_gradient_are_refused(optimizer: Any, words: str) -> None:
    with pytest.raises(ValueError, match="update every entry by itself") as refusal:
        fit_stacked([make(0, optimizer)], X, Y, seeds=[0], stacked=True)
    assert words in str(refusal.value)


def test_models_of_different_shapes_are_refused() -> None:
    other = mlp(2, 8, rescale=1 / 255)
    other.compile("adam", "sparse_categorical_crossentropy", jit_compile=True)
    with pytest.raises(ValueError, match="models of one shape"):
        fit_stacked([make(0), other], X, Y, seeds=[0, 1])


def test_other_metrics_are_refused() -> None:
    model = make(0)
    top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[top], jit_compile=True)
    with pytest.raises(ValueError, match=r"no metrics but `accuracy`.*\['top2'\]"):
        fit_stacked([model], X, Y, seeds=[0], stacked=True)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize(
    "labels", [Y.astype("float32"), Y[:, None], {"a": Y}], ids=["floats", "column", "dict"]
)
def test_labels_are_integers_wherever_it_trains(labels: Any, stacked: bool) -> None:
    with pytest.raises(ValueError, match="takes integer labels, one for each example"):
        fit_stacked([make(0)], X, labels, seeds=[0], stacked=stacked)


@pytest.mark.parametrize("stacked", [True, False])
def test_labels_may_be_a_column_of_a_data_frame(stacked: bool) -> None:
    found, same = (
        fit_stacked([make(0)], X, y, seeds=[3], validation_data=(X[:9], y[:9]), stacked=stacked)
        for y in (pd.Series(Y), Y)
    )
    assert found == same


@pytest.mark.parametrize("stacked", [True, False])
def test_the_batch_size_is_positive_wherever_it_trains(stacked: bool) -> None:
    with pytest.raises(ValueError, match="`batch_size` must be a positive integer"):
        fit_stacked([make(0)], X, Y, 0, seeds=[0], stacked=stacked)


@pytest.mark.parametrize("seeds", [[], [0]])
def test_seeds_are_one_per_model(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="one seed for each"):
        fit_stacked([make(0), make(1)], X, Y, seeds=seeds)


def test_memory_is_estimated_before_anything_is_compiled() -> None:
    model = make(0)
    assert stacked_bytes(model, 64, 16) == 64 * stacked_bytes(model, 1, 16)
    assert stacked_bytes(model, 1, 16) > 4 * 3 * 4 * model.count_params() // 4
    with pytest.raises(ValueError, match="stack fewer models"):
        fit_stacked([model], X, Y, seeds=[0], stacked=True, memory_limit=1000)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-4)),
        (keras.optimizers.SGD(1e-2), keras.optimizers.SGD(1e-2, momentum=0.5)),
    ],
)
def test_optimizers_of_different_settings_are_refused(first: Any, second: Any) -> None:
    models = [make(0, first), make(1, second)]
    with pytest.raises(ValueError, match="the same settings"):
        fit_stacked(models, X, Y, seeds=[0, 1], stacked=True)


def test_models_trained_unequally_far_are_refused() -> None:
    models = [make(0), make(1)]
    fit_compiled(models[1], X, Y, 16, 1, 0)
    with pytest.raises(ValueError, match="trained equally far"):
        fit_stacked(models, X, Y, seeds=[0, 1], stacked=True)


def test_labels_in_a_column_and_a_single_output_are_refused() -> None:
    with pytest.raises(ValueError, match="one for each example"):
        fit_stacked([make(0)], X, Y[:, None], seeds=[0], stacked=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    with pytest.raises(ValueError, match="of two classes or more"):
        fit_stacked([model], np.ones((8, 4), "float32"), Y[:8], seeds=[0], stacked=True)


@pytest.mark.parametrize("held_out", [False, True])
def test_x_and_y_must_be_of_one_length_whichever_way_it_trains(held_out: bool) -> None:
    short = X, Y[:-1]
    data, validation = ((X, Y), short) if held_out else (short, None)
    for stacked in (False, True):
        with pytest.raises(ValueError, match="49"):
            fit_stacked([make(0)], *data, seeds=[0], validation_data=validation, stacked=stacked)


def test_losses_that_layers_add_count() -> None:
    def penalised(seed: int) -> keras.Model:
        model = mlp(
            2,
            8,
            "ramp",
            rescale=1 / 255,
            seed=seed,
            hidden=partial(FixedBiasDense, activity_regularizer=keras.regularizers.L1(0.1)),
        )
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
        return model

    (history, _) = fit_stacked(
        [penalised(0), penalised(1)], X, Y, 16, 2, seeds=[0, 1], stacked=True
    )
    expected = fit_compiled(penalised(0), X, Y, 16, 2, 0, seed=0).history
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)


def test_models_with_a_step_of_their_own_are_refused_whichever_way_they_train() -> None:
    class Own(keras.Sequential):
        def train_step(self, data: Any) -> dict:
            return dict(super().train_step(data))

    model = Own([keras.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("sgd", "mse")
    for stacked in (False, True):
        with pytest.raises(ValueError, match=r"own `train_step`. Received: a model of class Own"):
            fit_stacked([model], X, Y, seeds=[0], stacked=stacked)
