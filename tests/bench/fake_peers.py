"""Peers that only pretend, and a call that trains a real one: what test_peers.py runs elsewhere."""

import os
import signal
import time

import numpy as np

from bench.peers.registry import Network, Spec


class Fake:
    """Says that an epoch took `seconds`, writes down when it really ran, fails where told to.

    Or that it took `call` seconds and `step` seconds for each batch.
    """

    def __init__(self, network, weights, x, y, orders, device, **how):
        self.how = {"seconds": 0.01, "noise": 0.0, "log": None, "name": ""} | how
        self.calls, self.rng = 0, np.random.default_rng(0)
        if "step" in how:
            steps = len(orders[0]) // network.batch_size
            self.how["seconds"] = how["call"] + how["step"] * steps
        if self.how.get("fails") == "make":
            raise RuntimeError("I am not well")

    def train(self, which):
        self.calls += 1
        if self.calls == 5 and self.how.get("fails") == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        begin = time.time()
        if self.how["log"]:
            time.sleep(0.005)
            with open(self.how["log"], "a") as log:
                log.write(f"{self.how['name']} {begin} {time.time()}\n")
        return len(which) * self.how["seconds"] * (1 + self.how["noise"] * self.rng.random())

    def weights(self):
        return []


def train_steps(spec: Spec, network: Network, steps: int, images: str) -> list[np.ndarray]:
    """The weights of a peer after some steps on random images."""
    rng = np.random.default_rng(0)
    examples = network.batch_size * steps
    x = rng.integers(0, 256, (examples, network.inputs), "uint8")
    x = x if images == "uint8" else x.astype("float32") / np.float32(255)
    y = rng.integers(0, network.classes, examples).astype("uint8")
    order = rng.permutation(examples).astype("int32")
    peer = spec.make(network, network.start(1), x, y, [order], "cpu")
    peer.train([0])
    return peer.weights()
