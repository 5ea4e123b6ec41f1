"""FLOPs from the shapes, against a count by hand; and what the ceiling's bursts compute."""

import time

import numpy as np
import pytest

from bench.ceilings import Product, _operands, ceiling_bursts, launching, step_products


def test_flops_of_a_step_by_hand():
    """T = 3, 128 units, batch 32, counted by hand."""
    forward = 784 * 128 + 128 * 128 + 128 * 10
    kernels = forward
    inputs = 128 * 128 + 128 * 10  # the first layer's input needs no gradient
    by_hand = 2 * 32 * (forward + kernels + inputs)
    assert sum(p.flops for p in step_products(3, 128, 32)) == by_hand == 16_236_544


@pytest.mark.parametrize(("layers", "count"), [(1, 2), (2, 5), (3, 8)])
def test_products_of_a_step(layers, count):
    assert len(step_products(layers, 64, 8)) == count


def test_products_have_the_shapes_of_forward_and_backward():
    for product in step_products(4, 24, 6):
        a, b = _operands(product)
        a, b = (a.T if product.flip == "left" else a), (b.T if product.flip == "right" else b)
        assert (a @ b).shape == (product.m, product.n)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_every_library_computes_the_products(dtype):
    bursts = ceiling_bursts([Product(4, 5, 6, "left")], 4, 2, device="cpu", dtype=dtype)
    assert set(bursts) == ({"tensorflow", "numpy"} if dtype == "float32" else {"tensorflow"})
    a, b = _operands(Product(4, 5, 6, "left"))
    for burst in bursts.values():
        assert burst.examples == 8
        np.testing.assert_allclose(
            np.asarray(burst.launch(), "float32"), a.T @ b, atol=0.1 if dtype != "float32" else 1e-5
        )


def test_launching_is_as_many_products_of_no_size():
    products = [Product(128, 784, 512)] * 8
    whole = ceiling_bursts(products, 128, 4, device="cpu", dtype="float32")["tensorflow"]
    tiny = launching(8, 128, 4, device="cpu", dtype="float32")
    assert tiny.examples == whole.examples
    assert np.shape(tiny.launch()) == (1, 1)
    each = [min(b.sample(1, time.perf_counter) for _ in range(5)) for b in (tiny, whole)]
    assert each[0] < each[1] / 2
