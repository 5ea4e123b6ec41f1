"""`python -m bench.peers`: options -> peers -> accuracy check -> a race per cell -> report."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.config import Options, parse
from bench.peers.registry import PEERS, Network
from bench.rules import UsageError, usage_error

if TYPE_CHECKING:
    from rich.console import Console

    from bench.peers.process import RemotePeer, Task
    from fixedbias.datasets import Located


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the side-by-side.

    Args:
        argv: The command line, without the program's name.

    Returns:
        The exit status: 0, 1 if a peer failed or learnt otherwise, 2 for bad input, 130 if
        interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parse(argv)
        if options.dry_run:
            return _print_plan(options)
        return _drive(options, argv)
    except UsageError as error:
        return usage_error(error)


def _print_plan(options: Options) -> int:
    for network in _networks(options):
        print(f"T={network.layers} units={network.units} batch={network.batch_size}")
    names, skipped = _choose(options, options.device.partition(":")[0])
    for line in skipped:
        print(line)
    print(
        f"{len(_networks(options))} cells of {', '.join(names)}; up to {options.time_cap:g} s of "
        "timing each"
    )
    return 0


def _networks(options: Options) -> list[Network]:
    axes = product(options.batch_size, options.layers, options.units)
    return [Network(layers, units, batch_size) for batch_size, layers, units in axes]


def _choose(options: Options, kind: str) -> tuple[list[str], list[str]]:
    """The peers that can run, and a line for each that cannot."""
    names, skipped = [], []
    for name in options.peers:
        missing = PEERS[name].missing()
        if kind in ("cpu", "gpu") and kind not in PEERS[name].devices:
            skipped.append(f"{name}: skipped, not for a {kind.upper()}")
        elif missing:
            skipped.append(
                f"{name}: skipped, not installed: {', '.join(missing)} (pip install -e '.[peers]')"
            )
        else:
            names.append(name)
    return names, skipped


def _drive(options: Options, argv: list[str]) -> int:
    from rich.console import Console

    from bench.devices import find_devices
    from bench.peers.process import RemotePeer, Task
    from bench.peers.race import cell_of
    from bench.records import cell_key
    from bench.runs import find_data, open_run

    console = Console(highlight=False, markup=False, emoji=False)
    located, dataset = find_data(options.data, options.data_dir)
    examples, test_examples = _count(located)
    if max(options.batch_size) > examples:
        raise UsageError(
            f"--batch-size must be at most {examples}, the training images of {located.name}. "
            f"Received: {max(options.batch_size)}."
        )
    if located.notice:
        console.print(located.notice, soft_wrap=True)
    (device,) = find_devices(options.device)
    names, skipped = _choose(options, device.partition(":")[0])
    for line in skipped:
        console.print(line, soft_wrap=True)
    common: dict[str, Any] = {
        "images": options.images,
        "device": device,
        "seed": options.order_seed,
    }
    tasks = [
        Task(network, located.name, located.data_dir, **common) for network in _networks(options)
    ]
    folder = open_run(
        "bench.peers",
        argv,
        asdict(options),
        plan=[cell_key(cell_of(task)) for task in tasks],
        dataset=dataset,
        seed=options.order_seed,
    )
    console.print(
        f"{len(tasks)} cells of {len(names)} peers on {device}, {located.name}: {folder}",
        soft_wrap=True,
    )
    with ExitStack() as stack:
        peers = {}
        for name in names:
            log = folder / "worker.log"
            peers[name] = RemotePeer(name, PEERS[name], log, timeout=options.timeout)
            stack.callback(peers[name].close)
        try:
            failed = _run(tasks, peers, options, folder, console, test_examples)
        except KeyboardInterrupt:
            console.print(f"interrupted; the cells that are done are in {folder}", soft_wrap=True)
            return 130
    return _show(folder, options, console) or failed


def _count(located: "Located") -> tuple[int, int]:
    """Training and test images."""
    from fixedbias.datasets import load_dataset

    data = load_dataset(located.name, located.data_dir, download=False)
    return len(data.x_train), len(data.x_test)


def _run(
    tasks: list["Task"],
    peers: dict[str, "RemotePeer"],
    options: Options,
    folder: Path,
    console: "Console",
    test_examples: int,
) -> int:
    from bench.peers.race import Rules, check_accuracy, race
    from bench.peers.report import accuracy_lines, cell_line
    from bench.records import write_record

    # One cell is enough, the one with most steps: what a peer trains does not depend on widths.
    checked = min(tasks, key=lambda task: task.network.batch_size)
    accuracies = check_accuracy(checked, peers, options.epochs)
    lines, wrong = accuracy_lines(accuracies, checked, options.epochs, test_examples)
    for line in lines:
        console.print(line, soft_wrap=True)
    rules = Rules(options.floor, options.halfwidth, options.time_cap, options.order_seed)
    for task in tasks:
        record = race(task, peers, rules)
        if task is checked:
            record.extra["accuracies"] = accuracies
        write_record(folder, record)
        console.print(cell_line(record), soft_wrap=True)
    return int(wrong)


def _show(folder: Path, options: Options, console: "Console") -> int:
    from bench.peers.report import print_report
    from bench.records import read_run

    run, records, problems = read_run(folder)
    print_report(records, console, margin=options.margin)
    for problem in problems:
        console.print(f"not read: {problem}", soft_wrap=True)
    try:
        from bench.peers.figure import draw

        console.print(f"figure: {draw(run, records, folder / 'peers.png')}", soft_wrap=True)
    except ModuleNotFoundError as error:
        console.print(f"no figure: {error.name} is not installed (pip install -e '.[peers]')")
    console.print(f"records: {folder}", soft_wrap=True)
    failed = any("error" in arm for record in records for arm in record.arms.values())
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
