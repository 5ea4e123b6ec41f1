"""One sample, the order of a round, and when to stop.

A round times every arm once, in shuffled order. A sample is one timed burst of one arm: work is
launched, perhaps several times over, and waited for once. Waiting after every launch would
count the host's waiting as the device's work; not waiting at all would count nothing.
"""

import gc
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.verdicts import paired_ratio, rounds_needed


@dataclass(frozen=True)
class Burst:
    """What is timed of an arm.

    Args:
        launch: Starts work on `examples` examples; may return before it is done.
        wait: Returns when what `launch` returned, and all launched before it, is done.
        examples: Examples per launch.
        before: Called before every sample, outside its time.
    """

    launch: Callable[[], Any]
    wait: Callable[[Any], object]
    examples: int
    before: Callable[[], object] = lambda: None


@dataclass
class Session:
    """What `measure_rounds` saw.

    `samples` holds seconds per example, one per round and arm; `order` the arms of every round
    as they were timed. `repeats` is the launches in a sample at the end, `short_rounds` the
    rounds that were thrown away because a sample in them was shorter than the floor. `stop` is
    `"precision"` or `"time"`; `rounds_missing` estimates how many more rounds `"precision"`
    would have taken.
    """

    samples: dict[str, list[float]]
    order: list[list[str]] = field(default_factory=list)
    repeats: int = 1
    short_rounds: int = 0
    stop: str = ""
    rounds_missing: int = 0
    seconds: float = 0.0


def measure_rounds(
    bursts: Mapping[str, Burst],
    *,
    reference: str,
    compared: list[str],
    seed: int = 0,
    floor: float = 0.02,
    halfwidth: float = 0.01,
    cap: float = 60.0,
    min_rounds: int = 20,
    clock: Callable[[], float] = time.perf_counter,
) -> Session:
    """Times all arms in interleaved rounds until their ratios are known well enough.

    The bursts must be warm: compiled, and run at least once.

    Args:
        bursts: What to time, by the name of the arm.
        reference: The arm that the others are compared with.
        compared: Arms whose ratio to the reference must become precise; others are only timed.
        seed: Of the order within the rounds.
        floor: Seconds that a sample must last. A shorter one is never accepted: the launches
            in a sample are doubled, for every arm alike, and the round is taken again.
        halfwidth: Relative half-width of every compared ratio's interval to stop at.
        cap: Seconds after which no further round starts.
        min_rounds: Rounds before precision is looked at.
        clock: Gives seconds.

    Returns:
        The `Session`.

    Example:

    >>> busy = Burst(lambda: time.sleep(0.001), lambda _: None, examples=10)
    >>> s = measure_rounds({"a": busy, "b": busy}, reference="a", compared=["b"], floor=0, cap=0.1)
    >>> len(s.samples["a"]) == len(s.samples["b"]) == len(s.order)
    True
    """
    session = Session({name: [] for name in bursts})
    shuffle = random.Random(seed).shuffle
    names = list(bursts)
    started = clock()
    collecting = gc.isenabled()
    gc.disable()  # as timeit does: a collection would be charged to whichever arm it hits
    try:
        while True:
            shuffle(names)
            seconds = {name: _sample(bursts[name], session.repeats, clock) for name in names}
            if min(seconds.values()) < floor:
                session.short_rounds += 1
                session.repeats *= 2
            else:
                session.order.append(list(names))
                for name, duration in seconds.items():
                    per_example = duration / (session.repeats * bursts[name].examples)
                    session.samples[name].append(per_example)
            session.seconds = clock() - started
            rounds = len(session.order)
            late = session.seconds >= cap and rounds > 0
            if late or (rounds >= min_rounds and rounds % 5 == 0):
                session.rounds_missing = _missing(session, reference, compared, halfwidth)
                if session.rounds_missing == 0 and rounds >= min_rounds:
                    session.stop = "precision"
                    break
                if late:
                    session.stop = "time"
                    break
    finally:
        if collecting:
            gc.enable()
    return session


def _sample(burst: Burst, repeats: int, clock: Callable[[], float]) -> float:
    burst.before()
    begin = clock()
    for _ in range(repeats):
        launched = burst.launch()
    burst.wait(launched)
    return clock() - begin


def _missing(session: Session, reference: str, compared: list[str], halfwidth: float) -> int:
    """About how many more rounds the least precise ratio needs; 0 when none does."""
    missing = 0
    for name in compared:
        ratio = paired_ratio(session.samples[reference], session.samples[name])
        if not ratio.halfwidth <= halfwidth:
            more = rounds_needed(ratio, halfwidth) if math.isfinite(ratio.halfwidth) else 1
            missing = max(missing, more, 1)
    return missing
