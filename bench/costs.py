"""What a plan will take, from what like comparisons took: `python -m bench.grid --plan-cost`.

The time of a comparison is put together from parts that records tell apart: an epoch of training
(some per step, some per product of the matrices), building and compiling (some per arm, some per
layer), timing (as much of `--time-cap` as it took before). So it can be told for cells, epochs and
seeds that were never run. How the parts add up over workers is simulated (see
`bench.simulation`).
"""

import json
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from bench.arms import AGAIN
from bench.ceilings import ceiling_cap
from bench.executors import COMPARISONS_PER_WORKER
from bench.places import kind_of, likeness
from bench.plan import Cell, Comparison
from bench.records import BadRecord, Record, Run, read_header, read_run
from bench.rules import UsageError, words
from bench.tasks import EXAMPLES, TASKS, task_of
from fixedbias.datasets import check_name

WALL = "wall.json"
"""A finished run's file of when its driver began and ended, in seconds of Unix time."""

CALIBRATION = "calibration"
"""Folder under `--results` for runs that were made to predict others."""

_LEAST_SPREAD = 0.05  # no two runs of one comparison take the same time


@dataclass(frozen=True)
class Evidence:
    """A run that tells what comparisons take.

    Args:
        folder: Of the run.
        run: Its header.
        records: Those of its comparisons that were measured.
        machine: What they ran on.
        workers: How many of a cluster's they ran on; 0 for the driver's own machine.
        begin, end, start, handling: See `bench.simulation.Conditions`.
    """

    folder: Path
    run: Run
    records: list[Record]
    machine: dict[str, Any]
    workers: int
    begin: float
    end: float
    start: float
    handling: float

    def devices(self, asked: str) -> list[str]:
        """What `--device` means where this was measured."""
        if asked in ("auto", "all"):
            return sorted({record.cell["device"] for record in self.records})
        return ["gpu:0" if asked == "gpu" else asked]


@dataclass(frozen=True)
class Prediction:
    """What every comparison of a plan will take.

    Args:
        seconds: Of each.
        spread: Standard deviation of the log of what the records took over what this says of them.
        beyond: How many times as many products the largest cell has as the largest recorded one.
        whole_cap: Whether timing is counted with all of `--time-cap`, because how much of it is
            needed was recorded under other rules of timing.
        watts: Mean power of a device while it measured, where the records have its energy.
    """

    seconds: list[float]
    spread: float
    beyond: float
    whole_cap: bool
    watts: float | None


def write_wall(folder: Path, began: float) -> None:
    """Notes when the driver of a finished run began, and that it ends now."""
    (folder / WALL).write_text(json.dumps({"began": began, "ended": time.time()}) + "\n")


def find_evidence(
    results: Path, machine: dict[str, Any], plan: Sequence[Comparison]
) -> Evidence | None:
    """The newest finished run under `results` that was made on this machine and fits the plan.

    It fits if `why_unfit` says nothing against it.

    Args:
        results: Folder of runs.
        machine: `describe_machine()`.
        plan: The comparisons.
    """
    newest: list[tuple[str, Path]] = []
    for wall in (*results.glob(f"*/{WALL}"), *results.glob(f"{CALIBRATION}/*/{WALL}")):
        try:
            run = read_header(wall.parent)
            alike = likeness(run.machine) == likeness(machine)
        except (BadRecord, KeyError, OSError):
            continue
        if alike and not _unlike(run, plan):  # before what takes longer to read
            newest.append((run.created, wall.parent))
    for _, folder in sorted(newest, reverse=True):
        found = read_evidence(folder)
        if found and not found.workers and not why_unfit(found, plan):
            return found
    return None


def named_evidence(folder: Path) -> Evidence:
    """The run that `--evidence` names: of any machine, of a cluster's workers too.

    Raises:
        UsageError: It is no finished run, or nothing in it was measured.
    """
    found = read_evidence(folder)
    if found is None:
        raise UsageError(
            "--evidence must be the folder of a finished run in which something was measured. "
            f"Received: {folder}."
        )
    return found


def why_unfit(evidence: Evidence, plan: Sequence[Comparison]) -> str:
    """Why a run does not tell what a plan takes; empty if it does.

    Each kind of comparison in the plan (device, engine, precision, data, threads) must be in it,
    timed or not as they are; it must tell what an axis does whose values are others, and be of one
    kind of machine.
    """
    if why := _unlike(evidence.run, plan):
        return why
    if len({kind_of(evidence.run, record)[0] for record in evidence.records}) > 1:
        return "its comparisons ran on unlike machines"
    if unknown := missing(evidence, plan):
        return f"nothing of {words(min(unknown, key=str))} is in it"
    for axis in ("layers", "units", "batch_size"):
        known = {record.cell[axis] for record in evidence.records}
        if len(known) == 1 and {getattr(comparison.cell, axis) for comparison in plan} - known:
            return f"all of it has {axis.replace('_', ' ')} {min(known)}, and the plan has others"
    return ""


def _unlike(run: Run, plan: Sequence[Comparison]) -> str:
    """What a run's header has against it as evidence."""
    if run.argv[2:3] != ["bench.grid"]:
        return "it is not of bench.grid"
    timed = not run.options.get("accuracy_only", False)
    if timed == plan[0].accuracy_only:
        return "one of the two trains only (--accuracy-only), and the other times"
    return ""


def missing(evidence: Evidence, plan: Sequence[Comparison]) -> set[tuple]:
    """The kinds of comparison in a plan of which nothing is known."""
    wanted = {_kind(vars(comparison.cell)) for comparison in plan}
    return wanted - {_kind(record.cell) for record in evidence.records}


def read_evidence(folder: Path) -> Evidence | None:
    """A finished run as evidence; None if it cannot be read or nothing in it was measured."""
    try:
        run, records, _ = read_run(folder)
        wall = json.loads((folder / WALL).read_text())
        began, ended = float(wall["began"]), float(wall["ended"])
    except (BadRecord, OSError, ValueError, KeyError, TypeError):
        return None
    good = [r for r in records if r.status == "ok" and r.extra.get("seconds")]
    if not good:
        return None
    created = _moment(run.created)
    by_place: dict[str, list[tuple[float, float]]] = {}
    for r in records:
        span = _moment(r.started), _moment(r.ended)
        by_place.setdefault(_place(r), []).append(span)
    first: list[float] = []
    usual: list[float] = []
    new: list[float] = []
    for spans in map(sorted, by_place.values()):
        first.append(spans[0][0] - created)
        # A worker is new for the first comparison and after every so many: those waits are longer.
        for n, ((_, end), (start, _)) in enumerate(pairwise(spans), 1):
            (usual if n % COMPARISONS_PER_WORKER else new).append(start - end)
    handling = max(0.0, statistics.median(usual)) if usual else 0.0
    # The first of all may find its files not yet in memory.
    waits = [wait - handling for wait in new] or first
    last = max(end for spans in by_place.values() for _, end in spans)
    begin, end = max(0.0, created - began), max(0.0, ended - last)
    return Evidence(
        folder,
        run,
        good,
        machine=kind_of(run, good[0])[1],
        workers=len({_place(record) for record in records if "worker" in record.extra}),
        begin=begin,
        end=max(0.0, end - handling),  # the last record too was handled before the report
        start=max(0.0, statistics.median(waits)),
        handling=handling,
    )


def _place(record: Record) -> str:
    """Names the worker that a comparison was measured by."""
    worker = record.extra.get("worker") or {}
    return json.dumps([worker.get(name) for name in ("host", "cores", "gpu")])


def predict(plan: Sequence[Comparison], evidence: Evidence) -> Prediction:
    """Seconds of every comparison of a plan.

    Args:
        plan: The comparisons.
        evidence: A run that fits it.
    """
    kinds: dict[tuple, list[Record]] = {}
    for record in evidence.records:
        kinds.setdefault(_kind(record.cell), []).append(record)
    laws = {kind: _Law(records, evidence.run.options) for kind, records in kinds.items()}
    seconds = [laws[_kind(vars(c.cell))].seconds(c, _examples(c.cell)) for c in plan]
    ratios = [ratio for law in laws.values() for ratio in law.residuals]
    largest = max(_products(r.cell) for r in evidence.records)
    return Prediction(
        seconds,
        max(_LEAST_SPREAD, float(np.std(np.log(ratios)))),
        max(_products(vars(c.cell)) for c in plan) / largest,
        not all(c.accuracy_only or _same_rules(c, evidence.run.options) for c in plan),
        _watts(evidence.records),
    )


class _Law:
    """What comparisons of one kind take, fitted to those that were recorded."""

    def __init__(self, records: Sequence[Record], options: dict[str, Any]) -> None:
        self._options = options
        parts = [_Parts(record, options) for record in records]
        self._epoch = _fit(
            [_epoch_terms(r.cell, r.extra["examples"]) for r in records], [p.epoch for p in parts]
        )
        self._building = _fit(
            [[1.0, r.cell["layers"]] for r in records], [p.building for p in parts]
        )
        # Means, because what is asked for is a sum.
        self._timing = statistics.fmean(p.timing_share for p in parts)
        self._ceiling = statistics.fmean(p.ceiling_share for p in parts)
        cap = options["time_cap"]
        timed = self._timing * cap + self._ceiling * ceiling_cap(cap)
        self.residuals = [
            r.extra["seconds"]
            / (
                len(r.arms) * float(np.dot(self._building, [1.0, r.cell["layers"]]))
                + p.epochs * float(np.dot(self._epoch, _epoch_terms(r.cell, r.extra["examples"])))
                + timed
            )
            for r, p in zip(records, parts, strict=True)
        ]

    def seconds(self, comparison: Comparison, examples: int) -> float:
        cell, arms = comparison.cell, len(comparison.arms) + _own(comparison.layer)
        epochs = arms * _epochs(comparison.epochs, comparison.seeds)
        building = np.dot(self._building, [1.0, cell.layers])
        epoch = np.dot(self._epoch, _epoch_terms(vars(cell), examples))
        if comparison.accuracy_only:
            return float(arms * building + epochs * epoch)
        share = self._timing if _same_rules(comparison, self._options) else 1.0
        timing = comparison.time_cap * share
        ceiling = self._ceiling * ceiling_cap(comparison.time_cap)
        # The reference is there twice: A/A is built and timed, but not trained.
        return float((arms + 1) * building + epochs * epoch + timing + ceiling)


def _same_rules(comparison: Comparison, options: dict[str, Any]) -> bool:
    """Whether a run's comparisons were timed by the rules of this one."""
    rules = ("halfwidth", "time_cap", "builds")
    return all(options[name] == getattr(comparison, name) for name in rules)


class _Parts:
    """Where a recorded comparison's time went."""

    def __init__(self, record: Record, options: dict[str, Any]) -> None:
        trained = [a for name, a in record.arms.items() if name != AGAIN and "error" not in a]
        training = sum(arm.get("training_seconds", 0.0) for arm in trained)
        runs = len(trained) * options["seeds"] * options["epochs"]
        timing = record.extra.get("timing_seconds", 0.0)
        ceiling = record.extra.get("ceiling", {}).get("seconds", 0.0)
        self.epoch = training / max(1, runs)
        self.epochs = len(trained) * _epochs(options["epochs"], options["seeds"])
        self.timed = timing + ceiling
        other = record.extra["seconds"] - self.timed - self.epochs * self.epoch
        self.building = max(0.0, other) / len(record.arms)
        self.timing_share = timing / options["time_cap"]
        self.ceiling_share = ceiling / ceiling_cap(options["time_cap"])


def _epochs(epochs: int, seeds: int) -> int:
    """Epochs that an arm is trained: its full trainings, and one to compile."""
    return seeds * epochs + 1


def _fit(terms: Sequence[Sequence[float]], values: Sequence[float]) -> np.ndarray:
    """Coefficients that are not negative, such that every value is met as well relatively."""
    matrix, target = np.asarray(terms, float), np.asarray(values, float)
    # Terms that the records do not tell apart are left to the first of them.
    constant = np.ptp(matrix / matrix[0], axis=0) < 1e-9
    keep = np.flatnonzero(~constant | (np.cumsum(constant) == 1))
    weights = 1 / np.maximum(target, 1e-9)
    found = np.zeros(matrix.shape[1])
    found[keep] = nnls(matrix[:, keep] * weights[:, None], target * weights)[0]
    return found


def _epoch_terms(cell: dict[str, Any], examples: int) -> list[float]:
    """Products of the matrices in an epoch, and its steps."""
    return [_products(cell) * examples / 1e9, examples / cell["batch_size"] / 1e3]


def _products(cell: dict[str, Any]) -> float:
    """Multiplications per example of a forward pass."""
    task = task_of(cell["data"])
    units, hidden = cell["units"], cell["layers"] - 1
    if not hidden:
        return float(math.prod(task.input_shape) * task.outputs)
    inner = (hidden - 1) * units**2
    return float(math.prod(task.input_shape) * units + inner + units * task.outputs)


def _examples(cell: Cell) -> int:
    return EXAMPLES if cell.data in TASKS else check_name(cell.data)


def _kind(cell: dict[str, Any]) -> tuple:
    kind = tuple(cell[name] for name in ("device", "engine", "precision", "data"))
    return (*kind, cell.get("threads", "all"))


def _own(layer: Sequence[str]) -> int:
    return sum("=" not in word for word in layer)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _watts(records: Sequence[Record]) -> float | None:
    """Mean power of the GPUs over the comparisons whose energy was counted."""
    joules = seconds = 0.0
    for record in records:
        before, after = (
            [gpu.get("energy_mj") for gpu in state.get("gpus", [])]
            for state in (record.before, record.after)
        )
        if before and len(before) == len(after) and None not in (*before, *after):
            device = record.cell["device"]
            n = int(device.partition(":")[2] or 0) if device.startswith("gpu") else None
            if n is not None and n < len(before):
                joules += (after[n] - before[n]) / 1000
                seconds += record.extra["seconds"]
    return joules / seconds if seconds else None
