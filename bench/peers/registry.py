"""The peers by name, and what each needs. No framework is imported here."""

import importlib
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

OURS = "fit_compiled"
"""The one that all others are compared with."""

CEILINGS = ("products-numpy", "products-tensorflow")
"""The bare matrix products: the limit, and no training."""


class Network(NamedTuple):
    """What is trained: the T-layer network on flat images, in batches of one size."""

    layers: int
    units: int
    batch_size: int
    inputs: int = 784
    classes: int = 10

    def start(self, seed: int) -> list[np.ndarray]:
        """Kernel, bias, kernel, bias, ...: glorot-uniform kernels (fan in, fan out), zero biases.

        Example:

        >>> [w.shape for w in Network(2, 64, 32).start(0)]
        [(784, 64), (64,), (64, 10), (10,)]
        """
        rng = np.random.default_rng(seed)
        widths = [self.inputs, *[self.units] * (self.layers - 1), self.classes]
        weights: list[np.ndarray] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            limit = (6 / (fan_in + fan_out)) ** 0.5  # Glorot and Bengio, AISTATS 2010
            kernel = rng.uniform(-limit, limit, (fan_in, fan_out)).astype("float32")
            weights += [kernel, np.zeros(fan_out, "float32")]
        return weights


class Peer(Protocol):
    """One implementation of the training, made as
    `Peer(network, weights, x, y, orders, device, **settings)`.

    `x` holds flat images, `(n, 784)`: float32 in [0, 1], or uint8, which the step scales; `y`
    holds labels, uint8. An order is an int32 array of indices into them, whole batches long.
    """

    def train(self, which: Sequence[int]) -> float:
        """Trains one epoch on each of the orders named by index; the seconds it took.

        Returns when the work is done, and not before.
        """

    def weights(self) -> list[np.ndarray]:
        """Kernel, bias, kernel, bias, ... as they are now; empty where nothing is trained."""


@dataclass(frozen=True)
class Spec:
    """How to make a peer.

    Args:
        where: `module:Class`.
        needs: Packages that must be there.
        settings: Further arguments of the class.
        devices: Kinds of device it runs on.
        multiple: An epoch must be a multiple of so many steps.
        what: In words.
    """

    where: str
    needs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "gpu")
    multiple: int = 1
    what: str = ""

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]

    def make(self, *arguments: Any) -> Peer:
        module, _, name = self.where.partition(":")
        peer: Peer = getattr(importlib.import_module(module), name)(*arguments, **self.settings)
        return peer


def _fit(jit_compile: bool, steps: int) -> Spec:
    return Spec(
        "bench.peers.keras_peers:Fit",
        settings={"jit_compile": jit_compile, "steps_per_execution": steps},
        multiple=steps,
        what=f"Keras fit, XLA {'on' if jit_compile else 'off'}, {steps} per execution",
    )


_TORCH = "bench.peers.torch_peers"
PEERS: dict[str, Spec] = {
    OURS: Spec("bench.peers.keras_peers:FitCompiled", what="this project"),
    "fit": _fit(False, 1),
    "fit-32": _fit(False, 32),
    "fit-xla": _fit(True, 1),
    "fit-xla-32": _fit(True, 32),
    "tape": Spec("bench.peers.keras_peers:Tape", what="GradientTape in a tf.function"),
    "jax": Spec("bench.peers.jax_peer:Scan", ("jax", "optax"), what="lax.scan in one jit, optax"),
    "torch": Spec(f"{_TORCH}:Eager", ("torch",), what="eager, fused Adam"),
    "torch-compile": Spec(f"{_TORCH}:Compiled", ("torch",), what="torch.compile of the step"),
    "torch-graph": Spec(
        f"{_TORCH}:Graph", ("torch",), devices=("gpu",), what="the step as a CUDA graph"
    ),
    "products-numpy": Spec(
        "bench.peers.products:Products", settings={"library": "numpy"}, devices=("cpu",)
    ),
    "products-tensorflow": Spec(
        "bench.peers.products:Products", settings={"library": "tensorflow"}
    ),
}
