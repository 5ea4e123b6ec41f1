"""Lambda layers and backend operations: the documents' examples on today's Keras.

`keras.backend` had these operations in Keras 2; they are in `keras.ops` since Keras 3.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

# Keras calls `np.array` on HDF5 data sets, whose `__array__` has no `copy`.
np_array_without_copy = pytest.mark.filterwarnings("ignore:__array__ implementation")

A, B = [[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]


def test_absolute_value_of_a_three_by_three_input() -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Lambda(ops.abs)(inputs))
    x = np.array([[1, -2, 3], [-4, 5, -6], [7, -8, 9]], "float32")
    np.testing.assert_array_equal(model(x), np.arange(1, 10).reshape(3, 3))


def test_sum_of_the_absolute_values_of_two_inputs() -> None:
    inputs = [keras.Input((3,)), keras.Input((3,))]
    total = keras.layers.Lambda(lambda pair: ops.abs(pair[0]) + ops.abs(pair[1]))(inputs)
    model = keras.Model(inputs, total)
    out = model([np.array([[-1.0, 2.0, -3.0]]), np.array([[4.0, -5.0, -6.0]])])
    np.testing.assert_array_equal(out, [[5, 7, 9]])


def test_matrix_product() -> None:
    np.testing.assert_array_equal(ops.matmul(ops.array(A), ops.array(B)), [[19, 22], [43, 50]])
    np.testing.assert_array_equal(ops.dot(ops.array(A), ops.array(B)), [[19, 22], [43, 50]])


def test_row_wise_dot_product() -> None:
    rows = ops.einsum("bi,bi->b", ops.array(A), ops.array(B))
    np.testing.assert_array_equal(rows, [17, 53])
    # As a layer, which keeps an axis for the products.
    layer = keras.layers.Dot(axes=1)([ops.array(A), ops.array(B)])
    np.testing.assert_array_equal(layer, [[17], [53]])


def test_element_wise_product() -> None:
    np.testing.assert_array_equal(ops.array(A) * ops.array(B), [[5, 12], [21, 32]])


def test_one_hot_of_0_2_1_0() -> None:
    encoded = ops.one_hot(ops.array([0, 2, 1, 0]), 3)
    np.testing.assert_array_equal(encoded, [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])


def test_permuting_the_axes() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(ops.transpose(x, (2, 0, 1)), np.transpose(x, (2, 0, 1)))
    # The layer counts axes from 1 and leaves the batch alone.
    assert keras.layers.Permute((2, 1))(x).shape == (2, 4, 3)
    np.testing.assert_array_equal(keras.layers.Permute((2, 1))(x), x.transpose(0, 2, 1))


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
def test_expanding_and_squeezing_any_axis(axis: int) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    expanded = ops.expand_dims(x, axis)
    assert expanded.shape == np.expand_dims(x, axis).shape
    np.testing.assert_array_equal(ops.squeeze(expanded, axis), x)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_gathering_on_any_axis(axis: int) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    indices = [1, 0, 1]
    np.testing.assert_array_equal(ops.take(x, indices, axis), np.take(x, indices, axis))


def test_a_constant_against_a_matrix_with_the_output_shape_stated() -> None:
    constant = np.array([[0.0, 1.0]], "float32")
    layer = keras.layers.Lambda(
        lambda x: ops.matmul(ops.convert_to_tensor(constant), x), output_shape=(2,)
    )
    inputs = keras.Input((2,), batch_size=2)
    # What is stated is what the model is built with: (batch, 2), though one row comes out.
    assert layer(inputs).shape == (2, 2)
    np.testing.assert_array_equal(layer(np.array(A, "float32")), [[3, 4]])


def double(x):
    return 2 * x


def two_models() -> tuple[keras.Model, keras.Model]:
    registered = keras.saving.register_keras_serializable("worked_examples")(double)
    return tuple(
        keras.Sequential([keras.Input((3,)), keras.layers.Lambda(function, output_shape=(3,))])
        for function in (lambda x: 2 * x, registered)
    )


@np_array_without_copy
def test_a_saved_lambda_expression_is_refused_for_safety(tmp_path: Path) -> None:
    """Its Python bytecode would run on whoever loads the file."""
    model, _ = two_models()
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ValueError, match=r"(?s)`Lambda` layer.*safe_mode"):
        keras.models.load_model(tmp_path / "lambda.keras")


@np_array_without_copy
def test_a_saved_lambda_layer_of_a_registered_function_is_loaded(tmp_path: Path) -> None:
    """The way that needs no bytecode: the file holds a name, and the loader has the function."""
    _, model = two_models()
    model.save(tmp_path / "registered.keras")
    loaded = keras.models.load_model(tmp_path / "registered.keras")
    x = np.array([[1.0, 2.0, 3.0]], "float32")
    np.testing.assert_array_equal(loaded(x), [[2, 4, 6]])
