"""Arms built anew while they are timed: when, for how long, and what a failure costs."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from bench.ratios import paired_ratio, rounds_needed
from bench.timing import Burst, Session, measure_rounds
from tests.bench.fake_clock import Clock


def race(arms: dict[str, Burst], clock: Clock, **options: Any) -> Session:
    """Times arm `b` beside `a`."""
    return measure_rounds(arms, reference="a", compared=["b"], clock=clock, **options)


def rebuilding(arms: dict[str, Burst], clock: Clock, seconds: float) -> Callable:
    """Building anew: it gives the same arms, and takes time."""

    def rebuild() -> dict[str, Burst]:
        clock.now += seconds
        return arms

    return rebuild


def test_arms_are_built_anew_once_timing_has_taken_as_long_as_building():
    clock = Clock()
    made = []

    arms = {n: clock.arm(n, 0.03, noise=0.1) for n in "ab"}

    def rebuild() -> dict[str, Burst]:
        clock.now += 1.5
        made.append(len(clock.log))
        return arms

    session = race(
        arms,
        clock,
        cap=1e9,
        rebuild=rebuild,
        min_builds=4,
    )
    assert session.stop == "precision"
    assert len(session.builds) == len(made) + 1 >= 4
    assert session.builds[:2] == [0, 10]  # ten rounds at least
    # Then rounds of 0.06 s for as long as the 1.5 s that building took.
    assert all(24 <= b - a <= 27 for a, b in itertools.pairwise(session.builds[1:]))
    assert session.builds[-1] < len(session.order)
    assert session.rebuild_seconds == pytest.approx(1.5 * len(made))
    ratio = paired_ratio(session.samples["a"], session.samples["b"], builds=session.builds)
    assert ratio.halfwidth <= 0.01


@pytest.mark.parametrize(("build_seconds", "builds"), [(0, [0, 10, 26, 42]), (8, [0, 16, 32, 48])])
def test_a_build_is_timed_for_as_long_as_it_took_to_make(build_seconds, builds):
    clock = Clock()
    arms = {n: clock.arm(n, 0.25) for n in "ab"}

    session = race(
        arms,
        clock,
        cap=1e9,
        rebuild=rebuilding(arms, clock, 8.0),
        min_rounds=30,
        min_builds=4,
        build_seconds=build_seconds,
    )
    assert session.builds == builds  # 16 rounds of half a second
    assert (session.stop, len(session.order)) == ("precision", builds[-1] + 16)


def test_no_build_is_begun_that_would_end_after_the_cap():
    clock = Clock()
    arms = {n: clock.arm(n, 0.05, noise=0.5) for n in "ab"}

    rebuild = rebuilding(arms, clock, 1.0)
    session = race(
        rebuild(),
        clock,
        cap=10.0,
        halfwidth=1e-6,
        rebuild=rebuild,
        min_builds=2,
    )
    assert session.stop == "time"
    assert 7.0 < session.seconds <= 10.0
    samples = session.samples
    ratio = paired_ratio(samples["a"], samples["b"], builds=session.builds)
    assert session.rounds_missing == rounds_needed(ratio, 1e-6) > 0
    assert len(session.builds) == 5


def test_what_was_timed_before_a_build_failed_is_kept():
    clock = Clock()
    arms = {n: clock.arm(n, 0.05, noise=0.5) for n in "ab"}
    builds = iter([arms])

    def rebuild() -> dict[str, Burst]:
        clock.now += 1.0
        try:
            return next(builds)
        except StopIteration:
            raise ValueError("no more") from None

    session = race(arms, clock, halfwidth=1e-6, rebuild=rebuild)
    assert session.stop == "error"
    assert str(session.problem) == "no more"
    assert session.builds == [0, 10]
    assert len(session.samples["a"]) == len(session.order) > 10
    assert session.rebuild_seconds == 1.0


def test_a_build_always_has_a_round():
    """Even one that took longer than foreseen, on a device that is held back."""

    class HeldBack:
        def begin(self) -> None: ...

        def held_back(self) -> list[str]:
            return ["heat"]

    clock = Clock()
    arms = {n: clock.arm(n, 0.05) for n in "ab"}

    session = race(
        arms,
        clock,
        cap=20.0,
        min_builds=9,
        rebuild=rebuilding(arms, clock, 60.0),
        watch=HeldBack(),
    )
    assert (session.stop, session.builds) == ("time", [0, 10])
    assert len(session.order) == 11
