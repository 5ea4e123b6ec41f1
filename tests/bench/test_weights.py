"""What is kept of weights is what they were."""

import doctest

import numpy as np

import bench.weights
from bench.weights import describe_weights, unpack_picture


def test_examples():
    assert doctest.testmod(bench.weights).failed == 0


def test_a_histogram_holds_every_weight():
    weights = {"k": np.random.default_rng(0).normal(size=(50, 40)).astype("float32")}
    found = describe_weights(weights, {"k": 2 * weights["k"]})["k"]
    for when, factor in {"before": 1, "after": 2}.items():
        histogram = found["histograms"][when]
        counts, edges = np.histogram(factor * weights["k"], 30)
        np.testing.assert_array_equal(histogram["counts"], counts)
        np.testing.assert_allclose([histogram["low"], histogram["high"]], edges[[0, -1]])
    assert found["change"] == np.abs(weights["k"]).max()


def test_weights_that_became_infinite_are_not_drawn_and_do_not_break_the_rest():
    start = {"k": np.zeros((784, 2), "float32"), "b": np.zeros(2, "float32")}
    broken = {"k": np.full((784, 2), np.nan, "float32"), "b": np.array([np.inf, 1], "float32")}
    found = describe_weights(start, broken)
    assert "picture" not in found["k"]
    assert found["k"]["histograms"]["after"]["counts"] == [0]
    assert found["b"]["histograms"]["after"]["counts"] == [1]


def test_a_wide_bias_is_kept_in_part_with_both_ends():
    bias = np.arange(4096, dtype="float32")
    kept = describe_weights({"b": bias}, {"b": bias + 1})["b"]["biases"]
    assert (len(kept["units"]), kept["units"][0], kept["units"][-1]) == (128, 0, 4095)
    assert kept["before"] == kept["units"]


def test_a_picture_is_the_first_units_of_the_first_kernel():
    kernel = np.random.default_rng(0).normal(size=(784, 20)).astype("float32")
    found = describe_weights({"a": kernel, "b": kernel}, {"a": kernel, "b": kernel})
    shown = unpack_picture(found["a"]["picture"])
    np.testing.assert_allclose(shown, kernel[:, :8], atol=np.abs(kernel).max() / 254 + 1e-6)
    assert "picture" not in found["b"]
