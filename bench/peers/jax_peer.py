"""The peer in JAX: one `jit` around `lax.scan` over the steps of an epoch, with optax."""

import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from bench.peers.registry import Network

if flags := os.environ.get("XLA_FLAGS"):
    # The ptxas that TensorFlow is shown there need not be of JAX's version.
    own = [flag for flag in flags.split() if not flag.startswith("--xla_gpu_cuda_data_dir")]
    os.environ["XLA_FLAGS"] = " ".join(own)

import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_default_matmul_precision", "highest")  # no TF32 on GPUs

_adam = optax.adam(1e-3, eps=1e-7)


class Scan:
    """Data on the device; weights and optimizer state are donated, so that XLA updates in place."""

    def __init__(
        self,
        network: Network,
        weights: list[np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        orders: list[np.ndarray],
        device: str,
    ) -> None:
        self._x, self._y = jax.device_put(x), jax.device_put(y.astype("int32"))
        batches = [order.reshape(-1, network.batch_size) for order in orders]
        self._batches = [jax.device_put(batch) for batch in batches]
        # Copied, since a donated buffer must be JAX's own.
        self._params = [
            (jnp.array(kernel), jnp.array(bias))
            for kernel, bias in zip(weights[::2], weights[1::2], strict=True)
        ]
        self._state = _adam.init(self._params)

    def train(self, which: Sequence[int]) -> float:
        begin = time.perf_counter()
        for index in which:
            self._params, self._state, loss = _epoch(
                self._params, self._state, self._x, self._y, self._batches[index]
            )
        jax.block_until_ready((self._params, loss))
        return time.perf_counter() - begin

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(array) for layer in self._params for array in layer]


def _loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    if x.dtype == jnp.uint8:
        x = x.astype(jnp.float32) / 255
    for kernel, bias in params[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = params[-1]
    return optax.softmax_cross_entropy_with_integer_labels(x @ kernel + bias, y).mean()


@partial(jax.jit, donate_argnums=(0, 1))
def _epoch(params: Any, state: Any, x: jax.Array, y: jax.Array, batches: jax.Array) -> Any:
    def step(carry: Any, indices: jax.Array) -> Any:
        params, state = carry
        loss, gradients = jax.value_and_grad(_loss)(params, x[indices], y[indices])
        updates, state = _adam.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), loss

    (params, state), losses = jax.lax.scan(step, (params, state), batches, unroll=4)
    return params, state, losses.mean()
