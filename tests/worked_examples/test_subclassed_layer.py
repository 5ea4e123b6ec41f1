"""The fixed-bias layer as a subclass of Keras's `Layer`: the published examples."""

import keras
import numpy as np

from fixedbias import FixedBiasDense, load_dataset, mlp


def test_unit_rows_and_zero_bias_give_relu_of_the_kernels_rows() -> None:
    layer = FixedBiasDense(5, bias=0.0, activation="relu")
    out = layer(np.array([[1, 0, 0], [0, 1, 0]], "float32"))
    kernel = layer.kernel.numpy()
    np.testing.assert_array_equal(out, np.maximum(kernel[:2], 0))
    assert (kernel[:2] < 0).any()  # relu had something to do


def test_the_summary_of_three_layers_of_128_units() -> None:
    lines: list[str] = []
    mlp(3, 128, "ramp").summary(print_fn=lines.append)
    counts = [line for line in "\n".join(lines).splitlines() if "params:" in line]
    assert [line.split(":")[1].split()[0] for line in counts] == ["118,282", "118,026", "256"]
    assert [line.split(" params")[0].strip() for line in counts] == [
        "Total",
        "Trainable",
        "Non-trainable",
    ]


def test_training_leaves_the_biases_t_times_n_as_they_were() -> None:
    digits = load_dataset("digits")
    model = mlp(3, 128, "ramp", rescale=1 / 255)
    model.compile("adam", "sparse_categorical_crossentropy")
    kernels = [model.get_layer(f"hidden_{t}").kernel.numpy() for t in range(2)]
    model.fit(digits.x_train, digits.y_train, verbose=0)
    for t in range(2):
        layer = model.get_layer(f"hidden_{t}")
        np.testing.assert_array_equal(layer.bias, t * np.arange(128, dtype="float32"))
        assert not np.array_equal(layer.kernel, kernels[t])


def test_the_documented_custom_layer_survives_its_config_and_states_its_shape() -> None:
    layer = FixedBiasDense(5, bias=[0.0, 1.0, 2.0, 3.0, 4.0], activation="tanh", name="mine")
    copy = FixedBiasDense.from_config(layer.get_config())
    assert copy.get_config() == layer.get_config()
    assert copy.compute_output_shape((None, 3)) == (None, 5)
    x = np.ones((2, 3), "float32")
    layer.build(x.shape)
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    np.testing.assert_array_equal(copy(x), layer(x))
    assert copy(x).shape == (2, 5)
    # By name alone, as a saved model refers to it.
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is FixedBiasDense
