"""`python -m bench.rates`: the rate of large matrix products in every precision, measured."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bench.rules import UsageError, check_values, usage_error

if TYPE_CHECKING:
    from bench.records import Record

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """Times products of square matrices in float32, TensorFloat-32, bfloat16 and float16.

    What a training step of wide layers and large batches is held against.
    """

    device: str = "auto"
    """cpu, gpu, gpu:N, or auto (the first GPU if there is one)."""
    size: int | None = None
    """Rows and columns of the matrices; by default 8192 on a GPU and 1024 on a CPU."""
    time_cap: float = 8.0
    """Seconds of timing."""
    floor: float = 0.02
    """Seconds that one timing sample must last."""
    results: Path = Path("results")
    """Folder for the runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, or 2 for bad input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = tyro.cli(
            Annotated[Options, tyro.conf.FlagCreatePairsOff],
            args=argv,
            prog="python -m bench.rates",
        )
        check_values(_Checkable(**asdict(options)))
        if options.device == "all":
            raise UsageError("--device must be cpu, gpu, gpu:N or auto. Received: all.")
        return _drive(options, argv)
    except UsageError as error:
        return usage_error(error)


@dataclass(frozen=True)
class _Checkable(Options):
    data_dir: Path | None = None


def _drive(options: Options, argv: list[str]) -> int:
    from bench import rates
    from bench.devices import find_devices
    from bench.executors import LocalExecutor
    from bench.keys import cell_key
    from bench.records import write_record
    from bench.runs import open_run

    (device,) = find_devices(options.device)
    if options.size is None:
        options = replace(options, size=1024 if device == "cpu" else 8192)
    cell = {"device": device, "engine": "rates", "data": "normal", "size": options.size}
    header: dict[str, Any] = {"plan": [cell_key(cell)], "seed": 0}
    header["dataset"] = {"name": "normal", "checksum": ""}
    folder = open_run("bench.rates", argv, asdict(options), **header)
    with LocalExecutor(folder / "worker.log") as executor:
        record = executor.call(rates.measure, options, cell)
    write_record(folder, record)
    for name, arm in record.arms.items():
        print(f"{name}: {arm['flops_per_second'] / 1e12:,.3g} TFLOP/s")
    print(f"record: {folder}")
    return 0


def measure(options: Options, cell: dict[str, Any]) -> "Record":
    """Times the products, in the process that it is called in."""
    from bench.keys import cell_key
    from bench.nvml import GpuWatch
    from bench.records import Record, utc_now
    from bench.timing import measure_rounds

    started, device = utc_now(), cell["device"]
    chosen = [p for p in PRECISIONS if (p, device) != _NONE]
    size: int = cell["size"]
    bursts = {p: _burst(device, p, size, options.floor) for p in chosen}
    with GpuWatch(device) as watch:
        session = measure_rounds(
            bursts,
            reference="float32",
            compared=[],
            cap=options.time_cap,
            floor=options.floor,
            watch=watch,
        )
    flops = 2 * size**3
    arms: dict[str, Any] = {
        name: {"samples": samples, "flops_per_second": flops / median(samples)}
        for name, samples in session.samples.items()
    }
    return Record(
        key=cell_key(cell),
        cell=cell,
        status="ok",
        arms=arms,
        order=session.order,
        stop=session.stop,
        extra={"retaken_rounds": session.retaken_rounds, "held_back_by": session.held_back_by},
        started=started,
        ended=utc_now(),
    )


_NONE = ("tf32", "cpu")  # a CPU has no TensorFloat-32


def _burst(device: str, precision: str, size: int, floor: float) -> Any:
    """Products one after the other, as many as last longer than the floor: the precisions' speeds
    are too far apart for one number of them."""
    import time

    import tensorflow as tf

    from bench.runtime import set_up
    from bench.timing import Burst

    set_up(tf32=False)
    dtype = "float32" if precision == "tf32" else precision
    with tf.device(device):
        a, b = (tf.cast(tf.random.stateless_normal((size, size), (0, n)), dtype) for n in (0, 1))

    def products(count: int) -> Any:
        with tf.device(device):  # where operands are says nothing of where they are multiplied
            for _ in range(count):
                last = tf.matmul(a, b)
        return last

    def wait(product: Any) -> None:
        with tf.device(device):
            float(product[0, 0])

    one = Burst(
        launch=lambda: products(1),
        wait=wait,
        examples=1,
        before=lambda: set_up(tf32=precision == "tf32"),
    )
    seconds = min(one.sample(1, time.perf_counter) for _ in range(9))  # the first ones warm up
    count = max(1, round(1.5 * floor / seconds))
    return replace(one, launch=lambda: products(count), examples=count)


if __name__ == "__main__":
    sys.exit(main())
