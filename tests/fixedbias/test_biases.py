"""Bias presets give the values their table promises, and refuse what they cannot mean."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixedbias.biases import PRESETS, bias_values


@pytest.mark.parametrize(
    ("preset", "t", "expected"),
    [
        ("zeros", 2, [0, 0, 0]),
        ("constant", 2, [0.1, 0.1, 0.1]),
        ("constant:value=-2e-1", 0, [-0.2, -0.2, -0.2]),
        ("ramp", 0, [0, 0, 0]),
        ("ramp", 3, [0, 3, 6]),
        ("ramp:step=0.5", 3, [0, 1.5, 3]),
        ("linspace", 5, [-1, 0, 1]),
        ("linspace:low=1,high=2", 0, [1, 1.5, 2]),
        ("linspace:high=-1,low=1", 0, [1, 0, -1]),
        ("decreasing", 0, [1, 1, 1]),
        ("decreasing:value=3", 2, [1, 1, 1]),
    ],
)
def test_values(preset: str, t: int, expected: list[float]) -> None:
    np.testing.assert_array_equal(bias_values(preset, t, 3), np.float32(expected))


@pytest.mark.parametrize("preset", PRESETS)
def test_one_unit(preset: str) -> None:
    assert bias_values(preset, 0, 1).shape == (1,)


@given(
    preset=st.sampled_from(sorted(PRESETS)),
    t=st.integers(0, 100),
    units=st.integers(1, 300),
)
@settings(deadline=None, max_examples=50)
def test_every_preset_gives_finite_float32_and_the_same_again(
    preset: str, t: int, units: int
) -> None:
    values = bias_values(preset, t, units)
    assert (values.shape, values.dtype) == ((units,), np.float32)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values, bias_values(preset, t, units))


@pytest.mark.parametrize("preset", ["uniform", "normal"])
def test_random_biases_depend_on_seed_and_layer(preset: str) -> None:
    draws = [bias_values(f"{preset}:seed={seed}", t, 100) for seed in (0, 1) for t in (0, 1)]
    assert len({draw.tobytes() for draw in draws}) == 4
    np.testing.assert_array_equal(bias_values(preset, 0, 100), draws[0])


def test_random_biases_follow_their_distribution() -> None:
    uniform = bias_values("uniform:low=2,high=3", 0, 10_000)
    assert uniform.min() >= 2
    assert uniform.max() < 3
    normal = bias_values("normal:mean=5,stddev=0.5", 0, 10_000)
    # Five standard errors.
    assert normal.mean() == pytest.approx(5, abs=0.025)
    assert normal.std() == pytest.approx(0.5, abs=0.02)


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "my biases.npz"
    np.savez(path, **{"0": [1.0, 2.0], "1": np.array([3, 4], "int8")})
    np.testing.assert_array_equal(bias_values(f"file:{path}", 0, 2), np.float32([1, 2]))
    np.testing.assert_array_equal(bias_values(f"file:{path}", 1, 2), np.float32([3, 4]))


@pytest.mark.parametrize(
    ("arrays", "units"),
    [
        ({"1": [1.0, 2.0]}, 2),  # another layer's
        ({"0": [1.0, 2.0]}, 3),
        ({"0": [[1.0, 2.0]]}, 2),
        ({"0": ["a", "b"]}, 2),
        ({"0": np.array([1.0, 2.0], dtype=object)}, 2),  # pickled
        ({"0": [True, False]}, 2),
        ({"0": [1.0, np.nan]}, 2),
        ({"0": [1.0, 1e300]}, 2),  # not finite in float32
    ],
)
def test_file_without_this_layers_bias(tmp_path: Path, arrays: dict, units: int) -> None:
    np.savez(tmp_path / "biases.npz", **arrays)
    with pytest.raises(ValueError, match=r"Received: .*biases\.npz"):
        bias_values(f"file:{tmp_path / 'biases.npz'}", 0, units)


def test_file_that_is_not_npz(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("0 1 2")
    (tmp_path / "empty").touch()
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04cut")
    np.save(tmp_path / "array.npy", np.ones(2))
    for name in ("text", "empty", "cut.npz", "array.npy", "missing", ""):
        with pytest.raises(ValueError, match="must be a readable"):
            bias_values(f"file:{tmp_path / name}", 0, 2)


@pytest.mark.parametrize(
    "preset",
    [
        "",
        "Ramp",
        "ramp ",
        "random",
        "ramp:slope=1",
        "ramp:step",
        "ramp:step=",
        "ramp:step=one",
        "ramp:step=nan",
        "ramp:step=inf",
        "zeros:value=1",
        "normal:stddev=-1",
        "uniform:low=1,high=0",
        "uniform:seed=-1",
        "uniform:seed=0.5",
        "constant:value=1e39",
        "linspace:low=-1e308,high=1e308",
    ],
)
@pytest.mark.filterwarnings("error")
def test_unusable_preset_is_refused_by_name(preset: str) -> None:
    with pytest.raises(ValueError, match="Received: ") as error:
        bias_values(preset, 1, 3)
    assert repr(preset) in str(error.value)


@pytest.mark.parametrize(("t", "units"), [(-1, 3), (0, 0), (0, -3)])
def test_layer_or_units_out_of_range(t: int, units: int) -> None:
    with pytest.raises(ValueError, match=f"Received: t={t}, units={units}"):
        bias_values("decreasing", t, units)
