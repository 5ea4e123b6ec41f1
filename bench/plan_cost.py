"""`python -m bench.grid --plan-cost`: plan -> evidence -> simulated trials -> a line per count."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.config import Options, to_arguments
from bench.costs import Prediction, predict
from bench.evidence import (
    CALIBRATION,
    Evidence,
    find_evidence,
    missing,
    named_evidence,
    read_evidence,
    why_unfit,
)
from bench.executors import COMPARISONS_PER_WORKER
from bench.findings import PANELS
from bench.rules import UsageError, words
from bench.simulation import Conditions, Outcome, trials
from bench.wall import WALL

if TYPE_CHECKING:
    from rich.console import Console

    from bench.plan import Comparison

_MOST_TRIALS, _LEAST_TRIALS = 200, 20
_EVENTS = 400_000  # comparisons to simulate for one number of workers: some seconds of work


def print_cost(options: Options) -> int:
    """Predicts what the plan will take, and prints it.

    Returns:
        The exit status, 0.

    Raises:
        UsageError: The devices or the data are not there, or the calibration failed.
    """
    from rich.console import Console
    from rich.table import Table

    from bench.devices import find_devices
    from bench.machine import describe_machine
    from bench.plan import make_plan
    from bench.runs import find_data

    console = Console(highlight=False, markup=False, emoji=False)
    located, _ = find_data(options.data, options.data_dir, options.task)
    named = None if options.evidence is None else named_evidence(options.evidence)
    devices = named.devices(options.device) if named else find_devices(options.device)
    plan = make_plan(options, devices, located.name, located.data_dir)
    if named and (why := why_unfit(named, plan)):
        raise UsageError(
            f"--evidence must be a run that tells what this plan takes. Received: {named.folder}, "
            f"but {why}."
        )
    evidence = named or find_evidence(options.results, describe_machine(), plan)
    if evidence is None:
        evidence = _calibrate(replace(options, data=located.name), console)
        if unknown := missing(evidence, plan):
            kind = words(min(unknown, key=str))
            raise UsageError(
                f"--plan-cost could not calibrate: nothing of {kind} could be measured; "
                f"python -m bench.report {evidence.folder} says why."
            )
    prediction = predict(plan, evidence)
    conditions = Conditions(
        begin=evidence.begin,
        # The report's figures take the time, and grow no more from so many cells on.
        end=evidence.end * min(len(plan), PANELS) / min(len(evidence.run.plan), PANELS),
        start=evidence.start,
        handout=evidence.handout,
        handling=evidence.handling,
        cluster=evidence.workers > 0,
        per_worker=COMPARISONS_PER_WORKER,
        spread=prediction.spread,
        stragglers=options.straggler_rate,
        failures=options.failure_rate,
    )
    watts = prediction.watts or options.watts
    number = int(np.clip(_EVENTS // len(plan), _LEAST_TRIALS, _MOST_TRIALS))
    for line in _premises(plan, evidence, prediction, conditions, number, options):
        console.print(line, soft_wrap=True)
    columns = ["workers", "time", "95 % of trials", "device-hours", "failures"]
    table = Table(*columns, *["kWh"] * (watts is not None), box=None, header_style="bold")
    for workers in options.workers:
        found = trials(
            prediction.seconds, workers, conditions, seed=options.order_seed, number=number
        )
        table.add_row(*_row(workers, found, watts))
    console.width = max(console.width, 80)
    console.print(table)
    for line in _notes(prediction.watts, options.watts):
        console.print(line, soft_wrap=True)
    return 0


def _premises(
    plan: Sequence["Comparison"],
    evidence: Evidence,
    prediction: Prediction,
    conditions: Conditions,
    number: int,
    options: Options,
) -> list[str]:
    made = evidence.run.created[:16].replace("T", " ")
    source = (
        f"{len(plan)} comparisons, predicted from {len(evidence.records)} in {evidence.folder} "
        f"(made {made} UTC); a machine that has become faster or slower since is not foreseen"
    )
    chance = (
        f"{number} simulated trials, seed {options.order_seed}; a comparison's time scatters by "
        f"{conditions.spread:.0%}, {conditions.stragglers:.1%} take {conditions.slowdown:g} times "
        f"as long, a worker fails {conditions.failures:g} times an hour"
    )
    lines = [source, _worker(evidence), chance]
    if max(options.workers) > max(1, evidence.workers):
        lines.append(
            "workers on one machine slow each other, which this does not foresee; a run on as many "
            "such workers does, as --evidence"
        )
    if evidence.workers > min(options.workers):
        lines.append(
            f"the times are those of {evidence.workers} workers at once; if they share a machine, "
            "fewer are faster"
        )
    if prediction.beyond > 2:
        lines.append(
            f"the largest network is {prediction.beyond:.1f} times the largest recorded one: its "
            "time is extrapolated"
        )
    if prediction.whole_cap:
        lines.append(
            f"of timing all {options.time_cap:g} s of --time-cap are counted: how much of it this "
            "precision needs is not recorded"
        )
    return lines


def _worker(evidence: Evidence) -> str:
    """What a worker is taken for."""
    cores = evidence.machine["cpu"]["usable_cores"]
    whose = f"each of the {evidence.workers} of that run" if evidence.workers else "its machine"
    model = evidence.machine["cpu"]["model"]
    return f"a worker is as {whose}: {model}, with {cores} core{'s' * (cores > 1)} of its own"


def _row(workers: int, found: Sequence[Outcome], watts: float | None) -> list[str]:
    seconds = [outcome.seconds for outcome in found]
    low, middle, high = (float(q) for q in np.quantile(seconds, (0.025, 0.5, 0.975)))
    hours = float(np.mean([outcome.busy for outcome in found])) / 3600
    return [
        f"{workers:,}",
        _clock(middle),
        f"{_clock(low)} to {_clock(high)}",
        f"{hours:,.2f}",
        f"{np.mean([outcome.deaths for outcome in found]):.1f}",
        *([f"{hours * watts / 1000:,.3f}"] if watts is not None else []),
    ]


def _notes(recorded: float | None, given: float | None) -> list[str]:
    lines = ["device-hours are those of work, with what failures waste; idle workers add to them"]
    if recorded is not None:
        lines.append(f"energy: {recorded:.0f} W a device, as recorded while it measured")
    elif given is not None:
        lines.append(f"energy: {given:g} W a device, from --watts")
    else:
        lines.append("energy: not known from that run; name a device's power with --watts")
    return lines


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _calibrate(options: Options, console: "Console") -> Evidence:
    """Runs the corners of the plan, briefly: a run like any other, which is kept."""
    axes = ("layers", "units", "batch_size")
    ends: dict[str, Any] = {name: _ends(getattr(options, name)) for name in axes}
    first: dict[str, Any] = {
        name: getattr(options, name)[:1] for name in ("bias", "activation", "norm", "loss")
    }
    results = options.results / CALIBRATION
    short = replace(
        options,
        **ends,
        **first,
        epochs=1,
        seeds=1,
        builds=1,
        time_cap=1.0,
        floor=min(options.floor, 1.0),
        timeout=max(options.timeout, 2.0),
        results=results,
        plan_cost=False,
        profile=False,
        time_breakdown=False,
    )
    count = int(np.prod([len(values) for values in ends.values()]))
    console.print(
        f"no run under {options.results} is like this plan: calibrating with {count} short "
        "comparisons of each kind",
        soft_wrap=True,
    )
    before = set(results.glob("*"))
    done = subprocess.run(
        [sys.executable, "-m", "bench.grid", *to_arguments(short)], capture_output=True, text=True
    )
    made = [folder for folder in sorted(set(results.glob("*")) - before) if _finished(folder)]
    found = read_evidence(made[-1]) if made else None
    if found is None:
        last = [*done.stderr.splitlines(), *done.stdout.splitlines()][-1:]
        raise UsageError(
            f"--plan-cost could not calibrate: {' '.join(last)}; run the driver on one cell to see."
        )
    return found


def _finished(folder: Path) -> bool:
    return (folder / WALL).exists()


def _ends(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys((min(values), max(values))))
