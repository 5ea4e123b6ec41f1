"""`python -m bench.grid`: options -> plan -> run -> report."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import Options, UsageError, parse, usage_error

if TYPE_CHECKING:
    from rich.console import Console

    from bench.executors import LocalExecutor
    from bench.plan import Comparison
    from bench.records import Record
    from fixedbias.datasets import Located


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the driver.

    Args:
        argv: The command line, without the program's name.

    Returns:
        The exit status: 0, 1 if a comparison or an arm failed, 2 for bad input, 130 if interrupted.
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
    from bench.plan import make_plan

    plan = make_plan(options, [options.device], options.data, None)
    for comparison in plan:
        print(comparison.cell)
    arms = ", ".join((*options.arms, *options.layer))
    print(
        f"{len(plan)} comparisons of {arms}; per arm {options.seeds} trainings of "
        f"{options.epochs} epochs, then up to {options.time_cap:g} s of timing"
    )
    return 0


def _drive(options: Options, argv: list[str]) -> int:
    from rich.console import Console

    from bench.devices import find_devices
    from bench.executors import LocalExecutor
    from bench.plan import make_plan

    console = Console(highlight=False, markup=False, emoji=False)
    if options.resume is not None:
        options = _as_started(options.resume)
    located, dataset = _find_data(options)
    if located.notice:
        console.print(located.notice, soft_wrap=True)
    devices = find_devices(options.device)
    plan = make_plan(options, devices, located.name, located.data_dir)
    if options.resume is None:
        folder = _open_run(options, argv, plan, dataset)
    else:
        folder = options.resume
        _check_same_run(folder, plan, dataset)
    what = f"{len(plan)} comparisons on {', '.join(devices)}, {located.name}"
    console.print(f"{what}: {folder}", soft_wrap=True)
    with LocalExecutor(folder / "worker.log") as executor:
        try:
            _run(plan, folder, executor, options, console)
        except KeyboardInterrupt:
            resume = f"python -m bench.grid --resume {folder}"
            console.print(f"interrupted; what is done is kept, finish with: {resume}")
            return 130
    return _show(folder, options, console)


def _find_data(options: Options) -> tuple["Located", dict[str, str]]:
    """Where the data is, and what the run's header says of it."""
    from fixedbias.datasets import DatasetError, find_dataset, load_dataset

    try:
        located = find_dataset(options.data, options.data_dir)
        # Read here as well, so that a damaged file is refused before anything is measured.
        dataset = load_dataset(located.name, located.data_dir, download=False)
    except DatasetError as error:
        raise UsageError(str(error)) from None
    return located, {"name": located.name, "checksum": dataset.checksum}


def _open_run(
    options: Options, argv: list[str], plan: list["Comparison"], dataset: dict[str, str]
) -> Path:
    """Makes the run's folder, with its header in it."""
    from bench.machine import anonymous, describe_machine, git_commit
    from bench.records import Run, new_run_folder, utc_now, write_run

    folder = new_run_folder(options.results, datetime.now())
    write_run(
        folder,
        Run(
            created=utc_now(),
            argv=["python", "-m", "bench.grid", *map(anonymous, argv)],
            options={name: _jsonable(value) for name, value in asdict(options).items()},
            machine=describe_machine(),
            git=git_commit(),
            dataset=dataset,
            seed=options.order_seed,
            plan=[comparison.cell.key for comparison in plan],
        ),
    )
    return folder


def _jsonable(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _as_started(folder: Path) -> Options:
    """The options a run was started with."""
    from bench.records import BadRecord, read_run

    try:
        run, _, _ = read_run(folder)
    except (BadRecord, OSError) as error:
        raise UsageError(f"--resume must name the folder of a run: {error}.") from None
    stored: dict[str, Any] = {}
    for name, value in run.options.items():
        stored[name] = tuple(value) if isinstance(value, list) else value
        if name in ("data_dir", "results") and value is not None:
            stored[name] = Path(value)
    # What `auto` came to then may not be what it comes to now.
    return Options(**stored | {"resume": folder, "config": None, "data": run.dataset["name"]})


def _check_same_run(folder: Path, plan: list["Comparison"], dataset: dict[str, str]) -> None:
    from bench.records import read_run

    run, _, _ = read_run(folder)
    if (run.plan, run.dataset) != ([comparison.cell.key for comparison in plan], dataset):
        raise UsageError(
            f"--resume {folder} would not make the comparisons that this run began with: the "
            f"devices or the data have changed. It began with {run.dataset['name']}, now there is "
            f"{dataset['name']}; start a new run instead."
        )


def _run(
    plan: list["Comparison"],
    folder: Path,
    executor: "LocalExecutor",
    options: Options,
    console: "Console",
) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from bench.board import write_board
    from bench.records import read_run, write_record
    from bench.report import comparison_line

    _, records, problems = read_run(folder)
    done = {record.key for record in records} | {problem.path.stem for problem in problems}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=len(plan))
        for comparison in plan:
            progress.update(task, description=str(comparison.cell))
            if comparison.cell.key not in done:
                record = _measure(comparison, executor, options.timeout)
                write_record(folder, record)
                line = comparison_line(record, margin=options.margin)
                progress.console.print(line, soft_wrap=True)
                try:
                    # In the worker, because TensorBoard's writer imports TensorFlow.
                    executor.call(write_board, folder, record, timeout=120)
                except Exception as error:  # the record is safe, and the run goes on
                    progress.console.print(f"no TensorBoard files: {error}", soft_wrap=True)
            progress.advance(task)


def _measure(comparison: "Comparison", executor: "LocalExecutor", timeout: float) -> "Record":
    from bench.executors import WorkerDied
    from bench.machine import anonymous
    from bench.records import Record, utc_now
    from bench.worker import measure

    started = utc_now()
    try:
        record: Record = executor.call(measure, comparison, timeout=timeout)
    except Exception as error:  # whatever it was, it costs this comparison and not the run
        name = "" if isinstance(error, WorkerDied) else f"{type(error).__name__}: "
        cell = comparison.cell
        record = Record(
            key=cell.key,
            cell=vars(cell),
            status="failed",
            reason=anonymous(f"{name}{error}"),
            started=started,
            ended=utc_now(),
        )
    return record


def _show(folder: Path, options: Options, console: "Console") -> int:
    from bench.records import read_run
    from bench.report import closing_lines, print_table
    from bench.summary import summarise

    _, records, problems = read_run(folder)
    rows = summarise(records, margin=options.margin)
    print_table(rows, console)
    for record in records:
        if record.status == "failed":
            console.print(f"{record.key}: failed, {record.reason}", soft_wrap=True)
    for problem in problems:
        console.print(f"not read: {problem}", soft_wrap=True)
    for line in closing_lines(rows):
        console.print(line, soft_wrap=True)
    console.print(f"records: {folder}", soft_wrap=True)
    failed = any("error" in arm for record in records for arm in record.arms.values())
    failed |= any(record.status == "failed" for record in records)
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
