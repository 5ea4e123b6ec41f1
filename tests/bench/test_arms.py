"""The registry: every arm starts from the same kernels, and a user's layer may join."""

import keras
import numpy as np
import pytest

from bench.arms import ARMS, find_arm, user_arms
from bench.models import build_model
from bench.plan import Cell

CELL = Cell(3, 16, 8, "float32", "cpu", "compiled", "linspace", "digits")


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("seed", [0, 7])
def test_every_arm_starts_from_bit_equal_kernels(arm, seed):
    reference = build_model(ARMS["dense"], CELL, seed)
    model = build_model(ARMS[arm], CELL, seed)
    for layer in ("hidden_0", "hidden_1", "output"):
        ours, theirs = (m.get_layer(layer).get_weights()[0] for m in (model, reference))
        assert np.array_equal(ours, theirs)


def test_seeds_differ():
    a, b = (build_model(ARMS["fixed"], CELL, seed) for seed in (0, 1))
    assert not np.array_equal(a.get_layer("hidden_0").kernel, b.get_layer("hidden_0").kernel)


def test_what_each_arm_trains():
    hidden = 2 * 16
    counts = {}
    for name, arm in ARMS.items():
        model = build_model(arm, CELL, 0)
        trained = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        counts[name] = (model.count_params(), trained)
    total = 784 * 16 + 16 * 16 + 16 * 10 + 10
    assert counts == {
        "dense": (total + hidden, total + hidden),
        "dense-nobias": (total, total),
        "dense-frozen": (total + hidden, total),
        "fixed": (total + hidden, total),
        # Here the bias is a constant of the program.
        "fixed-lambda": (total, total),
        "plain": (total, total),
    }


def test_frozen_and_fixed_hold_the_same_bias():
    frozen, fixed = (build_model(ARMS[name], CELL, 0) for name in ("dense-frozen", "fixed"))
    for layer in ("hidden_0", "hidden_1"):
        expected = np.linspace(-1, 1, 16, dtype="float32")
        assert np.array_equal(frozen.get_layer(layer).bias, expected)
        assert np.array_equal(fixed.get_layer(layer).bias, expected)


@pytest.mark.parametrize(
    ("engine", "jit"), [("fit", False), ("plain", False), ("fit-xla", True), ("compiled", True)]
)
def test_xla_is_on_or_off_and_never_left_to_keras(engine, jit):
    cell = Cell(2, 4, 8, "float32", "cpu", engine, "zeros", "digits")
    assert build_model(ARMS["dense"], cell, 0).jit_compile is jit


MINE = """
import keras

class Scaled(keras.layers.Layer):
    def __init__(self, units, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.factor = units, factor

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units))

    def call(self, x):
        return keras.ops.relu(self.factor * (x @ self.kernel))

class Wide(Scaled):
    def call(self, x):
        return keras.ops.concatenate([super().call(x)] * 2, -1)
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "my_layers.py"
    path.write_text(MINE)
    return path


def test_a_layer_from_a_file_takes_its_arguments_and_the_others_kernels(mine):
    arms = user_arms([f"{mine}:Scaled", "factor=0.5"])
    model = build_model(arms["Scaled"], CELL, 0)
    reference = build_model(ARMS["dense"], CELL, 0)
    layer = model.get_layer("hidden_0")
    assert layer.factor == 0.5
    assert np.array_equal(layer.kernel, reference.get_layer("hidden_0").kernel)


def test_naming_a_layer_imports_nothing(tmp_path, monkeypatch):
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    (package / "inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(user_arms(["explosive.inner:L"])) == ["L"]
    for name in (
        "explosive.outer",
        "explosive.inner.more",
        "no_such.inner",
        "..",
        "x" * 5000 + ".py",
    ):
        with pytest.raises(ValueError, match="must name a module that Python finds"):
            user_arms([f"{name}:L"])


def test_a_keras_layer_may_join_by_its_module():
    arms = user_arms(["keras.layers:Dense", "use_bias=False", "keras.layers:Dense"])
    assert list(arms) == ["Dense", "Dense'"]
    assert build_model(arms["Dense"], CELL, 0).get_layer("hidden_0").bias is None
    assert build_model(arms["Dense'"], CELL, 0).get_layer("hidden_0").bias is not None
    # It takes an activation, so it gets the others'.
    assert build_model(arms["Dense"], CELL, 0).get_layer("hidden_0").activation is (
        keras.activations.relu
    )


def test_a_layer_of_the_wrong_shape_is_refused(mine):
    arms = user_arms([f"{mine}:Wide"])
    with pytest.raises(ValueError, match=r"\(batch, 16\).*Wide"):
        build_model(arms["Wide"], CELL, 0)


def test_nothing_is_imported_before_a_layer_is_made(tmp_path):
    path = tmp_path / "explodes.py"
    path.write_text("raise SystemError('imported')")
    arms = user_arms([f"{path}:X"])
    with pytest.raises(SystemError):
        build_model(arms["X"], CELL, 0)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_an_arm_of_its_own_precision(precision):
    before = keras.config.dtype_policy()
    model = build_model(find_arm(f"fixed@{precision}"), CELL, 0)
    assert keras.config.dtype_policy() == before
    # The probabilities are float32, as always.
    policies = [layer.dtype_policy.name for layer in model.layers if layer.weights]
    assert policies == [precision] * (CELL.layers - 1) + ["float32"]
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) is (
        precision == "mixed_float16"
    )
    reference = build_model(ARMS["fixed"], CELL, 0)
    for mine, others in zip(model.get_weights(), reference.get_weights(), strict=True):
        assert np.array_equal(mine, others)


@pytest.mark.parametrize("name", ["fixed@", "fixed@float8", "@float32", "frozen@float32"])
def test_what_is_no_arm_of_a_precision(name):
    with pytest.raises(ValueError, match=r"An arm must be one of .* Received: "):
        find_arm(name)
