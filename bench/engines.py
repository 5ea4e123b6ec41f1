"""What drives training: for every engine, one timed burst and one full training.

| engine | |
| --- | --- |
| `compiled` | `fixedbias.fit_compiled`: whole epochs inside XLA, data on the device |
| `fit` | `keras.Model.fit`, XLA off |
| `fit-xla` | `keras.Model.fit`, its step compiled by XLA |
| `plain` | a loop by hand: a `GradientTape` step as a graph, XLA off, Keras's optimizer, no `fit` |
"""

import itertools
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from bench.by_tape import fit_by_tape, tape_step
from bench.tasks import TaskData
from bench.timing import Burst
from fixedbias.datasets import Dataset
from fixedbias.epochs import EpochProgram, build_optimizer, device_data
from fixedbias.training import fit_compiled

# A burst is about this many examples: tens of milliseconds at the speeds of small networks.
_BURST_EXAMPLES = 8192
_BURST_STEPS = 8
# A burst made to last a given time: how much longer it is meant to be, since a machine is at times
# faster than it was when the step was timed; and XLA would leave the loop out of one step alone.
_AMPLE = 1.5
_LEAST_STEPS = 2
# Samples of an arm between two moves of its variables.
_SAMPLES_PER_PLACE = 10
# Not the global generator: making a model sets that back to the model's seed.
_places = random.Random()


@dataclass(frozen=True)
class Data:
    """The images and labels a comparison trains on, ready for its engine."""

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    noise: Any
    """Random labels for the training images: what is timed learns nothing of the task."""
    examples: int
    input_seconds: float
    """Seconds to bring the images to the device; 0 where the engine does so in every step."""


def prepare_data(engine: str, dataset: Dataset | TaskData) -> Data:
    """Puts the data where the engine wants it."""
    noise = np.random.default_rng(0).permutation(dataset.y_train)
    arrays = (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test, noise)
    seconds = 0.0
    if engine == "compiled":
        begin = time.perf_counter()
        arrays = device_data(arrays)
        _ = arrays[0][:1].numpy()
        seconds = time.perf_counter() - begin
    x, y, x_test, y_test, noise = arrays
    return Data((x, y), (x_test, y_test), noise, len(dataset.x_train), seconds)


def burst_steps(
    batch_size: int, examples: int, seconds: float = 0.0, epoch_seconds: float | None = None
) -> int:
    """Training steps in a burst, at most those of an epoch.

    Short bursts are the better ones: what disturbs a shared machine lasts longer than a few
    milliseconds, so that arms whose bursts lie close together meet it alike. On 2 shared cores,
    bursts of 8 ms left about half the error that as many seconds of 20 to 30 ms bursts did
    (`results/speed.md`).

    Args:
        batch_size: Examples in a step.
        examples: Examples in an epoch.
        seconds: How long a burst must last.
        epoch_seconds: What an epoch takes. Where it is not known, a burst has about 8,192
            examples.

    >>> burst_steps(32, 60000), burst_steps(32, 60000, 0.01, 0.375)
    (256, 75)
    """
    epoch_steps = -(-examples // batch_size)
    if epoch_seconds is None:
        steps = max(_BURST_STEPS, _BURST_EXAMPLES // batch_size)
    else:
        steps = max(_LEAST_STEPS, math.ceil(_AMPLE * seconds / epoch_seconds * epoch_steps))
    return min(steps, epoch_steps)


def training_burst(
    engine: str, model: keras.Model, data: Data, batch_size: int, examples: int | None = None
) -> Burst:
    """What is timed of an arm: training on the real images, with labels that mean nothing.

    Its program is traced and compiled anew for every burst.

    Args:
        engine: Drives the training.
        model: A compiled model.
        data: From `prepare_data` for this engine.
        batch_size: Examples in a step.
        examples: Examples in a burst, at most all; by default those of `burst_steps` steps.
    """
    if examples is None:
        examples = burst_steps(batch_size, data.examples) * batch_size
    examples = min(examples, data.examples)
    chosen = np.random.default_rng(0).permutation(data.examples)[:examples].astype("int32")
    x, _ = data.train

    samples = itertools.count()

    def before() -> None:
        if next(samples) % _SAMPLES_PER_PLACE == 0:
            _relocate([*model.variables, *model.optimizer.variables])

    if engine == "compiled":
        resident, order = (x, data.noise), tf.constant(chosen)
        _make_variables(model, x[:1], data.noise[:1])
        program = EpochProgram(model)
        return Burst(
            launch=lambda: program.train(resident, order, batch_size)["loss"],
            wait=lambda loss: float(loss),
            examples=examples,
            before=before,
        )
    images, labels = x[chosen], data.noise[chosen]
    if engine == "plain":
        step = tape_step(model)

        def steps() -> Any:
            for start in range(0, examples, batch_size):
                end = start + batch_size
                loss = step(images[start:end], labels[start:end])
            return loss

        return Burst(steps, lambda loss: float(loss), examples=examples, before=before)
    model.make_train_function(force=True)

    def fit() -> None:  # reads its metrics at the end of the epoch, and so waits
        model.fit(images, labels, batch_size=batch_size, shuffle=False, verbose=0)

    return Burst(launch=fit, wait=lambda _: None, examples=examples, before=before)


def _make_variables(model: keras.Model, x: Any, y: Any) -> None:
    """Makes those of optimizer and metrics, ten times as fast as `fixedbias.epochs.build` does.

    That traces a step, for models of any kind; those raced here are made of layers.
    """
    build_optimizer(model)
    y_pred = tf.zeros((1, *model.output_shape[1:]))
    model.compute_loss(y=y, y_pred=y_pred)
    model.compute_metrics(x, y, y_pred)


def _relocate(variables: list[keras.Variable]) -> None:
    """Moves variables to other places in memory.

    The pages a model gets when it is built are part of why models built alike differ on a CPU for
    as long as they live. Moved every few samples, a lucky place is noise, which rounds
    average out, and no longer a bias (Curtsinger and Berger, Stabilizer, ASPLOS 2013). Where the
    compiled code lies stays as it is.
    """
    if any("GPU" in variable.value.device for variable in variables[:1]):
        return  # a GPU's pages are large, and the copies would go through the host
    _places.shuffle(variables)
    # All copies live before the first old place is free, so that none gets its own place back.
    copies = [tf.constant(variable.numpy()) for variable in variables]
    for variable, copy in zip(variables, copies, strict=True):
        variable.assign(copy)


def train(
    engine: str,
    model: keras.Model,
    data: Data,
    *,
    batch_size: int,
    epochs: int,
    seed: int = 0,
    labels: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, list[float]]:
    """A full training, validated on the test images after every epoch.

    Returns:
        Keras's history, and under `seconds` what every epoch took, its validation apart.
    """
    x, y = data.train
    clock = _EpochClock()
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "epochs": epochs,
        "validation_data": data.test,
        "validation_batch_size": max(batch_size, 1000),
        "callbacks": [clock, *callbacks],
    }
    y = y if labels is None else labels
    if engine == "plain":
        return {**fit_by_tape(model, x, y, seed=seed, **common), "seconds": clock.seconds}
    if engine == "compiled":
        history = fit_compiled(model, x, y, seed=seed, verbose=0, **common)
    else:
        keras.utils.set_random_seed(seed)  # `fit` shuffles from the global state
        history = model.fit(x, y, verbose=0, **common)
    return {**history.history, "seconds": clock.seconds}


class _EpochClock(keras.callbacks.Callback):
    """Seconds from the start of an epoch to the start of its validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._begin = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begin = time.perf_counter()

    def on_test_begin(self, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._begin)
