"""Peers on Keras and TensorFlow: `fit`, a GradientTape loop, and this project's `fit_compiled`."""

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bench.arms import ARMS, REFERENCE
from bench.peers.registry import Network
from fixedbias import mlp
from fixedbias.epochs import device_data
from fixedbias.training import epoch_program

_LOSS = "sparse_categorical_crossentropy"


class _KerasPeer:
    def __init__(
        self,
        network: Network,
        weights: list[np.ndarray],
        x: np.ndarray,
        y: np.ndarray,
        orders: list[np.ndarray],
        device: str,
        **settings: Any,
    ) -> None:
        # Float32 means IEEE float32, on GPUs too.
        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.network = network
        self.model = mlp(
            network.layers,
            network.units,
            hidden=ARMS[REFERENCE].hidden,
            input_shape=x.shape[1:],
            rescale=1 / 255 if x.dtype == np.uint8 else None,
        )
        self.model.set_weights(weights)
        self.model.compile(keras.optimizers.Adam(1e-3), _LOSS, **settings)

    def weights(self) -> list[np.ndarray]:
        return [np.asarray(weight) for weight in self.model.get_weights()]


class Fit(_KerasPeer):
    """`model.fit` on arrays. They lie in the order of training: no shuffling, no random access."""

    def __init__(
        self, network: Any, weights: Any, x: Any, y: Any, orders: Any, *rest: Any, **settings: Any
    ) -> None:
        super().__init__(network, weights, x, y, orders, *rest, **settings)
        self._parts = [(x[order], y[order]) for order in orders]

    def train(self, which: Sequence[int]) -> float:
        clock = _EpochClock()
        for index in which:
            x, y = self._parts[index]
            self.model.fit(
                x,
                y,
                batch_size=self.network.batch_size,
                shuffle=False,
                verbose=0,
                callbacks=[clock],
            )
        return clock.seconds


class _EpochClock(keras.callbacks.Callback):
    """Times epochs alone: what a call of `fit` costs before its first epoch is paid once."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = self._begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        float(logs["loss"])  # waits
        self.seconds += time.perf_counter() - self._begin


class FitCompiled(_KerasPeer):
    """The program behind `fit_compiled`: resident data, the whole epoch inside XLA."""

    def __init__(self, network: Any, weights: Any, x: Any, y: Any, orders: Any, *rest: Any) -> None:
        super().__init__(network, weights, x, y, orders, *rest, jit_compile=True)
        self._data = device_data((x, y))
        self._orders = [tf.constant(order) for order in orders]
        self._program = epoch_program(self.model, self._data)

    def train(self, which: Sequence[int]) -> float:
        begin = time.perf_counter()
        for index in which:
            logs = self._program.train(self._data, self._orders[index], self.network.batch_size)
        float(logs["loss"])
        return time.perf_counter() - begin


class Tape(_KerasPeer):
    """A training loop as Keras's guide for TensorFlow writes it: tf.data, a compiled step."""

    def __init__(self, network: Any, weights: Any, x: Any, y: Any, orders: Any, *rest: Any) -> None:
        super().__init__(network, weights, x, y, orders, *rest, jit_compile=False)
        self._datasets = [
            tf.data.Dataset.from_tensor_slices((x[order], y[order]))
            .batch(network.batch_size, drop_remainder=True)
            .prefetch(tf.data.AUTOTUNE)
            for order in orders
        ]
        model, optimizer = self.model, self.model.optimizer
        loss_function = keras.losses.SparseCategoricalCrossentropy()
        self._mean = keras.metrics.Mean()

        @tf.function
        def train_step(x: tf.Tensor, y: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = loss_function(y, model(x, training=True))
            gradients = tape.gradient(loss, model.trainable_weights)
            optimizer.apply(gradients, model.trainable_weights)
            self._mean.update_state(loss)

        self._step = train_step

    def train(self, which: Sequence[int]) -> float:
        begin = time.perf_counter()
        for index in which:
            self._mean.reset_state()
            for x, y in self._datasets[index]:
                self._step(x, y)
        float(self._mean.result())
        return time.perf_counter() - begin
