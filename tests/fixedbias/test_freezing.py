"""A bias that is trained, then fixed: exactly the one before, exactly the other after."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from fixedbias import FixedBiasDense, FreezableDense, FreezeAfter, fit_compiled, mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 4)).astype("float32")
Y = RNG.integers(0, 3, 48)
OPTIMIZERS: dict[str, Callable] = {
    "adam": lambda: keras.optimizers.Adam(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adamw": lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1),
    "average": lambda: keras.optimizers.Adam(0.05, use_ema=True),
}


def network(hidden: Any = FreezableDense, optimizer: Callable = OPTIMIZERS["adam"]) -> keras.Model:
    model = mlp(3, 5, "linspace", hidden=hidden, input_shape=(4,), classes=3, seed=1)
    model.compile(optimizer(), "sparse_categorical_crossentropy")
    return model


def train(model: keras.Model, fit: Callable, epochs: int, *callbacks: Any) -> Any:
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, "callbacks": [*callbacks]}
    return fit(model, X, Y, epochs=epochs, **options).history["loss"]


class Biases(keras.callbacks.Callback):
    def on_train_begin(self, logs: Any = None) -> None:
        self.seen = [self._now()]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append(self._now())

    def _now(self) -> np.ndarray:
        return np.array([self.model.get_layer(f"hidden_{t}").bias.numpy() for t in range(2)])


@pytest.mark.parametrize("fit", [keras.Model.fit, fit_compiled])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_bias_moves_for_k_epochs_and_never_after(fit: Callable, optimizer: Callable) -> None:
    biases = Biases()
    train(network(optimizer=optimizer), fit, 5, FreezeAfter(2), biases)
    moved = [not np.array_equal(a, b) for a, b in zip(biases.seen, biases.seen[1:], strict=False)]
    assert moved == [True, True, False, False, False]


@pytest.mark.parametrize("fit", [keras.Model.fit, fit_compiled])
def test_an_average_of_the_weights_leaves_what_is_fixed(fit: Callable) -> None:
    model = network(optimizer=OPTIMIZERS["average"])
    before = [model.get_layer(f"hidden_{t}").bias.numpy() for t in range(2)]
    train(model, fit, 2, FreezeAfter(0))
    for t, bias in enumerate(before):
        np.testing.assert_array_equal(model.get_layer(f"hidden_{t}").bias.numpy(), bias)


def test_it_may_be_built_with_low_rank_weights() -> None:
    layer = FreezableDense(4, bias=0.5, lora_rank=2)
    layer.build((None, 3))
    layer.fix()
    np.testing.assert_array_equal(layer(np.zeros((1, 3))).numpy(), np.full((1, 4), 0.5))


@pytest.mark.parametrize("fit", [keras.Model.fit, fit_compiled])
def test_fixed_after_0_epochs_it_trains_as_the_fixed_bias_layer(fit: Callable) -> None:
    ours, theirs = network(), network(FixedBiasDense)
    np.testing.assert_allclose(
        train(ours, fit, 4, FreezeAfter(0)), train(theirs, fit, 4), rtol=1e-5
    )
    for t in range(2):
        mine, other = (model.get_layer(f"hidden_{t}") for model in (ours, theirs))
        np.testing.assert_array_equal(mine.bias, other.bias)
        np.testing.assert_allclose(mine.kernel, other.kernel, rtol=1e-4, atol=1e-6)


def test_until_then_it_trains_as_dense() -> None:
    ours, theirs = network(), network(lambda units, bias, **kw: keras.layers.Dense(units, **kw))
    for t in range(2):
        theirs.get_layer(f"hidden_{t}").bias.assign(ours.get_layer(f"hidden_{t}").bias)
    np.testing.assert_allclose(
        train(ours, fit_compiled, 3, FreezeAfter(3)), train(theirs, fit_compiled, 3), rtol=1e-5
    )


def test_what_is_fixed_stays_so_in_a_second_training() -> None:
    model, biases = network(), Biases()
    train(model, keras.Model.fit, 2, FreezeAfter(1))
    train(model, keras.Model.fit, 2, FreezeAfter(1), biases)
    np.testing.assert_array_equal(biases.seen[0], biases.seen[-1])


# Keras calls `np.array` on HDF5 data sets, whose `__array__` has no `copy`.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_model_remembers_that_its_biases_are_fixed(tmp_path: Any) -> None:
    model, biases = network(), Biases()
    train(model, keras.Model.fit, 2, FreezeAfter(1))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    train(loaded, keras.Model.fit, 1, biases)
    kept = np.array([model.get_layer(f"hidden_{t}").bias.numpy() for t in range(2)])
    np.testing.assert_array_equal(biases.seen, [kept, kept])


def test_a_copy_from_its_config_starts_from_the_same_bias() -> None:
    layer = FreezableDense(3, [0.5, 1.0, -1.0], activation="tanh")
    copy = FreezableDense.from_config(layer.get_config())
    copy.build((None, 2))
    np.testing.assert_array_equal(copy.bias, [0.5, 1.0, -1.0])
    assert copy.get_config() == layer.get_config()


def test_a_bias_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\). Received: bias of shape \(2,\)"):
        FreezableDense(3, [1.0, 2.0])


@pytest.mark.parametrize("epochs", [-1, 1.5, True, "2"])
def test_epochs_must_be_a_number_of_epochs(epochs: Any) -> None:
    with pytest.raises(ValueError, match=r"`epochs` must be 0 or more. Received: epochs="):
        FreezeAfter(epochs)


@pytest.mark.parametrize(
    "other", [{"use_bias": False}, {"bias_initializer": "ones"}, {"bias_constraint": "non_neg"}]
)
def test_another_word_on_the_bias_is_refused(other: dict) -> None:
    (name,) = other
    with pytest.raises(ValueError, match=rf"leave out `use_bias`.* Received: .*{name}="):
        FreezableDense(2, **other)


def test_the_bias_is_checked_and_kept_in_the_layers_own_dtype() -> None:
    with pytest.raises(ValueError, match="`bias` must be finite in float16"):
        FreezableDense(2, bias=1e5, dtype="float16")
    layer = FreezableDense(2, bias=0.1, dtype="float64")
    layer.build((None, 3))
    assert layer.bias.numpy().tolist() == [0.1, 0.1]
    again = FreezableDense.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


class Block(keras.layers.Layer):
    """Holds its layers in a dict, and one in another layer."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = {"first": FreezableDense(4, 0.5)}
        self.wrapped = keras.layers.TimeDistributed(FreezableDense(3, -0.5))

    def build(self, input_shape: tuple) -> None:
        self.parts["first"].build(input_shape)
        self.wrapped.build((*input_shape[:-1], 4))

    def call(self, x: Any) -> Any:
        return self.wrapped(self.parts["first"](x))


def test_layers_within_layers_are_fixed_too() -> None:
    block = Block()
    inner = keras.Sequential([block, keras.layers.Dense(2)])
    model = keras.Sequential([keras.Input((5, 4)), inner])
    model.compile("adam", "mse")
    model.fit(
        np.ones((8, 5, 4), "float32"),
        np.ones((8, 5, 2), "float32"),
        verbose=0,
        callbacks=[FreezeAfter(0)],
    )
    np.testing.assert_array_equal(block.parts["first"].bias, [0.5] * 4)
    np.testing.assert_array_equal(block.wrapped.layer.bias, [-0.5] * 3)
