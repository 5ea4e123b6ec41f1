"""A peer's process, from both sides: what runs in it, and the driver's end of it."""

import gc
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bench.executors import LocalExecutor, WorkerDied
from bench.peers.registry import Network, Peer, Spec

# What an epoch has at first, and at least: so many examples, in so many steps.
_EXAMPLES = 4096
_STEPS = 4
# By so much a sample is planned to last longer than it must.
_AMPLE = 1.3

# OpenMP's threads (PyTorch's) were seen to spin for 8 ms after a sample, before they sleep.
_PAUSE = 0.01


@dataclass(frozen=True)
class Task:
    """What a peer trains: the network, the data, and where.

    Args:
        network: The network.
        data: Name of the data set.
        data_dir: Folder with its files.
        images: `"float32"`, in [0, 1], or `"uint8"`, scaled in the step.
        device: `"cpu"`, `"gpu:N"` or, of several, `"gpu:N,M"`.
        seed: Of kernels and orders.
        engine: What the record's cell says of who races.
    """

    network: Network
    data: str
    data_dir: str | None
    images: str = "float32"
    device: str = "cpu"
    seed: int = 0
    engine: str = "peers"


class PeerFailed(Exception):
    """A peer raised or its process died: its name, and what happened."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


class RemotePeer:
    """The driver's end of a peer: what a round times (see `bench.timing.Sampled`).

    Args:
        name: Of the peer.
        spec: How its process makes it.
        log: File for what its process prints.
        timeout: Seconds that anything asked of it may take.
    """

    def __init__(self, name: str, spec: Spec, log: Path, *, timeout: float) -> None:
        self.name, self.spec, self._timeout = name, spec, timeout
        self._executor = LocalExecutor(log)
        self.epoch_examples = 0
        self._floor = 0.0
        self.launches = 1
        self.short_samples = 0
        self.idle: list[tuple[float, float]] = []
        """Of every sample: seconds since the one before, and CPU seconds used in them."""

    @property
    def examples(self) -> int:
        return self.launches * self.epoch_examples

    def prepare(self, task: Task) -> dict[str, float]:
        """Builds, compiles and warms up, with short epochs; how long each of it took."""
        found: dict[str, Any] = self._call(_prepare, self.spec, task, _EXAMPLES)
        self.epoch_examples, self.launches = found.pop("examples"), 1
        return found

    def examples_in(self, seconds: float) -> int | None:
        """How many examples an epoch of so many seconds has; None if now it lasts as long, or if
        it has all of the data. To be asked while nothing else runs.
        """
        found: float | None = self._call(_epoch_seconds)
        if found is None or found >= seconds:
            return None
        return math.ceil(seconds / found * self.epoch_examples)

    def lengthen(self, task: Task, examples: int) -> None:
        """Prepares it again, with epochs of about so many examples."""
        self.epoch_examples = self._call(_prepare, self.spec, task, examples)["examples"]

    def warm_up(self, floor: float) -> None:
        """Chooses how many epochs a sample has: one, if it lasts at least `floor` seconds."""
        self._floor = floor
        self.sample(1, time.perf_counter)
        self.idle, self.short_samples = [], 0

    def sample(self, repeats: int, clock: Callable[[], float]) -> float:
        """Seconds by the clock of the peer's own process: asking for them is not in them.

        A sample shorter than the floor is taken again, with more epochs in it.
        """
        while True:
            time.sleep(_PAUSE)
            seconds, idle, used = self._call(_sample, repeats * self.launches)
            self.idle.append((idle, used))
            if seconds >= self._floor:
                return float(seconds)
            self.short_samples += 1
            self.launches *= max(2, math.ceil(_AMPLE * self._floor / seconds))

    def accuracy(self, task: Task, epochs: int) -> float | None:
        """Test accuracy after full epochs on the real labels; None if nothing is trained."""
        found: float | None = self._call(_accuracy, self.spec, task, epochs)
        return found

    def close(self) -> None:
        """Ends the process."""
        self._executor.close()

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._executor.call(function, *arguments, timeout=self._timeout)
        except WorkerDied as error:
            raise PeerFailed(self.name, str(error)) from None
        except Exception as error:  # whatever it was, it costs this peer and no other
            raise PeerFailed(self.name, f"{type(error).__name__}: {error}") from None


class _State:
    """The peer of this process, and where in its epochs and in time it is."""

    peer: Peer
    epochs = 1
    next = 0
    wall = cpu = 0.0


def epoch_orders(
    task: Task, examples: int, multiple: int, wanted: int = _EXAMPLES
) -> list[np.ndarray]:
    """One pass over the data in shuffled order, cut into epochs of equal length.

    An epoch has about `wanted` examples and at least 4 steps, in whole batches and in a multiple of
    `multiple` steps; all of them if there are fewer. What is left of the pass is left out.
    """
    batch_size = task.network.batch_size
    steps = max(_STEPS, wanted // batch_size)
    steps = min(-(-steps // multiple) * multiple, examples // batch_size)
    size = steps * batch_size
    order = np.random.default_rng(task.seed).permutation(examples).astype("int32")
    return [order[start : start + size] for start in range(0, examples - size + 1, size)]


def _prepare(spec: Spec, task: Task, wanted: int) -> dict[str, float]:
    """Makes the peer of this process; the examples of its epochs, and seconds."""
    _set_device(task.device)
    _State.peer = None  # type: ignore[assignment]  # frees the one before, first
    gc.collect()
    x, _, noise, _, _ = _load(task.data, task.data_dir, task.images)
    orders = epoch_orders(task, len(x), spec.multiple, wanted)
    begin = time.perf_counter()
    _State.peer = spec.make(
        task.network, task.network.start(task.seed), x, noise, orders, task.device
    )
    built = time.perf_counter() - begin
    _State.epochs, _State.next = len(orders), 0
    first = _State.peer.train([0])
    found = {"examples": len(orders[0]), "build_seconds": built}
    if wanted == _EXAMPLES:  # a longer epoch would take long twice
        found["compile_seconds"] = max(0.0, first - _State.peer.train([0]))
    return found


def _epoch_seconds() -> float | None:
    """Seconds of an epoch; None if it has all of the data."""
    return _State.peer.train([0]) if _State.epochs > 1 else None


def _sample(launches: int) -> tuple[float, float, float]:
    """Seconds of so many epochs; of the idle time before them; and of CPU time used in that."""
    which = [(_State.next + n) % _State.epochs for n in range(launches)]
    _State.next = (_State.next + launches) % _State.epochs
    idle = time.perf_counter() - _State.wall, time.process_time() - _State.cpu
    gc.disable()  # as in `measure_rounds`
    try:
        seconds = _State.peer.train(which)
    finally:
        gc.enable()
        _State.wall, _State.cpu = time.perf_counter(), time.process_time()
    return seconds, *idle


def _accuracy(spec: Spec, task: Task, epochs: int) -> float | None:
    _set_device(task.device)
    x, y, _, x_test, y_test = _load(task.data, task.data_dir, task.images)
    batch_size = task.network.batch_size
    whole = len(x) // batch_size * batch_size
    rng = np.random.default_rng(task.seed)
    orders = [rng.permutation(len(x)).astype("int32")[:whole] for _ in range(epochs)]
    peer = spec.make(task.network, task.network.start(task.seed), x, y, orders, task.device)
    if not peer.weights():
        return None
    for epoch in range(epochs):
        peer.train([epoch])
    return float(np.mean(predict(peer.weights(), x_test) == y_test))


def predict(weights: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """The network's answers in NumPy: one judge for all peers.

    Args:
        weights: Kernel, bias, kernel, bias, ...
        x: Flat images, `(n, 784)`, float32 in [0, 1] or uint8.

    Returns:
        The likeliest class of every image, `(n,)`.
    """
    if x.dtype == np.uint8:
        x = x.astype("float32") / 255
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        x = np.maximum(x @ kernel + bias, 0)
    found: np.ndarray = np.argmax(x @ weights[-2] + weights[-1], axis=1)
    return found


@lru_cache(maxsize=1)
def _load(name: str, folder: str | None, images: str) -> tuple[np.ndarray, ...]:
    """Flat images and labels, labels that mean nothing, test images and labels."""
    from fixedbias.datasets import load_dataset

    data = load_dataset(name, folder, download=False)

    def flat(x: np.ndarray) -> np.ndarray:
        x = x.reshape(len(x), -1)
        return x if images == "uint8" else x.astype("float32") / np.float32(255)

    noise = np.random.default_rng(0).permutation(data.y_train)
    return flat(data.x_train), data.y_train, noise, flat(data.x_test), data.y_test


# What the user lets be seen, in a process of its own.
_VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES")


def _set_device(device: str) -> None:
    """Shows every framework the one device, before any of them is imported."""
    kind, _, numbers = device.partition(":")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    else:
        names = _VISIBLE.split(",") if _VISIBLE else None
        shown = [names[int(n)] if names else n for n in numbers.split(",")]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shown)
    if kind == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    # Several processes share the GPU: none may take all of its memory.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
