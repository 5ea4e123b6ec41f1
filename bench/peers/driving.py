"""What every command that races processes does: images, tasks, folder, processes, cells."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.peers.process import RemotePeer, Task
from bench.peers.race import Rules, check_accuracy, race
from bench.peers.registry import Network, Spec
from bench.peers.report import accuracy_lines
from bench.records import Record, write_record
from bench.rules import UsageError
from bench.runs import find_data
from fixedbias.datasets import Located, load_dataset


def networks(options: Any) -> list[Network]:
    """The cells, batch sizes outermost."""
    axes = product(options.batch_size, options.layers, options.units)
    return [Network(layers, units, batch_size) for batch_size, layers, units in axes]


def find_images(options: Any, console: Console) -> tuple[Located, dict[str, str], int]:
    """Where the images are, what a run's header says of them, and how many there are to test on.

    Raises:
        UsageError: There are none, or fewer than a batch has.
    """
    located, dataset = find_data(options.data, options.data_dir)
    data = load_dataset(located.name, located.data_dir, download=False)
    if max(options.batch_size) > len(data.x_train):
        raise UsageError(
            f"--batch-size must be at most {len(data.x_train)}, the training images of "
            f"{located.name}. Received: {max(options.batch_size)}."
        )
    if located.notice:
        console.print(located.notice, soft_wrap=True)
    return located, dataset, len(data.x_test)


@contextmanager
def processes(
    specs: Mapping[str, Spec], folder: Path, timeout: float
) -> Iterator[dict[str, RemotePeer]]:
    """A process for each peer, ended with the block."""
    with ExitStack() as stack:
        peers = {}
        for name, spec in specs.items():
            peers[name] = RemotePeer(name, spec, folder / "worker.log", timeout=timeout)
            stack.callback(peers[name].close)
        yield peers


def race_all(
    tasks: Sequence[Task],
    checked: Task,
    peers: dict[str, RemotePeer],
    options: Any,
    folder: Path,
    console: Console,
    test_examples: int,
    *,
    line: Callable[[Record], str],
    extra: Mapping[str, Any],
) -> bool:
    """Checks the accuracy of one task, races all, and writes a record and a line for each.

    Returns:
        Whether a peer failed the check of accuracy.
    """
    accuracies = check_accuracy(checked, peers, options.epochs)
    lines, wrong = accuracy_lines(accuracies, checked, options.epochs, test_examples)
    for text in lines:
        console.print(text, soft_wrap=True)
    names = (field.name for field in fields(Rules))
    rules = Rules(**{name: getattr(options, name) for name in names})
    for task in tasks:
        record = race(task, peers, rules)
        record.extra.update(extra)
        if task is checked:
            record.extra["accuracies"] = accuracies
        write_record(folder, record)
        console.print(line(record), soft_wrap=True)
    return wrong
