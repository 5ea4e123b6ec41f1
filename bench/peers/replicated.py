"""The network on several devices as a peer of `fit_compiled` on one."""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bench.arms import ARMS, REFERENCE
from bench.peers.registry import Network
from fixedbias import mlp
from fixedbias.replicas import ReplicatedProgram


class Replicated:
    """The program behind `fit_replicated`, on the first so many devices.

    Args:
        replicas: How many. On a CPU they are logical devices, which share its cores.
    """

    def __init__(
        self,
        network: Network,
        weights: list[np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        orders: list[np.ndarray],
        device: str,
        replicas: int,
    ) -> None:
        self.network = network
        strategy = _strategy(device, replicas)
        # Float32 means IEEE float32, on GPUs too.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        with strategy.scope():
            self.model = mlp(
                network.layers,
                network.units,
                hidden=ARMS[REFERENCE].hidden,
                input_shape=x.shape[1:],
                rescale=1 / 255 if x.dtype == np.uint8 else None,
            )
            self.model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
        self.model.set_weights(weights)
        self._program = ReplicatedProgram(self.model)
        self._data = self._program.put((x, y))
        self._orders = [self._program.share(order, network.batch_size) for order in orders]

    def train(self, which: Sequence[int]) -> float:
        begin = time.perf_counter()
        for index in which:
            logs = self._program.train(self._data, self._orders[index])
        float(logs["loss"])
        return time.perf_counter() - begin

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(weight) for weight in self.model.get_weights()]


@lru_cache(maxsize=1)
def _strategy(device: str, replicas: int) -> tf.distribute.Strategy:
    """One for the process: a second one would number its sums as the first did, and be refused."""
    return tf.distribute.MirroredStrategy(_devices(device, replicas))


def _devices(device: str, replicas: int) -> list[str]:
    """Names of the devices; a CPU is cut into logical ones, before TensorFlow uses it."""
    if device != "cpu":
        return [f"gpu:{n}" for n in range(replicas)]
    (cpu,) = tf.config.list_physical_devices("CPU")
    if tf.config.get_logical_device_configuration(cpu) is None:
        parts: Any = [tf.config.LogicalDeviceConfiguration()] * replicas
        tf.config.set_logical_device_configuration(cpu, parts)
    return [f"cpu:{n}" for n in range(replicas)]
