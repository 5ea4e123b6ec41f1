"""`python -m bench.grid`: options -> plan -> run -> report."""

import io
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from bench.config import Options, parse, restore
from bench.rules import UsageError, check_precisions, usage_error

if TYPE_CHECKING:
    from rich.console import Console

    from bench.cluster import ClusterExecutor
    from bench.plan import Comparison
    from bench.records import Run
    from bench.wall import Pace

_MANY = 200  # cells: more are no table to read on a terminal
_LINES = 20  # about what failed


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the driver.

    Args:
        argv: The command line, without the program's name.

    Returns:
        The exit status: 0, 1 if a comparison or an arm failed or could not be recorded, 2 for bad
        input, 128 + the signal's number if interrupted (130 for Ctrl-C).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a layer's name need not be in the terminal's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parse(argv)
        if options.dry_run:
            return _print_plan(options)
        if options.plan_cost:
            from bench.plan_cost import print_cost

            return print_cost(options)
        return _drive(options, argv)
    except UsageError as error:
        return usage_error(error)
    except KeyboardInterrupt:
        print("interrupted before anything was measured", file=sys.stderr)
        return 130


def _print_plan(options: Options) -> int:
    from bench.plan import make_plan

    plan = make_plan(options, [options.device], options.data, None)
    for comparison in plan:
        print(comparison.cell)
    arms = ", ".join((*options.arms, *options.layer))
    timing = "" if options.accuracy_only else f", then up to {options.time_cap:g} s of timing"
    print(
        f"{len(plan)} comparisons of {arms}; per arm {options.seeds} trainings of "
        f"{options.epochs} epochs{timing}"
    )
    return 0


def _drive(options: Options, argv: list[str]) -> int:
    from rich.console import Console

    from bench.devices import find_devices
    from bench.executors import RunStopped, comparison_executor
    from bench.interrupts import Interrupted, catch_signals
    from bench.locks import RunIsBusy, lock_run
    from bench.machine import describe_machine
    from bench.node import measure_there
    from bench.places import likeness
    from bench.plan import make_plan
    from bench.records import recorded_keys
    from bench.run import run_plan
    from bench.runs import find_data, open_run
    from bench.worker import measure

    console = Console(highlight=False, markup=False, emoji=False)
    run = None
    if options.resume is not None:
        run, options = _as_started(options.resume, options.cluster, options.force)
    elsewhere = run is not None and likeness(run.machine) != likeness(describe_machine())
    cluster = _find_cluster(options, console)
    located, dataset = find_data(options.data, options.data_dir, options.task)
    if located.notice:
        console.print(located.notice, soft_wrap=True)
    devices = cluster.devices(options.device) if cluster else find_devices(options.device)
    check_precisions(options.precision, devices)
    plan = make_plan(options, devices, located.name, located.data_dir)
    if run is None or options.resume is None:
        folder = open_run(
            "bench.grid",
            # Where the cluster was is no business of those who read the run.
            [word.replace(options.cluster or "\n", "ADDRESS") for word in argv],
            asdict(replace(options, cluster=None)),
            plan=[comparison.cell.key for comparison in plan],
            dataset=dataset,
            seed=options.order_seed,
        )
    else:
        folder = options.resume
        _check_same_run(folder, run, plan, dataset)
    what = f"{len(plan)} comparisons on {', '.join(devices)}, {located.name}"
    console.print(f"{what}: {folder}", soft_wrap=True)
    for word in options.layer:
        if ":" in word:
            console.print(f"--layer imports and runs the code of {word}", soft_wrap=True)
    if cluster:
        cluster.expect(options, located, dataset)
    elif elsewhere:
        console.print(
            "this machine, or what is installed or set on it, is not what it was when the run "
            "began: what is measured now is told apart from what was",
            soft_wrap=True,
        )
    try:
        with (
            catch_signals() as interrupts,
            lock_run(folder),
            cluster or comparison_executor(folder / "worker.log") as executor,
        ):
            # Its records say where they were made; those of a run on one machine need not.
            function = measure_there if cluster or elsewhere else measure
            try:
                pace = run_plan(plan, folder, executor, function, options, console, interrupts)
            except OSError:
                # Writing to a terminal that was closed fails just before SIGHUP tells of it, and
                # may do so again while the progress line is put away because of it.
                time.sleep(0.1)
                interrupts.check()
                raise
    except RunIsBusy as error:
        raise UsageError(f"--resume: {error}; wait for it, or end it.") from None
    except Interrupted as stop:
        # The terminal may be what has gone, and a second Ctrl-C may come while the table is made.
        with suppress(OSError, KeyboardInterrupt):
            # Of many it takes minutes, which who sends SIGTERM may not wait for.
            if len(recorded_keys(folder)) <= _MANY:
                _show(folder, options, console)
        with suppress(OSError, KeyboardInterrupt):
            console.print(_how_to_go_on(folder, plan, "interrupted", options), soft_wrap=True)
        return stop.status
    except RunStopped as stop:
        console.print(_how_to_go_on(folder, plan, str(stop), options), soft_wrap=True)
        return 1
    except OSError as error:
        # A full disk, a folder that was removed: to measure on would be to measure for nothing.
        with suppress(OSError):
            why = f"{error.strerror}: {error.filename}"
            console.print(_how_to_go_on(folder, plan, why, options), soft_wrap=True)
        return 1
    try:
        if options.profile:
            _profile(plan[-1], folder, options, console)
        status = _show(folder, options, console)
    except KeyboardInterrupt:
        console.print(
            f"interrupted; all records are in {folder}, python -m bench.report {folder} shows them",
            soft_wrap=True,
        )
        return 130
    if options.time_breakdown:
        _show_breakdown(folder, console)
    if run is None and pace and not options.profile:
        _note_wall(folder, pace)
    return status


def _find_cluster(options: Options, console: "Console") -> "ClusterExecutor | None":
    if options.cluster is None:
        return None
    from bench.addresses import resolve
    from bench.executors import RunStopped

    resolve(options.cluster)
    from bench.cluster import ClusterExecutor

    try:
        cluster = ClusterExecutor(options.cluster, lambda text: console.print(text, soft_wrap=True))
    except RunStopped as error:
        raise UsageError(f"--cluster {options.cluster}: {error}.") from None
    dashboard = cluster.dashboard or "none (it needs bokeh where the scheduler is)"
    console.print(f"{len(cluster.workers())} workers; dashboard: {dashboard}", soft_wrap=True)
    return cluster


def _note_wall(folder: Path, pace: "Pace") -> None:
    """How long all of it took: what `--plan-cost` goes by."""
    import psutil

    from bench.wall import write_wall

    with suppress(OSError):
        write_wall(folder, psutil.Process().create_time(), pace)


def _how_to_go_on(folder: Path, plan: list["Comparison"], why: str, options: Options) -> str:
    from bench.records import recorded_keys

    recorded = recorded_keys(folder)
    done = sum(comparison.cell.key in recorded for comparison in plan)
    command = f"python -m bench.grid --resume {shlex.quote(str(folder))}"
    command += f" --cluster {options.cluster}" if options.cluster else ""
    return f"{why}; {done} of {len(plan)} comparisons are done and kept, finish with: {command}"


def _as_started(folder: Path, cluster: str | None, force: bool) -> tuple["Run", Options]:
    """A run's header, and the options it was started with."""
    from bench.records import BadRecord, read_header

    try:
        run = read_header(folder)
        name = run.dataset["name"]
    except (BadRecord, OSError) as error:
        raise UsageError(f"--resume must name the folder of a run: {error}.") from None
    except KeyError:
        raise UsageError(
            f"--resume must name the folder of a run: {folder} names no data."
        ) from None
    options = restore(run.options, f"--resume {folder}", cluster, force=force)
    # What `auto` came to then may not be what it comes to now.
    return run, replace(options, resume=folder, data=name)


def _check_same_run(
    folder: Path, run: "Run", plan: list["Comparison"], dataset: dict[str, str]
) -> None:
    if (run.plan, run.dataset) != ([comparison.cell.key for comparison in plan], dataset):
        raise UsageError(
            f"--resume {folder} would not make the comparisons that this run began with: the "
            f"devices or the data have changed. It began with {run.dataset['name']}, now there is "
            f"{dataset['name']}; start a new run instead."
        )


def _profile(comparison: "Comparison", folder: Path, options: Options, console: "Console") -> None:
    """Traces every arm of a comparison that worked, each in a process of its own."""
    from bench.arms import AGAIN
    from bench.board import leaf_folder
    from bench.executors import LocalExecutor
    from bench.profiling import profile_arm, write_profile
    from bench.records import BadRecord, read_header, read_record

    key = comparison.cell.key
    try:
        run, record = read_header(folder), read_record(folder / "records" / f"{key}.json")
    except (BadRecord, OSError):
        return  # which is said further on
    for arm in (a for a, found in record.arms.items() if a != AGAIN and "error" not in found):
        console.print(f"profiling {arm}", soft_wrap=True)
        leaf = leaf_folder(folder, run, record, arm)
        try:
            with LocalExecutor(folder / "worker.log") as executor:
                found = executor.call(
                    profile_arm, comparison, arm, str(leaf), timeout=options.timeout
                )
            write_profile(folder, key, arm, found)
        except Exception as error:  # a profile is an extra: the measurement stands
            console.print(f"no profile of {arm}: {error}", soft_wrap=True)


def _show(folder: Path, options: Options, console: "Console") -> int:
    from bench.findings import read_findings
    from bench.report import closing_lines, print_table, report_line, verdict_line
    from fixedbias.text import first_of, one_line

    found = read_findings(folder)
    failures = [f"{r.key}: failed, {r.reason}" for r in found.records if r.status == "failed"]
    flags = []
    if large := len(found.records) > _MANY:
        flags = [f"{row.key}, {row.arm}: {flag}" for row in found.rows for flag in row.flags]
    else:
        print_table(found.rows, console)  # with their flags
    unread = [f"not read: {problem}" for problem in found.problems]
    lines = (first_of(these, _LINES) for these in (failures, flags, unread))
    for line in chain.from_iterable(lines):
        console.print(one_line(line), soft_wrap=True)
    for line in closing_lines(found):
        console.print(line, soft_wrap=not console.is_terminal)
    try:
        report = report_line(found)
    except Exception as error:  # the records are safe: `python -m bench.report` makes it again
        report = f"no report, {type(error).__name__}: {error}; the records are in {folder}"
    console.print(verdict_line(found), soft_wrap=not console.is_terminal)
    console.print(report, soft_wrap=True)
    if large:
        where = folder / "numbers.csv"
        console.print(f"the table of all {len(found.records):,} cells: {where}", soft_wrap=True)
    failed = any("error" in arm for record in found.records for arm in record.arms.values())
    return 1 if failed or failures or unread else 0


def _show_breakdown(folder: Path, console: "Console") -> None:
    import psutil

    from bench.breakdown import breakdown_line
    from bench.records import read_run

    began = psutil.Process().create_time()
    _, records, _ = read_run(folder)
    # A resumed run has others too.
    own = [r for r in records if datetime.fromisoformat(r.started).timestamp() >= began]
    console.print(breakdown_line(own, time.time() - began), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
