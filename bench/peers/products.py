"""The ceiling as a peer: the bare matrix products of the training steps, and nothing else."""

import time
from collections.abc import Sequence

import numpy as np

from bench.ceilings import ceiling_bursts, step_products
from bench.peers.registry import Network
from bench.runtime import set_up


class Products:
    """The products of every step in one library (see `bench.ceilings`)."""

    def __init__(
        self,
        network: Network,
        weights: list[np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        orders: list[np.ndarray],
        device: str,
        library: str,
    ) -> None:
        set_up(tf32=False)  # as all peers
        layers, units, batch_size = network[:3]
        products = step_products(
            layers, units, batch_size, inputs=network.inputs, classes=network.classes
        )
        steps = len(orders[0]) // batch_size
        bursts = ceiling_bursts(products, batch_size, steps, device=device, dtype="float32")
        self._burst = bursts[library]

    def train(self, which: Sequence[int]) -> float:
        return self._burst.sample(len(which), time.perf_counter)

    def weights(self) -> list[np.ndarray]:
        return []
