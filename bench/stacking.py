"""`python -m bench.stacking`: the time of an epoch for many networks stacked, over that for one."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bench.rules import UsageError, check_values, usage_error

if TYPE_CHECKING:
    from bench.records import Record


@dataclass(frozen=True)
class Options:
    """Times epochs of stacked networks (fit_stacked) beside those of one network (fit_compiled).

    All in one process, in interleaved rounds; one synchronisation per sample.
    """

    device: str = "auto"
    """cpu, gpu, gpu:N, or auto (the first GPU if there is one)."""
    layers: int = 3
    """Layers with weights, the output layer counted."""
    units: int = 128
    """Units of every hidden layer."""
    batch_size: int = 128
    """Examples in a training step of each network."""
    counts: tuple[int, ...] = (4, 16, 64, 256)
    """How many networks to stack."""
    data: str = "auto"
    """Data set, as for bench.grid."""
    data_dir: Path | None = None
    """Folder with the data files (default: the environment variable FIXEDBIAS_DATA)."""
    results: Path = Path("results")
    """Folder for the runs."""
    halfwidth: float = 0.02
    """Stop timing when every ratio is known to this relative half-width."""
    time_cap: float = 20.0
    """Seconds of timing, precise or not."""
    floor: float = 0.02
    """Seconds that one timing sample must last."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 if a count failed, 2 for bad input."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = tyro.cli(
            Annotated[Options, tyro.conf.FlagCreatePairsOff],
            args=argv,
            prog="python -m bench.stacking",
        )
        check_values(options)
        if options.device == "all":
            raise UsageError("--device must be cpu, gpu, gpu:N or auto. Received: all.")
        return _drive(options, argv)
    except UsageError as error:
        return usage_error(error)


def _drive(options: Options, argv: list[str]) -> int:
    from bench import stacking
    from bench.devices import find_devices
    from bench.executors import LocalExecutor
    from bench.keys import cell_key
    from bench.records import write_record
    from bench.runs import find_data, open_run

    located, dataset = find_data(options.data, options.data_dir)
    (device,) = find_devices(options.device)
    cell = {
        "layers": options.layers,
        "units": options.units,
        "batch_size": options.batch_size,
        "precision": "float32",
        "device": device,
        "engine": "stacked",
        "bias": "constant",
        "data": located.name,
    }
    header: dict[str, Any] = {"plan": [cell_key(cell)], "dataset": dataset, "seed": 0}
    folder = open_run("bench.stacking", argv, asdict(options), **header)
    with LocalExecutor(folder / "worker.log") as executor:
        record = executor.call(stacking.measure, options, cell, located.data_dir)
    write_record(folder, record)
    for line in lines(record):
        print(line)
    print(f"record: {folder}")
    return int(any("error" in arm for arm in record.arms.values()))


def lines(record: "Record") -> list[str]:
    """What a record says: a line for each number of networks."""
    found = [
        f"{count} networks: {estimate:.2f} ({low:.2f}-{high:.2f}) times one's time"
        for count, (low, estimate, high) in time_ratios(record).items()
    ]
    errors = [f"{n} networks: {arm['error']}" for n, arm in record.arms.items() if "error" in arm]
    return found + errors


def time_ratios(record: "Record") -> dict[int, tuple[float, float, float]]:
    """Time of an epoch of so many networks over that of one: low, estimate, high."""
    from bench.ratios import paired_ratio

    found = {}
    for name, arm in record.arms.items():
        if name != "1" and arm.get("samples"):
            speed = paired_ratio(record.arms["1"]["samples"], arm["samples"])
            low = 1 / speed.low if speed.low else float("inf")
            found[int(name)] = (1 / speed.high, 1 / speed.estimate, low)
    return found


def measure(options: Options, cell: dict[str, Any], data_dir: str | None) -> "Record":
    """Times the stacks beside one network, in the process that it is called in."""
    import tensorflow as tf

    from bench.arms import find_arm
    from bench.engines import prepare_data, training_burst
    from bench.keys import cell_key
    from bench.machine import held_back, read_state
    from bench.models import build_model
    from bench.nvml import GpuWatch
    from bench.plan import Cell
    from bench.records import Record, utc_now
    from bench.runtime import set_precision
    from bench.timing import measure_rounds
    from bench.worker import describe_error
    from fixedbias.datasets import load_dataset

    started, before = utc_now(), read_state()
    runtime = set_precision("float32")
    arms: dict[str, dict[str, Any]] = {"1": {}}
    with tf.device(cell["device"]), GpuWatch(cell["device"]) as watch:
        data = prepare_data("compiled", load_dataset(cell["data"], data_dir, download=False))
        one = Cell(**cell | {"engine": "compiled"})
        model = build_model(find_arm("fixed"), one, 0)
        single = training_burst("compiled", model, data, options.batch_size)
        examples = single.examples
        bursts = {"1": single}
        for count in (count for count in options.counts if count > 1):
            try:
                bursts[str(count)] = _stacked(model, count, data, options.batch_size, examples)
                bursts[str(count)].wait(bursts[str(count)].launch())
                arms[str(count)] = {}
            except Exception as error:  # too many for this device's memory, for one
                bursts.pop(str(count), None)
                arms[str(count)] = {"error": describe_error(error)}
        single.wait(single.launch())
        session = measure_rounds(
            bursts,
            reference="1",
            compared=[name for name in bursts if name != "1"],
            floor=options.floor,
            halfwidth=options.halfwidth,
            cap=options.time_cap,
            min_rounds=10,
            least_rounds=6,
            watch=watch,
        )
    for name, samples in session.samples.items():
        arms[name]["samples"] = samples
    after = read_state()
    return Record(
        key=cell_key(dict(cell)),
        cell=dict(cell),
        status="ok",
        arms=arms,
        order=session.order,
        stop=session.stop,
        before=before,
        after=after,
        notes=held_back(before, after),
        extra={"runtime": runtime, "examples": examples, "repeats": session.repeats},
        started=started,
        ended=utc_now(),
    )


def _stacked(model: Any, count: int, data: Any, batch_size: int, examples: int) -> Any:
    import numpy as np
    import tensorflow as tf

    from bench.timing import Burst
    from fixedbias.stacked_epochs import StackedProgram

    resident = (data.train[0], data.noise)
    # One model as often: what a stack takes does not depend on the values in it.
    program = StackedProgram([model] * count, resident)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(data.examples)[:examples] for _ in range(count)]
    order = tf.constant(np.stack(orders).astype("int32"))
    return Burst(
        launch=lambda: program.train(resident, order, batch_size)["loss"],
        wait=lambda loss: float(loss[0]),
        examples=examples,
    )


if __name__ == "__main__":
    sys.exit(main())
