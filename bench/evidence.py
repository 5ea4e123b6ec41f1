"""Runs that tell what comparisons take: which one to go by, and what is read from it.

A run is evidence once it is finished: its driver noted how its time went (`bench.wall`). Its
records tell how long a new worker process takes and how long an old one; what the comparisons
themselves took is for `bench.costs`.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.nvml import gpu_names
from bench.places import kind_of, likeness
from bench.plan import Comparison
from bench.records import BadRecord, Record, Run, read_header, read_run
from bench.rules import UsageError, words
from bench.wall import WALL, read_wall

CALIBRATION = "calibration"
"""Folder under `--results` for runs that were made to predict others."""


@dataclass(frozen=True)
class Evidence:
    """A run that tells what comparisons take.

    Args:
        folder: Of the run.
        run: Its header.
        records: Those of its comparisons that were measured.
        machine: What they ran on.
        alike: Whether all of them ran on machines of its kind.
        workers: How many of a cluster's they ran on; 0 for the driver's own machine.
        begin, end, start, handout, handling: See `bench.simulation.Conditions`.
    """

    folder: Path
    run: Run
    records: list[Record]
    machine: dict[str, Any]
    alike: bool
    workers: int
    begin: float
    end: float
    start: float
    handout: float
    handling: float

    def devices(self, asked: str) -> list[str]:
        """What `--device` means where this was measured."""
        known = {record.cell["device"] for record in self.records}
        if asked == "auto":
            return [min(known - {"cpu"}, default="cpu")]
        if asked == "all" and self.run.options.get("device") == "all":
            return sorted(known)  # those that TensorFlow showed
        if asked == "all":
            visible = self.machine["flags"].get("CUDA_VISIBLE_DEVICES")
            shown = len(gpu_names(visible, self.machine["gpus"]))
            return ["cpu", *(f"gpu:{number}" for number in range(1 if self.workers else shown))]
        return ["gpu:0" if asked == "gpu" else asked]


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
    if not evidence.alike:
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
    wanted = {cell_kind(vars(comparison.cell)) for comparison in plan}
    return wanted - {cell_kind(record.cell) for record in evidence.records}


def read_evidence(folder: Path) -> Evidence | None:
    """A finished run as evidence; None if it cannot be read or nothing in it was measured."""
    try:
        return _read(folder)
    # Records may hold anything: what is no evidence must not end the search for some.
    except (BadRecord, OSError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _read(folder: Path) -> Evidence | None:
    run, records, _ = read_run(folder)
    wall = read_wall(folder)
    good = [r for r in records if r.status == "ok" and r.extra.get("seconds")]
    if not good:
        return None
    kinds = [kind_of(run, record) for record in good]
    # What a comparison took beside measuring, in a process that was there and in a new one.
    usual: list[float] = []
    new: list[float] = []
    for record in good:
        wait = record.extra.get("turnaround_seconds", 0.0) - record.extra["seconds"]
        (new if record.extra.get("position_in_process") == 1 else usual).append(wait)
    handout = max(0.0, statistics.median(usual)) if usual else 0.0
    return Evidence(
        folder,
        run,
        good,
        machine=kinds[0][1],
        alike=len({kind for kind, _ in kinds}) == 1,
        workers=len({_place(record) for record in good if "worker" in record.extra}),
        begin=max(0.0, wall.first - wall.began),
        end=max(0.0, wall.ended - wall.last),
        start=max(0.0, statistics.median(new) - handout) if new else 0.0,
        handout=handout,
        handling=wall.handling,
    )


def _place(record: Record) -> str:
    """Names the worker that a comparison was measured by."""
    worker = record.extra["worker"]
    return json.dumps([worker.get(name) for name in ("host", "cores", "gpu")])


def cell_kind(cell: dict[str, Any]) -> tuple:
    """What two cells must share for one to tell what the other takes."""
    kind = tuple(cell[name] for name in ("device", "engine", "precision", "data"))
    return (*kind, cell.get("threads", "all"))
