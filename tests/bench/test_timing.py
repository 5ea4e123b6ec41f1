"""The order of a session, what a sample counts, and when measuring stops: with fake arms."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ratios import paired_ratio, rounds_needed
from bench.timing import Burst, Session, measure_rounds
from tests.bench.fake_clock import Clock


def test_every_round_times_every_arm_once_in_an_order_of_its_own():
    clock = Clock()
    names = ["a", "b", "c"]
    session = measure_rounds(
        {n: clock.arm(n) for n in names}, reference="a", compared=[], clock=clock, min_rounds=60
    )
    launched = [entry for entry in clock.log if entry != "wait"]
    assert launched == list(itertools.chain(*session.order))
    assert all(sorted(order) == names for order in session.order)
    # 60 rounds of three arms: each of the six orders is missed once in 10,000 seeds.
    assert len(set(map(tuple, session.order))) == 6


def test_no_arm_is_always_timed_after_the_same_one():
    clock = Clock()
    session = measure_rounds(
        {n: clock.arm(n) for n in "ab"}, reference="a", compared=[], clock=clock, min_rounds=100
    )
    first = Counter(order[0] for order in session.order)
    assert 30 < first["a"] < 70  # a fair coin leaves this range once in 25,000 seeds


def test_the_order_comes_from_the_recorded_seed():
    def order(seed: int) -> list[list[str]]:
        clock = Clock()
        arms = {n: clock.arm(n) for n in "abcd"}
        return measure_rounds(
            arms, reference="a", compared=[], seed=seed, clock=clock, min_rounds=20
        ).order

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_work_that_is_launched_and_not_done_is_counted():
    """A fake asynchronous device: launching is free, waiting costs what was launched."""
    clock = Clock()
    queue: list[float] = []

    def wait(_: object) -> None:
        clock.now += sum(queue)
        queue.clear()

    slow = Burst(lambda: queue.append(0.04), wait, examples=1)
    slower = Burst(lambda: queue.append(0.08), wait, examples=1)
    session = measure_rounds(
        {"slow": slow, "slower": slower},
        reference="slow",
        compared=["slower"],
        clock=clock,
    )
    assert session.samples["slow"] == pytest.approx([0.04] * len(session.order))
    assert session.samples["slower"] == pytest.approx([0.08] * len(session.order))


def test_a_sample_waits_once_however_many_launches_it_has():
    clock = Clock()
    session = measure_rounds(
        {"a": clock.arm("a", 0.001)}, reference="a", compared=[], clock=clock, min_rounds=5
    )
    assert session.repeats == 32  # the first power of two that lasts 20 ms
    accepted = clock.log[-5 * 33 :]
    assert accepted == (["a"] * 32 + ["wait"]) * 5
    # What is recorded is of one example, of the 10 in each launch.
    assert session.samples["a"] == pytest.approx([0.001 / 10] * 5)


def test_warming_up_tells_what_the_first_launch_took_longer():
    clock, costs = Clock(), iter([0.5, 0.25, 0.25, 0.5])
    burst = Burst(lambda: setattr(clock, "now", clock.now + next(costs)), lambda _: None, 1)
    assert burst.warm(clock) == 0.25
    assert burst.warm(clock) == 0.0  # never below: the second may meet a disturbance


@given(st.lists(st.floats(1e-4, 0.1), min_size=1, max_size=4), st.floats(0.0, 0.1))
@settings(deadline=None, max_examples=50)
def test_no_sample_shorter_than_the_floor_is_accepted(durations, floor):
    clock = Clock()
    bursts = {str(n): clock.arm(str(n), d, noise=0.3) for n, d in enumerate(durations)}
    session = measure_rounds(
        bursts, reference="0", compared=[], floor=floor, clock=clock, min_rounds=7
    )
    shortest = min(t for samples in session.samples.values() for t in samples)
    # Repeats only grow: what the last round's repeats make of the shortest sample is a bound.
    assert shortest * 10 * session.repeats >= floor * (1 - 1e-9)
    assert all(len(samples) == len(session.order) for samples in session.samples.values())


def test_rounds_thrown_away_for_short_samples_are_counted():
    clock = Clock()
    session = measure_rounds(
        {"a": clock.arm("a", 0.006)}, reference="a", compared=[], clock=clock, min_rounds=5
    )
    assert (session.short_rounds, session.repeats) == (2, 4)
    assert len(session.order) == 5


def test_a_sample_as_long_as_the_floor_is_accepted():
    clock = Clock()
    session = measure_rounds(
        {"a": clock.arm("a", 0.25)}, reference="a", compared=[], clock=clock, floor=0.25
    )
    assert (session.short_rounds, len(session.order)) == (0, 20)


def test_stops_on_precision_once_every_compared_ratio_has_it():
    clock = Clock()
    arms = {"a": clock.arm("a", noise=0.1), "b": clock.arm("b", noise=0.1)}
    session = measure_rounds(arms, reference="a", compared=["b"], clock=clock, cap=1e9)
    assert session.stop == "precision"
    assert session.rounds_missing == 0
    assert len(session.order) > 20


def test_stops_at_the_cap_and_says_how_many_rounds_were_missing():
    clock = Clock()
    arms = {"a": clock.arm("a", noise=0.5), "b": clock.arm("b", noise=0.5)}
    session = measure_rounds(
        arms, reference="a", compared=["b"], clock=clock, cap=3.0, halfwidth=0.001
    )
    assert session.stop == "time"
    assert session.rounds_missing > 0
    assert 3.0 <= session.seconds < 3.2


def test_the_cap_is_when_no_further_round_starts():
    clock = Clock()
    session = measure_rounds(
        {"a": clock.arm("a", 0.25)}, reference="a", compared=[], clock=clock, cap=2.0
    )
    assert (session.stop, session.seconds, len(session.order)) == ("time", 2.0, 8)


def test_least_rounds_are_measured_whatever_the_cap():
    clock = Clock()
    arms = {n: clock.arm(n, 0.25) for n in "ab"}
    for rebuild in (None, lambda: arms):
        session = measure_rounds(
            arms,
            reference="a",
            compared=["b"],
            clock=clock,
            cap=0.0,
            rebuild=rebuild,
            least_rounds=7,
        )
        assert (session.stop, len(session.order)) == ("time", 7)


def test_the_rounds_missing_are_those_of_the_least_precise_ratio():
    clock = Clock()
    noise = {"a": 0.01, "b": 0.5, "c": 0.1}
    session = measure_rounds(
        {n: clock.arm(n, noise=amount) for n, amount in noise.items()},
        reference="a",
        compared=["b", "c"],
        clock=clock,
        cap=3.0,
        halfwidth=0.001,
    )
    samples = session.samples
    missing = [rounds_needed(paired_ratio(samples["a"], samples[n]), 0.001) for n in "bc"]
    assert session.rounds_missing == missing[0] > missing[1] > 0


def test_a_halfwidth_that_is_just_reached_is_reached():
    def measure(**options: float) -> Session:
        clock = Clock()
        arms = {n: clock.arm(n, noise=0.1) for n in "ab"}
        return measure_rounds(arms, reference="a", compared=["b"], clock=clock, **options)

    samples = measure(halfwidth=10.0).samples
    reached = paired_ratio(samples["a"], samples["b"]).halfwidth
    session = measure(halfwidth=reached)
    assert (session.stop, len(session.order)) == ("precision", 20)


def test_a_cap_shorter_than_a_round_still_gives_a_round():
    clock = Clock()
    session = measure_rounds(
        {"a": clock.arm("a", 5.0)}, reference="a", compared=[], clock=clock, cap=1
    )
    assert len(session.order) == 1


def test_the_collector_is_off_while_timing_and_on_again_after_an_error():
    import gc

    seen = []

    def launch() -> None:
        seen.append(gc.isenabled())
        raise RuntimeError("a layer may raise anything")

    with pytest.raises(RuntimeError):
        measure_rounds({"a": Burst(launch, lambda _: None, 1)}, reference="a", compared=[])
    assert seen == [False]
    assert gc.isenabled()
