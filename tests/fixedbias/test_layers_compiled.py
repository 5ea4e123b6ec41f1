"""How FixedBiasDense is compiled: alone by XLA, inside another function as part of that."""

import numpy as np
import pytest
import tensorflow as tf

from fixedbias.layers import FixedBiasDense
from tests.fixedbias.small_layers import BIAS, built, close, inputs


def weights_of(layer: FixedBiasDense) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.convert_to_tensor(layer.kernel), tf.convert_to_tensor(layer.bias)


def test_an_eager_call_is_one_function_compiled_by_xla() -> None:
    layer, x = built(), tf.constant(inputs(5, 3))
    for _ in range(3):
        layer(x)
    assert layer._compiled.experimental_get_tracing_count() == 1
    (concrete,) = layer._compiled._list_all_concrete_functions()
    assert concrete.function_def.attr["_XlaMustCompile"].b
    program = layer._compiled.experimental_get_compiler_ir(x, *weights_of(layer))
    assert "f32[5,4]" in program(stage="optimized_hlo")


def test_jit_compile_false_compiles_nothing() -> None:
    layer = built(jit_compile=False)
    layer(inputs(5, 3))
    assert layer._compiled.experimental_get_tracing_count() == 0


@pytest.mark.parametrize("jit_compile", [True, False])
def test_dissolves_into_an_outer_function(jit_compile: bool) -> None:
    layer, x = built(), inputs(5, 3)
    outer = tf.function(layer, jit_compile=jit_compile)
    close(outer(x), layer(x))
    graph = outer.get_concrete_function(tf.TensorSpec((5, 3))).graph
    operations = [operation.type for operation in graph.get_operations()]
    assert operations.count("MatMul") == 1
    assert not [name for name in operations if "Call" in name or "Xla" in name]


def test_stateless_call_uses_the_values_given() -> None:
    layer, x = built(), inputs(5, 3)
    layer(x)
    kernel, bias = np.ones((3, 4), "float32"), np.arange(4, dtype="float32")
    output, _ = layer.stateless_call([kernel], [bias], x)
    close(output, np.maximum(x @ kernel + bias, 0))


def test_stateless_call_vectorises_over_kernels() -> None:
    layer, x = built(), inputs(5, 3)
    kernels = inputs(7, 3, 4)
    outputs = tf.vectorized_map(
        lambda kernel: layer.stateless_call([kernel], [layer.bias.value], x)[0], kernels
    )
    for output, kernel in zip(outputs, kernels, strict=True):
        close(output, np.maximum(x @ kernel + np.float32(BIAS), 0))


def test_jacobian_through_the_compiled_call() -> None:
    layer, x = built(activation=None), tf.constant(inputs(2, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    jacobian = tape.batch_jacobian(y, x)
    close(jacobian, np.broadcast_to(layer.get_weights()[0].T, (2, 4, 3)))


def test_many_layers_set_off_no_retracing_warning(tensorflow_warnings: list[str]) -> None:
    for _ in range(12):
        built()(inputs(2, 3))
    assert tensorflow_warnings == []
