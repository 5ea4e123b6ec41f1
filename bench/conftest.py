"""Set-up of `pytest bench --benchmark-only`: options, machine, the race fixture, our table."""

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest

from bench.ceilings import Product, ceiling_bursts, ceiling_share
from bench.machine import describe_machine
from bench.ratios import Ratio
from bench.timing import Burst, Session, measure_rounds

ROUNDS = 15
FLOOR = 0.02
"""Seconds a sample must last."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--bench-full",
        action="store_true",
        help="every arm, precision and size, instead of a selection that takes under 3 minutes",
    )


def pytest_configure(config: pytest.Config) -> None:
    # Runs of the suite stay where the driver's runs are.
    if config.option.benchmark_storage == "file://./.benchmarks":
        config.option.benchmark_storage = "file://results/benchmarks"
    config.option.benchmark_autosave = config.option.benchmark_autosave or _save_name(config)


def _save_name(config: pytest.Config) -> str | None:
    return None if config.option.benchmark_disable else "suite"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    full = metafunc.config.option.bench_full
    axes: dict[str, list[Any]] = {
        "arm": ["dense", "dense-nobias", "fixed", "fixed-lambda", "plain"]
        + (["dense-frozen"] if full else []),
        "precision": ["float32"] + (["mixed_float16", "mixed_bfloat16"] if full else []),
        "images": ["uint8"] + (["float32"] if full else []),
        "units": [128] + ([64, 512, 1024] if full else []),
    }
    for name, values in axes.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values)


def pytest_benchmark_generate_machine_info(config: pytest.Config) -> dict[str, Any]:
    """Replaces the plugin's own, which names the host."""
    return describe_machine()


@pytest.fixture(autouse=True)
def _policy(request: pytest.FixtureRequest) -> Iterator[None]:
    import keras
    import tensorflow as tf

    before = keras.config.dtype_policy()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # as cells of bench.grid
    if "precision" in request.fixturenames:
        keras.config.set_dtype_policy(request.getfixturevalue("precision"))
    yield
    keras.config.set_dtype_policy(before)
    keras.backend.clear_session()


@pytest.fixture
def race(benchmark: Any) -> Callable[[Burst, list[Product], str], None]:
    """Times a burst with the plugin, and beside the bare matrix products it consists of.

    A round of the plugin is one sample: as many launches ("iterations") as last 20 ms, and one
    synchronisation after the last. Examples per second, GFLOP/s and the share of the ceiling are in
    `extra_info`, and in the table at the end.
    """

    def run(burst: Burst, products: list[Product], dtype: str) -> None:
        burst.wait(burst.launch())
        session = beside_products(burst, products, dtype)
        launches = itertools.count(1)

        def launch() -> None:
            launched = burst.launch()
            if next(launches) % session.repeats == 0:
                burst.wait(launched)

        benchmark.pedantic(launch, rounds=ROUNDS, iterations=session.repeats, warmup_rounds=2)
        rate = burst.examples / benchmark.stats.stats.median
        flops = sum(product.flops for product in products) / burst.examples
        benchmark.extra_info.update(
            examples_per_second=rate,
            gflop_per_second=rate * flops / 1e9,
            share_of_ceiling=ceiling_share(session.samples, "this"),
        )

    return run


def beside_products(burst: Burst, products: list[Product], dtype: str, steps: int = 1) -> Session:
    """Times a warm burst of `steps` steps, as `"this"`, beside the bare products of a step."""
    ceilings = ceiling_bursts(
        products,
        burst.examples // steps,
        steps,
        device="cpu" if _on_cpu() else "gpu",
        dtype=dtype,
    )
    for ceiling in ceilings.values():
        ceiling.wait(ceiling.launch())
    return measure_rounds(
        {"this": burst, **ceilings},
        reference="this",
        compared=[],
        floor=FLOOR,
        cap=0.5,
        min_rounds=ROUNDS,
    )


def ratio_info(ratio: Ratio) -> dict[str, float]:
    """A ratio for `extra_info`."""
    return {"ratio": ratio.estimate, "ratio_low": ratio.low, "ratio_high": ratio.high}


def _on_cpu() -> bool:
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [b for b in session.benchmarks if b.extra_info] if session else []
    if not rows:
        return
    terminalreporter.section("fixedbias")
    width = max(len(b.name) for b in rows)
    terminalreporter.write_line(
        f"{'benchmark':{width}} {'examples/s':>12} {'GFLOP/s':>8} {'ceiling':>8}  ratio"
    )
    for b in rows:
        info = b.extra_info
        ratio = ""
        if "ratio" in info:
            ratio = "{ratio:.2f} [{ratio_low:.2f}, {ratio_high:.2f}] {against}".format(**info)
            if "share_of_ceiling" in info:
                ratio += f", the bare products {info['ratio'] / info['share_of_ceiling']:.2f} x"
        terminalreporter.write_line(
            f"{b.name:{width}} {_cell(info, 'examples_per_second', '12,.0f')}"
            f" {_cell(info, 'gflop_per_second', '8.1f')} {_cell(info, 'share_of_ceiling', '8.0%')}"
            f"  {ratio}".rstrip()
        )


def _cell(info: dict[str, Any], name: str, form: str) -> str:
    width = int(form.partition(",")[0].partition(".")[0])
    return format(info[name], form) if name in info else " " * width
