"""One sample, the order of a round, and when to stop.

A round times every arm once, in shuffled order. A sample is one timed burst of one arm: work is
launched, perhaps several times over, and waited for once. Waiting after every launch would
count the host's waiting as the device's work; not waiting at all would count nothing.

A model that is built and compiled twice runs at two speeds, on a CPU 0.2 % to 1 % apart: its code
and data come to lie elsewhere, and stay there. Rounds cannot average that out. So the arms are
built anew every few rounds, and the interval of a ratio comes from its spread over the builds.
"""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.ratios import paired_ratio, rounds_needed

# Rounds between two looks at the precision, and at least so many of every build.
_ROUNDS, _ROUNDS_PER_BUILD = 5, 10
_RETAKES = 3


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

    def sample(self, repeats: int, clock: Callable[[], float]) -> float:
        """Seconds that `repeats` launches took, waited for once."""
        self.before()
        begin = clock()
        for _ in range(repeats):
            launched = self.launch()
        self.wait(launched)
        return clock() - begin

    def warm(self, clock: Callable[[], float] = time.perf_counter) -> float:
        """Launches twice, and returns the seconds that the first took longer: of compiling."""
        first, second = (self.sample(1, clock) for _ in range(2))
        return max(0.0, first - second)


class Watch(Protocol):
    """Tells whether a round was measured on a device that something slowed down."""

    def begin(self) -> None: ...

    def held_back(self) -> list[str]: ...


class Sampled(Protocol):
    """What a round can time: a `Burst`, or one that runs in another process."""

    @property
    def examples(self) -> int: ...

    def sample(self, repeats: int, clock: Callable[[], float]) -> float: ...


@dataclass
class Session:
    """What `measure_rounds` saw.

    `samples` holds seconds per example, one per round and arm; `order` the arms of every round as
    they were timed; `builds` the first round of every build of the arms. `repeats` is the launches
    in a sample at the end, `short_rounds` the rounds that were thrown away because a sample in them
    was shorter than the floor. Of the rounds in which the device was held back, for the reasons in
    `held_back_by`, `retaken_rounds` were thrown away and `held_back_rounds` kept. `stop` is
    `"precision"` or `"time"`, or `"error"` where building anew raised the `problem`;
    `rounds_missing` estimates how many more rounds `"precision"` would have taken. Of its
    `seconds`, building the arms anew took `rebuild_seconds`.
    """

    samples: dict[str, list[float]]
    order: list[list[str]] = field(default_factory=list)
    builds: list[int] = field(default_factory=lambda: [0])
    repeats: int = 1
    short_rounds: int = 0
    retaken_rounds: int = 0
    held_back_rounds: int = 0
    held_back_by: list[str] = field(default_factory=list)
    stop: str = ""
    rounds_missing: int = 0
    seconds: float = 0.0
    rebuild_seconds: float = 0.0
    problem: Exception | None = None


def measure_rounds(
    bursts: Mapping[str, Sampled],
    *,
    reference: str,
    compared: list[str],
    seed: int = 0,
    floor: float = 0.02,
    halfwidth: float = 0.01,
    cap: float = 60.0,
    min_rounds: int = 20,
    rebuild: Callable[[], Mapping[str, Sampled]] | None = None,
    min_builds: int = 1,
    build_seconds: float = 0.0,
    least_rounds: int = 1,
    watch: Watch | None = None,
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
        rebuild: Gives the bursts anew, compiled again and warm. It is called after ten rounds or
            more, once they have taken as long as building did. By default nothing is built again.
        min_builds: Builds before precision is looked at.
        build_seconds: What building the bursts took. The builds weigh alike, so that the first is
            given as many rounds as the others.
        least_rounds: Rounds that are measured whatever the cap.
        watch: Asked before and after every round. One in which the device was held back is taken
            again, at most three times in a row: what does not pass is how this work runs there, as
            large products do at the power limit, and is kept and counted.
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
    names, started, building = list(bursts), clock(), build_seconds
    patience = _RETAKES
    block = _ROUNDS if rebuild is None else _ROUNDS_PER_BUILD
    with _collector_off():
        while not session.stop:
            begun, rounds = clock(), 0
            while rounds < block or clock() - begun < building:
                shuffle(names)
                seconds, reasons = _sample(session, names, bursts, watch, clock)
                if min(seconds.values()) < floor:
                    session.short_rounds += 1
                    session.repeats *= 2
                elif reasons and patience:
                    session.retaken_rounds += 1
                    patience -= 1
                else:
                    patience = patience if reasons else _RETAKES
                    _keep(session, bursts, names, seconds, reasons)
                    rounds += 1
                # A build without a round would have no ratio.
                enough = rounds and len(session.order) >= least_rounds
                if enough and clock() - started >= cap:
                    break
            now = clock()
            session.seconds = now - started
            session.rounds_missing = _missing(session, reference, compared, halfwidth)
            enough = len(session.order) >= min_rounds and len(session.builds) >= min_builds
            # No build is begun that would end after the cap.
            next_build = 0.0 if rebuild is None else building + now - begun
            if enough and session.rounds_missing == 0:
                session.stop = "precision"
            elif len(session.order) >= least_rounds and session.seconds + next_build >= cap:
                session.stop = "time"
            elif rebuild is not None:
                try:
                    bursts = rebuild()
                except Exception as error:  # what was timed is kept
                    session.stop, session.problem = "error", error
                    break
                gc.collect()  # the builds before, outside any sample
                session.builds.append(len(session.order))
                building = clock() - now
                session.rebuild_seconds += building
    return session


@contextmanager
def _collector_off() -> Iterator[None]:
    """As timeit does: a collection would be charged to whichever arm it hits.

    What lives already is left out of the collections between builds, which then take no time.
    """
    collecting = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if collecting:
            gc.enable()


def _sample(
    session: Session,
    names: list[str],
    bursts: Mapping[str, Sampled],
    watch: Watch | None,
    clock: Callable[[], float],
) -> tuple[dict[str, float], list[str]]:
    """Times every arm once, in the order of `names`: seconds, and why the device was held back."""
    if watch is None:
        return {name: bursts[name].sample(session.repeats, clock) for name in names}, []
    watch.begin()
    seconds = {name: bursts[name].sample(session.repeats, clock) for name in names}
    reasons = watch.held_back()
    session.held_back_by = sorted({*session.held_back_by, *reasons})
    return seconds, reasons


def _keep(
    session: Session,
    bursts: Mapping[str, Sampled],
    names: list[str],
    seconds: dict[str, float],
    reasons: list[str],
) -> None:
    session.order.append(list(names))
    session.held_back_rounds += bool(reasons)
    for name, duration in seconds.items():
        session.samples[name].append(duration / (session.repeats * bursts[name].examples))


def _missing(session: Session, reference: str, compared: list[str], halfwidth: float) -> int:
    """About how many more rounds the least precise ratio needs; 0 when none does."""
    missing = 0
    for name in compared:
        ratio = paired_ratio(
            session.samples[reference], session.samples[name], builds=session.builds
        )
        if not ratio.halfwidth <= halfwidth:
            missing = max(missing, rounds_needed(ratio, halfwidth), 1)
    return missing
