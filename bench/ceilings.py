"""The ceiling: how fast this machine does the bare matrix products of a training step."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bench.arms import REFERENCE
from bench.plan import Comparison
from bench.ratios import paired_ratio
from bench.tasks import task_of
from bench.timing import Burst, measure_rounds


class NoCeiling(Exception):
    """The bare products cannot be timed here. Its text says why."""


class Product(NamedTuple):
    """A matrix product of an (m, k) and a (k, n) matrix.

    `flip` says which operand lies in memory transposed: `"left"`, `"right"` or neither.
    """

    m: int
    k: int
    n: int
    flip: str = ""

    @property
    def flops(self) -> int:
        """A multiplication and an addition for every one of m * k * n terms."""
        return 2 * self.m * self.k * self.n


def step_products(
    layers: int, units: int, batch_size: int, *, inputs: int = 784, classes: int = 10
) -> list[Product]:
    """The matrix products of one training step of the T-layer network, forward and backward.

    A layer of weights (inputs, outputs) multiplies three times: `x @ W` forward, `x.T @ dy`
    for the kernel's gradient and `dy @ W.T` for that of its input, which the first layer
    does not need.

    Example:

    >>> sum(p.flops for p in step_products(1, 64, 32))  # 784 -> 10: forward and kernel gradient
    1003520
    """
    widths = [inputs, *[units] * (layers - 1), classes]
    products = []
    for t in range(layers):
        fan_in, fan_out = widths[t], widths[t + 1]
        products.append(Product(batch_size, fan_in, fan_out))
        products.append(Product(fan_in, batch_size, fan_out, "left"))
        if t > 0:
            products.append(Product(batch_size, fan_out, fan_in, "right"))
    return products


def ceiling_bursts(
    products: list[Product], batch_size: int, steps: int, *, device: str, dtype: str
) -> dict[str, Burst]:
    """Bursts that do nothing but the products of `steps` training steps, one per library.

    NumPy's BLAS takes part on a CPU in float32, TensorFlow everywhere. The best of them is the
    ceiling of the cell.
    """
    bursts = {"tensorflow": _burst(_tensorflow(products, dtype), batch_size, steps)}
    if device == "cpu" and dtype == "float32":
        bursts["numpy"] = _burst(_numpy(products), batch_size, steps)
    return bursts


def launching(count: int, batch_size: int, steps: int, *, device: str, dtype: str) -> Burst:
    """As many products as a step has, too small to take time: launching them is all there is.

    On a GPU products are launched one after the other, some microseconds each, whatever their size.
    Where launching takes as long as the products, their speed is none of the GPU's.
    """
    tiny = [Product(1, 1, 1)] * count
    return ceiling_bursts(tiny, batch_size, steps, device=device, dtype=dtype)["tensorflow"]


def ceiling_share(samples: Mapping[str, list[float]], arm: str) -> float:
    """Speed of an arm as a share of the fastest of the others, the libraries timed beside it."""
    return min(
        1 / paired_ratio(samples[arm], samples[name]).estimate for name in samples if name != arm
    )


def ceiling_cap(time_cap: float) -> float:
    """Seconds after which timing a ceiling ends, where the arms are timed for `time_cap`."""
    return min(5.0, time_cap / 4)


def measure_ceiling(comparison: Comparison, reference: Burst, steps: int) -> dict[str, Any]:
    """Times the bare products beside the reference arm, in rounds of their own.

    Apart from the arms' rounds, so that no library's threads disturb what is compared.

    Args:
        comparison: What is measured.
        reference: The reference arm's burst.
        steps: Training steps of one launch of it.

    Returns:
        For a record's `extra["ceiling"]`: seconds of every round under the arm's name and the
        libraries', their order, how long all of it took, and the products' FLOPs per example.

    Raises:
        NoCeiling: On a GPU, launching the products takes as long as they do.
    """
    import keras

    cell = comparison.cell
    task = task_of(cell.data)
    sizes = {"inputs": math.prod(task.input_shape), "classes": task.outputs}
    products = step_products(cell.layers, cell.units, cell.batch_size, **sizes)
    dtype = keras.config.dtype_policy().compute_dtype
    common: dict[str, Any] = {"device": cell.device, "dtype": dtype}
    bursts = ceiling_bursts(products, cell.batch_size, steps, **common)
    for burst in bursts.values():
        burst.warm()
    if cell.device != "cpu":
        tiny = launching(len(products), cell.batch_size, steps, **common)
        tiny.warm()
        launch, whole = (
            min(burst.sample(1, time.perf_counter) for _ in range(5))
            for burst in (tiny, bursts["tensorflow"])
        )
        if launch > whole / 2:
            raise NoCeiling(
                f"launching the products one by one takes {launch / whole:.0%} of their time"
            )
    session = measure_rounds(
        {REFERENCE: reference, **bursts},
        reference=REFERENCE,
        compared=list(bursts),
        seed=comparison.order_seed,
        floor=comparison.floor,
        halfwidth=5 * comparison.halfwidth,
        cap=ceiling_cap(comparison.time_cap),
        min_rounds=10,
    )
    return {
        "samples": session.samples,
        "order": session.order,
        "seconds": session.seconds,
        "flops_per_example": sum(p.flops for p in products) / cell.batch_size,
    }


def _burst(step: Callable[[], Any], batch_size: int, steps: int) -> Burst:
    def launch() -> Any:
        for _ in range(steps):
            last = step()
        return last

    return Burst(launch, lambda last: float(last[0, 0]), batch_size * steps)


def _operands(product: Product) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    m, k, n, flip = product
    a = rng.standard_normal((k, m) if flip == "left" else (m, k), "float32")
    b = rng.standard_normal((n, k) if flip == "right" else (k, n), "float32")
    return a, b


def _numpy(products: list[Product]) -> Callable[[], np.ndarray]:
    work = []
    for product in products:
        a, b = _operands(product)
        # BLAS reads a transposed view as it lies: no copy.
        a, b = a.T if product.flip == "left" else a, b.T if product.flip == "right" else b
        work.append((a, b, np.empty((product.m, product.n), "float32")))

    def step() -> np.ndarray:
        for a, b, out in work:
            np.matmul(a, b, out=out)
        return out

    return step


def _tensorflow(products: list[Product], dtype: str) -> Callable[[], Any]:
    import tensorflow as tf

    work = [
        (*[tf.cast(operand, dtype) for operand in _operands(product)], product.flip)
        for product in products
    ]

    def step() -> Any:
        for a, b, flip in work:
            out = tf.matmul(a, b, transpose_a=flip == "left", transpose_b=flip == "right")
        return out

    return step
