"""`python -m bench.peers`: options -> peers -> accuracy check -> a race per cell -> report."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.config import Options, parse
from bench.peers.registry import PEERS
from bench.rules import UsageError, usage_error

if TYPE_CHECKING:
    from rich.console import Console


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
    from bench.peers.driving import networks

    for network in networks(options):
        print(f"T={network.layers} units={network.units} batch={network.batch_size}")
    names, skipped = _choose(options, options.device.partition(":")[0])
    for line in skipped:
        print(line)
    print(
        f"{len(networks(options))} cells of {', '.join(names)}; up to {options.time_cap:g} s of "
        "timing each, or six rounds if these take longer"
    )
    return 0


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
    from bench.peers.driving import find_images, networks, processes, race_all
    from bench.peers.process import Task
    from bench.peers.race import cell_of
    from bench.peers.report import cell_line
    from bench.records import cell_key
    from bench.runs import open_run

    console = Console(highlight=False, markup=False, emoji=False)
    located, dataset, test_examples = find_images(options, console)
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
        Task(network, located.name, located.data_dir, **common) for network in networks(options)
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
    specs = {name: PEERS[name] for name in names}
    # One cell is enough, the one with most steps: what a peer trains does not depend on widths.
    checked = min(tasks, key=lambda task: task.network.batch_size)
    what = folder, console, test_examples
    with processes(specs, folder, options.timeout) as peers:
        try:
            wrong = race_all(tasks, checked, peers, options, *what, line=cell_line, extra={})
        except KeyboardInterrupt:
            console.print(f"interrupted; the cells that are done are in {folder}", soft_wrap=True)
            return 130
    return _show(folder, options, console) or int(wrong)


def _show(folder: Path, options: Options, console: "Console") -> int:
    from bench.peers.report import print_report
    from bench.records import read_run

    run, records, problems = read_run(folder)
    print_report(records, console, margin=options.margin)
    for problem in problems:
        console.print(f"not read: {problem}", soft_wrap=True)
    from bench.peers.figure import draw

    console.print(f"figure: {draw(run, records, folder / 'peers.png')}", soft_wrap=True)
    console.print(f"records: {folder}", soft_wrap=True)
    failed = any("error" in arm for record in records for arm in record.arms.values())
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
