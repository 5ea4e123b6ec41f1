"""What every command that measures does first: find the data, open the run's folder."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.rules import UsageError
from bench.tasks import make_task

if TYPE_CHECKING:
    from fixedbias.datasets import Located


def find_data(
    name: str, data_dir: Path | None, tasks: Sequence[str] = ("images",)
) -> tuple["Located", dict[str, str]]:
    """Where the data of the images is, and what the run's header says of all data.

    Args:
        name: Of the data set, or `auto`.
        data_dir: Folder with its files.
        tasks: What is learnt; tasks other than `images` are their own data.

    Raises:
        UsageError: It is not at hand, or damaged.
    """
    from fixedbias.datasets import DatasetError, Located, find_dataset, load_dataset

    made = [make_task(task) for task in tasks if task != "images"]
    checksums = {data.name: data.checksum for data in made}
    if "images" not in tasks:
        name = made[0].name
        return Located(name, None, ""), {"name": name, "checksum": checksums.pop(name), **checksums}
    try:
        located = find_dataset(name, data_dir)
        # Read here as well, so that a damaged file is refused before anything is measured.
        dataset = load_dataset(located.name, located.data_dir, download=False)
    except DatasetError as error:
        raise UsageError(str(error)) from None
    return located, {"name": located.name, "checksum": dataset.checksum, **checksums}


def open_run(
    command: str,
    argv: list[str],
    options: dict[str, Any],
    *,
    plan: list[str],
    dataset: dict[str, str],
    seed: int,
) -> Path:
    """Makes a run's folder under `options["results"]`, with its header in it.

    Args:
        command: Such as `bench.grid`.
        argv: The command line, without the program's name.
        options: What the command line came to.
        plan: Keys of the comparisons, in the order they are to be made.
        dataset: Its name and checksum.
        seed: Of the run.

    Raises:
        UsageError: The folder cannot be made or written.
    """
    from bench.machine import anonymous, describe_machine, git_commit
    from bench.records import Run, new_run_folder, utc_now, write_run

    run = Run(
        created=utc_now(),
        argv=["python", "-m", command, *map(anonymous, argv)],
        options={name: _jsonable(value) for name, value in options.items()},
        machine=describe_machine(),
        git=git_commit(),
        dataset=dataset,
        seed=seed,
        plan=plan,
    )
    try:
        folder = new_run_folder(options["results"], datetime.now())
        write_run(folder, run)
    except OSError as error:
        raise UsageError(
            "--results must be a folder that can be written. "
            f"Received: {error.filename}: {error.strerror}."
        ) from None
    return folder


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
