"""`python -m bench.replicas`: one network on one device against several, size by size."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from bench.peers.registry import OURS, PEERS, Spec
from bench.rules import UsageError, check_values, usage_error

if TYPE_CHECKING:
    from rich.console import Console


ENGINE = "replicas"
"""What a record's cell names as its engine."""


@dataclass(frozen=True)
class Options:
    """One network on one device (fit_compiled) against the same on several (fit_replicated).

    Same global batch, same batches, same start. Each number of devices trains in a process of its
    own; rounds are interleaved across the processes.
    """

    replicas: tuple[int, ...] = (1, 2)
    """Numbers of devices. 1, which the others are compared with, is always there. On a CPU they are
    logical devices, which share its cores."""
    device: str = "auto"
    """cpu, gpu, or auto (GPUs if there are any)."""
    layers: tuple[int, ...] = (3,)
    """Depths: layers with weights, the output layer counted."""
    units: tuple[int, ...] = (128, 512, 2048)
    """Widths: units of every hidden layer."""
    batch_size: tuple[int, ...] = (128, 1024)
    """Examples in a training step, over all devices together."""
    images: str = "float32"
    """Form of the images: float32 in [0, 1], or uint8 scaled in the step."""
    epochs: int = 1
    """Epochs of the training by which it is checked that all learn alike."""
    data: str = "auto"
    """mnist, fashion_mnist, digits, synthetic, synthetic:EXAMPLES, or auto (MNIST if it is at
    hand, else digits)."""
    data_dir: Path | None = None
    """Folder with the data files (default: the environment variable FIXEDBIAS_DATA)."""
    results: Path = Path("results")
    """Folder for the runs."""
    dry_run: bool = False
    """Print the plan and stop."""
    halfwidth: float = 0.03
    """Stop timing a cell when every ratio is known to this relative half-width."""
    time_cap: float = 20.0
    """Seconds of timing per cell, precise or not; but six rounds at least."""
    timeout: float = 300.0
    """Seconds after which a process that does not answer is given up."""
    epoch_seconds: float = 0.2
    """Seconds that an epoch lasts, unless that takes more than all of the data."""
    floor: float = 0.1
    """Seconds that one timing sample must last."""
    margin: float = 0.02
    """Speed ratios within this of 1 are the same for all practical purposes."""
    order_seed: int = 0
    """Seed of the kernels, the batches, and the order within the rounds."""


def parse(argv: Sequence[str]) -> Options:
    """The options on a command line.

    Raises:
        UsageError: What is asked for makes no sense.

    Example:

    >>> parse(["--replicas", "2", "4"]).replicas
    (1, 2, 4)
    """
    options: Options = tyro.cli(
        Annotated[Options, tyro.conf.FlagCreatePairsOff],
        args=list(argv),
        prog="python -m bench.replicas",
    )
    check_values(options)
    if options.device not in ("cpu", "gpu", "auto"):
        raise UsageError(f"--device must be cpu, gpu or auto. Received: {options.device}.")
    if options.images not in ("float32", "uint8"):
        raise UsageError(f"--images must be float32 or uint8. Received: {options.images}.")
    if max(options.replicas) < 2:
        raise UsageError("--replicas needs a number above 1 to compare. Received: 1.")
    if min(options.batch_size) < max(options.replicas):
        raise UsageError(
            "--batch-size counts the examples of all devices, so it must be at least --replicas. "
            f"Received: {min(options.batch_size)} and {max(options.replicas)}."
        )
    return replace(options, replicas=tuple(sorted({1, *options.replicas})))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the comparison.

    Args:
        argv: The command line, without the program's name.

    Returns:
        The exit status: 0, 1 if a number of devices failed or learnt otherwise, 2 for bad input,
        130 if interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parse(argv)
        if options.dry_run:
            from bench.peers.driving import networks

            for network in networks(options):
                print(f"T={network.layers} units={network.units} batch={network.batch_size}")
            print(f"{len(networks(options))} cells on {_words(options.replicas)} devices")
            return 0
        return _drive(options, argv)
    except UsageError as error:
        return usage_error(error)


def find_replicas(wanted: str, replicas: int) -> str:
    """The device of the tasks: `"cpu"`, or `"gpu:0,1,..."`, as many GPUs as are wanted.

    Raises:
        UsageError: There are fewer GPUs.
    """
    from bench.devices import find_devices

    if find_devices(wanted) == ["cpu"]:
        return "cpu"
    gpus = [device for device in find_devices("all") if device != "cpu"]
    if len(gpus) < replicas:
        raise UsageError(
            f"--replicas {replicas} needs so many GPUs, and TensorFlow sees {len(gpus)}: ask for "
            "fewer, or use --device cpu, where they are logical devices on the same cores."
        )
    return "gpu:" + ",".join(map(str, range(replicas)))


def peer_name(replicas: int) -> str:
    """Names a number of devices in the records: that of `fit_compiled` where it is one."""
    return OURS if replicas == 1 else f"{replicas} replicas"


def _spec(replicas: int) -> Spec:
    if replicas == 1:
        return PEERS[OURS]
    return Spec("bench.peers.replicated:Replicated", settings={"replicas": replicas})


def _words(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _drive(options: Options, argv: list[str]) -> int:
    from rich.console import Console

    from bench.peers.driving import find_images, networks, processes, race_all
    from bench.peers.process import Task
    from bench.peers.race import cell_of
    from bench.records import cell_key
    from bench.runs import open_run
    from bench.scaling import cell_line

    console = Console(highlight=False, markup=False, emoji=False)
    device = find_replicas(options.device, max(options.replicas))
    located, dataset, test_examples = find_images(options, console)
    common: dict[str, Any] = {
        "images": options.images,
        "device": device,
        "seed": options.order_seed,
        "engine": ENGINE,
    }
    tasks = [
        Task(network, located.name, located.data_dir, **common) for network in networks(options)
    ]
    folder = open_run(
        "bench.replicas",
        argv,
        asdict(options),
        plan=[cell_key(cell_of(task)) for task in tasks],
        dataset=dataset,
        seed=options.order_seed,
    )
    console.print(f"{len(tasks)} cells on {device}, {located.name}: {folder}", soft_wrap=True)
    specs = {peer_name(count): _spec(count) for count in options.replicas}
    # One cell is enough, the one with most steps: what is computed does not depend on widths.
    checked = min(tasks, key=lambda task: (task.network.batch_size, task.network.units))
    compiled = {
        peer_name(count): "whole epoch" if count == 1 else "forward and backward"
        for count in options.replicas
    }
    more: dict[str, Any] = {"line": cell_line, "extra": {"xla": compiled}}
    what = folder, console, test_examples
    with processes(specs, folder, options.timeout) as peers:
        try:
            wrong = race_all(tasks, checked, peers, options, *what, **more)
        except KeyboardInterrupt:
            console.print(f"interrupted; the cells that are done are in {folder}", soft_wrap=True)
            return 130
    return _show(folder, options, console) or int(wrong)


def _show(folder: Path, options: Options, console: "Console") -> int:
    from bench.records import read_run
    from bench.scaling import print_report

    _, records, problems = read_run(folder)
    print_report(records, console, margin=options.margin)
    for problem in problems:
        console.print(f"not read: {problem}", soft_wrap=True)
    console.print(f"records: {folder}", soft_wrap=True)
    failed = any("error" in arm for record in records for arm in record.arms.values())
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
