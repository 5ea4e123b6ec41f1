"""One cell: every peer prepared in its process, then timed in interleaved rounds."""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from bench.machine import anonymous, held_back, read_state
from bench.peers.process import PeerFailed, RemotePeer, Task
from bench.peers.registry import CEILINGS, OURS
from bench.records import Record, cell_key, utc_now
from bench.timing import Session, measure_rounds

# Fewer than six rounds have no interval; of fewer than ten it is not asked how precise they are.
_LEAST_ROUNDS = 6
_MIN_ROUNDS = 10


@dataclass(frozen=True)
class Rules:
    """How to measure; as the options of the same names."""

    epoch_seconds: float
    floor: float
    halfwidth: float
    time_cap: float
    order_seed: int


def cell_of(task: Task) -> dict[str, Any]:
    """The cell as a record has it."""
    return {
        "layers": task.network.layers,
        "units": task.network.units,
        "batch_size": task.network.batch_size,
        "precision": "float32",
        "device": task.device,
        "engine": task.engine,
        "bias": "trained",
        "data": task.data,
    }


def race(task: Task, peers: Mapping[str, RemotePeer], rules: Rules) -> Record:
    """Measures one cell.

    A peer that fails is recorded with what happened, and the others go on: rounds begun with it
    are measured again without it. Without `fit_compiled` there is no comparison.
    """
    cell = cell_of(task)
    started, before = utc_now(), read_state()
    arms: dict[str, dict[str, Any]] = {name: {} for name in peers}

    def failed(failure: PeerFailed) -> None:
        arms[failure.name] = {"error": anonymous(failure.reason)}

    for name, found in _each(task, peers, lambda peer: peer.prepare(task), failed).items():
        arms[name] |= found
    _lengthen(task, {n: p for n, p in peers.items() if "error" not in arms[n]}, rules, failed)
    running = [peer for name, peer in peers.items() if "error" not in arms[name]]
    session, running = _rounds(running, rules, failed)
    for peer in running:
        arms[peer.name] |= {
            "samples": session.samples[peer.name],
            "epoch_examples": peer.epoch_examples,
            "launches": peer.launches,
            "short_samples": peer.short_samples,
            "idle_cpu": _idle_cpu(peer),
        }
    after = read_state()
    problem = arms[OURS].get("error", "")
    return Record(
        key=cell_key(cell),
        cell=cell,
        status="failed" if problem else "ok",
        reason=problem,
        arms=arms,
        order=session.order,
        stop=session.stop,
        before=before,
        after=after,
        notes=[f"{name}: {arm['error']}" for name, arm in arms.items() if "error" in arm]
        + held_back(before, after),
        extra={
            "images": task.images,
            "rounds_missing": session.rounds_missing,
            "timing_seconds": session.seconds,
        },
        started=started,
        ended=utc_now(),
    )


def check_accuracy(
    task: Task, peers: Mapping[str, RemotePeer], epochs: int
) -> dict[str, float | str | None]:
    """Test accuracy of every peer after a full training on the same batches, or what it raised."""
    failures: dict[str, str] = {}

    def failed(failure: PeerFailed) -> None:
        failures[failure.name] = anonymous(failure.reason)

    found = _each(task, peers, lambda peer: peer.accuracy(task, epochs), failed)
    return found | failures


def out_of_tolerance(accuracies: Mapping[str, Any], test_examples: int) -> dict[str, float]:
    """Peers whose accuracy is not that of the others, and their distance from the median.

    The same kernels and batches leave rounding errors, which training amplifies: 0.5 percentage
    points are allowed, and five test images where that is more.

    Example:

    >>> out_of_tolerance({"a": 0.97, "b": 0.971, "c": 0.93, "products-numpy": None}, 10_000)
    {'c': -0.04}
    """
    known = {name: a for name, a in accuracies.items() if isinstance(a, float)}
    if not known:
        return {}
    middle = statistics.median(known.values())
    allowed = max(0.005, 5 / test_examples)
    return {n: round(a - middle, 6) for n, a in known.items() if not abs(a - middle) <= allowed}


def _lengthen(
    task: Task,
    peers: Mapping[str, RemotePeer],
    rules: Rules,
    failed: Callable[[PeerFailed], None],
) -> None:
    """Gives every peer epochs that last as long as they must, or all of the data."""
    wanted: dict[str, int] = {}
    for name, peer in peers.items():  # one at a time: this is timed
        try:
            examples = peer.examples_in(rules.epoch_seconds)
        except PeerFailed as failure:
            failed(failure)
        else:
            wanted |= {name: examples} if examples else {}
    longer = {name: peers[name] for name in wanted}
    _each(task, longer, lambda peer: peer.lengthen(task, wanted[peer.name]), failed)


def _rounds(
    running: list[RemotePeer], rules: Rules, failed: Callable[[PeerFailed], None]
) -> tuple[Session, list[RemotePeer]]:
    while any(peer.name == OURS for peer in running):
        try:
            for peer in running:
                peer.warm_up(rules.floor)
            session = measure_rounds(
                {peer.name: peer for peer in running},
                reference=OURS,
                compared=[p.name for p in running if p.name not in (OURS, *CEILINGS)],
                seed=rules.order_seed,
                floor=0.0,  # each peer keeps to it by itself
                halfwidth=rules.halfwidth,
                cap=rules.time_cap,
                min_rounds=_MIN_ROUNDS,
                least_rounds=_LEAST_ROUNDS,
            )
        except PeerFailed as failure:
            failed(failure)
            running = [peer for peer in running if peer.name != failure.name]
        else:
            return session, running
    return Session({}), []


def _each(
    task: Task,
    peers: Mapping[str, RemotePeer],
    ask: Callable[[RemotePeer], Any],
    failed: Callable[[PeerFailed], None],
) -> dict[str, Any]:
    """What every peer answers, as many at a time as there are cores: nothing is timed here.

    On a GPU one at a time: XLA times kernels while it compiles, and keeps those that it chose.
    """
    found = {}

    def one(peer: RemotePeer) -> Iterable[Any]:
        try:
            return [ask(peer)]
        except PeerFailed as failure:
            failed(failure)
            return []

    with ThreadPoolExecutor(os.cpu_count() if task.device == "cpu" else 1) as pool:
        for name, answer in zip(peers, pool.map(one, peers.values()), strict=True):
            for value in answer:
                found[name] = value
    return found


def _idle_cpu(peer: RemotePeer) -> float:
    """CPU seconds that a peer used per second while others were timed; more than 1 % is much."""
    spans = peer.idle[1:]  # before the first, the others were warmed up
    return sum(used for _, used in spans) / sum(seconds for seconds, _ in spans) if spans else 0.0
