"""`python -m bench.programs`: what a training step of each arm is made of once XLA compiled it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import tyro

from bench.arms import find_arm
from bench.config import Precision
from bench.hlo import Loop, read_loop
from bench.rules import UsageError, check_precisions, check_values, usage_error


@dataclass(frozen=True)
class Options:
    """Counts what a training step launches, arm by arm, from XLA's compiled epoch program.

    Programs are compiled for a device of this machine, or read from files of optimised HLO text,
    as XLA_FLAGS=--xla_dump_to=FOLDER leaves them. TensorFlow cannot compile for a GPU that is not
    there: with a platform_name it refuses programs that capture variables, and these do.
    """

    hlo: tuple[Path, ...] = ()
    """Files to read instead of compiling."""
    device: str = "cpu"
    """cpu, gpu or gpu:N."""
    layers: int = 3
    """Layers with weights, the output layer counted."""
    units: int = 128
    """Units of every hidden layer."""
    batch_size: int = 128
    """Examples in a training step."""
    precision: Precision = "float32"
    """Precision policy."""
    arms: tuple[str, ...] = ("dense", "dense-nobias", "fixed")
    """Arms to compile."""
    save: Path | None = None
    """Write the counts to this JSON file too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0, 1 if a step needs the host, 2 for bad input."""
    try:
        options = tyro.cli(
            Annotated[Options, tyro.conf.FlagCreatePairsOff],
            args=list(sys.argv[1:] if argv is None else argv),
            prog="python -m bench.programs",
        )
        loops = _read(options.hlo) if options.hlo else _compile(options)
    except UsageError as error:
        return usage_error(error)
    for name, loop in loops.items():
        print(describe(name, loop))
    if options.save is not None:
        # `vars`, and not `asdict`, which makes of a Counter one of pairs.
        counts = {name: vars(loop) for name, loop in loops.items()}
        options.save.write_text(json.dumps(counts, indent=1) + "\n")
    return int(any(loop.host_transfers or not loop.trip_count for loop in loops.values()))


def describe(name: str, loop: Loop) -> str:
    """A loop in one line.

    >>> from collections import Counter
    >>> describe("fixed", Loop(468, Counter(fusion=3, dot=8), products=8))
    'fixed: 468 steps, 11 kernels a step (8 dot, 3 fusion), 8 products, no host transfer'
    """
    kinds = ", ".join(f"{count} {kind}" for kind, count in loop.kernels.most_common())
    steps = "unknown" if loop.trip_count is None else f"{loop.trip_count:,}"
    epilogues = f", {loop.epilogues} with an epilogue" if loop.epilogues else ""
    host = ", ".join(loop.host_transfers)
    return (
        f"{name}: {steps} steps, {loop.kernels.total()} kernels a step ({kinds}), "
        f"{loop.products} products{epilogues}, "
        + (f"transfers to the host: {host}" if host else "no host transfer")
        + (f", {loop.branches} branches, which a GPU may ask the host for" if loop.branches else "")
    )


def _read(files: Sequence[Path]) -> dict[str, Loop]:
    found = {}
    for path in files:
        try:
            found[str(path)] = read_loop(path.read_text())
        except OSError as error:
            raise UsageError(f"--hlo must name files: {error.strerror}: {path}.") from None
        except ValueError as error:
            raise UsageError(f"--hlo {path}: {error}; give a ...after_optimizations.txt.") from None
    return found


def _compile(options: Options) -> dict[str, Loop]:
    names = ("device", "layers", "units", "batch_size", "arms")
    check_values(
        SimpleNamespace(
            **{n: getattr(options, n) for n in names}, floor=0.0, results=None, data_dir=None
        )
    )
    if options.device in ("all", "auto"):
        raise UsageError(f"--device must be cpu, gpu or gpu:N. Received: {options.device}.")
    check_precisions([options.precision], [options.device])
    for arm in options.arms:
        try:
            find_arm(arm)
        except ValueError as error:
            raise UsageError(f"--arms: {error}.") from None
    from bench import programs
    from bench.devices import find_devices
    from bench.executors import LocalExecutor

    (device,) = find_devices(options.device)
    with LocalExecutor() as executor:  # keeps TensorFlow's messages off the terminal
        texts = [executor.call(programs.epoch_text, options, arm, device) for arm in options.arms]
    return dict(zip(options.arms, map(read_loop, texts), strict=True))


def epoch_text(options: Options, arm: str, device: str, stage: str = "optimized_hlo") -> str:
    """The program of an epoch of 60,000 images, on zeros in their place.

    Args:
        options: The cell.
        arm: Name of the arm.
        device: `"cpu"` or `"gpu:N"`.
        stage: `"optimized_hlo"`, or `"hlo"` for what XLA is given.
    """
    import tensorflow as tf

    from bench.models import build_model
    from bench.plan import Cell
    from bench.runtime import set_precision
    from fixedbias.epochs import EpochProgram, build

    set_precision(options.precision)
    sizes = options.layers, options.units, options.batch_size
    cell = Cell(*sizes, options.precision, device, "compiled", "constant", "synthetic")
    with tf.device(device):
        model = build_model(find_arm(arm), cell, 0)
        data = tf.zeros((60_000, 28, 28), "uint8"), tf.zeros(60_000, "int32")
        build(model, data)
        order = tf.range(60_000)
        return EpochProgram(model).text(data, order, options.batch_size, stage)


if __name__ == "__main__":
    sys.exit(main())
