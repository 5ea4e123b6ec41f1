"""Benchmarks of training the T = 3 network: one step, an epoch, and `fit_compiled` beside `fit`."""

import dataclasses
from functools import cache
from typing import Any

import keras
import numpy as np
import pytest

from bench.arms import ARMS
from bench.ceilings import ceiling_share, step_products
from bench.conftest import beside_products, ratio_info
from bench.engines import prepare_data, training_burst
from bench.models import build_model
from bench.plan import Cell
from bench.ratios import paired_ratio
from bench.timing import measure_rounds
from fixedbias import mlp
from fixedbias.datasets import load_dataset

LAYERS, EXAMPLES = 3, 60_032


@cache
def _data(engine: str) -> Any:
    # Speed alone is measured here, so no data set is needed.
    return prepare_data(engine, load_dataset(f"synthetic:{EXAMPLES}"))


def _model(arm: str, units: int, batch_size: int, engine: str = "compiled") -> Any:
    precision = keras.config.dtype_policy().name
    cell = Cell(LAYERS, units, batch_size, precision, "cpu", engine, "ramp", "synthetic")
    return build_model(ARMS[arm], cell, 0)


def _dtype() -> str:
    return str(keras.config.dtype_policy().compute_dtype)


@pytest.mark.benchmark(group="training step")
def test_step(race: Any, arm: str, precision: str, units: int) -> None:
    batch_size = 128
    model = _model(arm, units, batch_size)
    burst = training_burst("compiled", model, _data("compiled"), batch_size, batch_size)
    race(burst, step_products(LAYERS, units, batch_size), _dtype())


@pytest.mark.benchmark(group="training epoch")
def test_epoch(race: Any, arm: str, precision: str, units: int) -> None:
    batch_size = 128
    model = _model(arm, units, batch_size)
    burst = training_burst("compiled", model, _data("compiled"), batch_size)
    steps = burst.examples // batch_size
    race(burst, step_products(LAYERS, units, batch_size) * steps, _dtype())


@pytest.mark.benchmark(group="fit_compiled against fit")
@pytest.mark.parametrize("batch_size", [32, 128])
def test_fit_compiled_against_fit(benchmark: Any, batch_size: int, images: str) -> None:
    """Epochs of 469 steps, T = 3, 128 units, beside the faster of `fit` with XLA on and off.

    Both sides get the same images: float32 in [0, 1], as Keras's own MNIST examples have them, or
    the uint8 of the files, which the network scales. A call of `fit` also pays for setting up its
    input, some 5 % of such an epoch.
    """
    bursts, examples = {}, 469 * batch_size
    for engine in ("fit", "fit-xla", "compiled"):
        data = _data("compiled" if engine == "compiled" else "fit")
        if images == "float32":
            data = dataclasses.replace(data, train=(data.train[0] / np.float32(255), None))
        model = mlp(LAYERS, 128, "ramp", rescale=1 / 255 if images == "uint8" else None)
        model.compile(
            "adam",
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=engine != "fit",
        )
        bursts[engine] = training_burst(engine, model, data, batch_size, examples)
        bursts[engine].wait(bursts[engine].launch())
    heats = measure_rounds(bursts, reference="fit", compared=[], cap=0, min_rounds=2).samples
    compiled = bursts.pop("compiled")
    fit = min(bursts, key=lambda engine: min(heats[engine]))
    # Samples as long as those of `fit`: what a change of arms costs the caches is then the same.
    epochs = round(min(heats[fit]) / min(heats["compiled"]))

    def launch() -> Any:
        return [compiled.launch() for _ in range(epochs)][-1]

    # All else as it is: its variables move in memory as often as those of `fit` do.
    several = dataclasses.replace(compiled, launch=launch, examples=epochs * examples)
    both = {fit: bursts[fit], "compiled": several}
    session = measure_rounds(
        both, reference=fit, compared=["compiled"], halfwidth=0.05, cap=40, min_rounds=10
    )
    ratio = paired_ratio(session.samples[fit], session.samples["compiled"])

    # What is left to win: an epoch of nothing but matrix products.
    products = step_products(LAYERS, 128, batch_size)
    beside = beside_products(compiled, products, _dtype(), steps=examples // batch_size)
    share = ceiling_share(beside.samples, "this")

    benchmark.pedantic(lambda: compiled.wait(compiled.launch()), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(
        ratio_info(ratio),
        against=f"x {fit}",
        share_of_ceiling=share,
        examples_per_second=examples / benchmark.stats.stats.median,
        samples=session.samples,
        order=session.order,
    )
    assert ratio.estimate > 1
