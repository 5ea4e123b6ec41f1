"""Which machine a comparison ran on, and telling unlike machines of one run apart.

A record of a cluster's worker says in `extra["worker"]` where it was made; one without was made on
the machine of the run's header. Two are alike if hardware, driver, software, flags and what the
comparison owned are: as many cores, the same GPU. Which cores and which of several equal hosts
does not matter. Results of unlike machines are never pooled: in what `told_apart` returns, the
machine is one more axis of the cells.
"""

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from bench.records import Record, Run

UNLIKE = (
    "The comparisons ran on unlike machines, told apart by letters. Nothing is pooled over them: "
    "verdicts are counted, and corrected for their number, for each machine by itself."
)
_HARDWARE = ("id", "architecture", "python", "versions")


def likeness(machine: dict[str, Any], worker: dict[str, Any] | None = None) -> str:
    """Names a kind of machine: equal for those whose results may stand side by side.

    Args:
        machine: From `bench.machine.describe_machine`.
        worker: `extra["worker"]` of a record, for what of the machine it owned.
    """
    flags = {k: v for k, v in machine["flags"].items() if k != "CUDA_VISIBLE_DEVICES"}
    facts: list[Any] = [machine.get(name) for name in _HARDWARE]
    facts += [flags, machine["cpu"]["usable_cores"]]
    facts += [None if worker is None or worker["gpu"] is None else _gpu(worker)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]


def kind_of(run: Run, record: Record) -> tuple[str, dict[str, Any]]:
    """The likeness of the machine that a record was made on, and that machine."""
    worker = record.extra.get("worker")
    machine = worker["machine"] if worker else run.machine
    return likeness(machine, worker), machine


def told_apart(run: Run, records: Sequence[Record]) -> tuple[Run, list[Record]]:
    """A run and its records, for those who show them: unlike machines told apart by a letter.

    With one kind of machine the records are as they were. With several, `cell["machine"]` of each
    record is its letter. `run.machine` becomes the machine that the comparisons ran on, the first
    of several; then `run.machine["kinds"]` has them all, by letter.
    """
    kinds: dict[str, dict[str, Any]] = {}
    members: dict[str, list[Record]] = {}
    for record in records:
        worker = record.extra.get("worker")
        if worker is None and record.status == "failed" and not record.arms:
            continue  # nothing was measured, so it is of no machine
        kind, machine = kind_of(run, record)
        kinds.setdefault(kind, machine)
        members.setdefault(kind, []).append(record)
    if not any("worker" in record.extra for record in records):
        return run, list(records)
    letters = dict(zip(kinds, _letters(), strict=False))
    described = {
        letters[kind]: machine | {"made": _made(members[kind])} for kind, machine in kinds.items()
    }
    first = next(iter(described.values()))
    if len(kinds) == 1:
        return replace(run, machine=first), list(records)
    letter = {r.key: letters[kind] for kind, own in members.items() for r in own}
    return replace(run, machine=first | {"kinds": described}), [
        replace(r, cell=r.cell | {"machine": letter[r.key]}) if r.key in letter else r
        for r in records
    ]


def kinds_of(machine: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The machines of a run's header as `told_apart` returns it; a single one has no letter."""
    return machine.get("kinds") or {"": machine}


def _made(records: Sequence[Record]) -> str:
    """How many comparisons ran on machines of one kind, and where."""
    workers = [record.extra["worker"] for record in records if "worker" in record.extra]
    hosts = sorted({worker["host"] for worker in workers})
    owned = {f"{len(worker['cores'])} cores" for worker in workers}
    owned |= {f"GPU {worker['gpu']}" for worker in workers if worker["gpu"] is not None}
    where = f" on {', '.join(hosts)}, each owning {' or '.join(sorted(owned))}" if hosts else ""
    return f"{len(records)} comparison{'s' if len(records) > 1 else ''}{where}"


def _gpu(worker: dict[str, Any]) -> str:
    """The model of a worker's GPU, which `CUDA_VISIBLE_DEVICES` names by number or UUID."""
    gpus = worker["machine"]["gpus"]
    names = {str(gpu["index"]): str(gpu.get("name")) for gpu in gpus}
    return names.get(worker["gpu"], " or ".join(sorted({*names.values()})))


def _letters() -> list[str]:
    single = list(string.ascii_uppercase)
    return single + ["".join(pair) for pair in product(single, repeat=2)]
