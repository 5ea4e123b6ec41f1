"""Intervals of a ratio: how often they hold the truth, and what they do not depend on."""

import doctest
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

import bench.ratios
from bench.ratios import Ratio, paired_ratio, rounds_needed
from bench.verdicts import Verdict, verdict
from tests.bench.sessions import paired_times, session


def correlated(rho: float) -> Callable[[np.random.Generator, int], np.ndarray]:
    def draw(rng: np.random.Generator, rounds: int) -> np.ndarray:
        steps = rng.normal(size=rounds + 200)
        return lfilter([math.sqrt(1 - rho**2)], [1, -rho], steps)[200:]

    return draw


NOISES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.standard_t(2, size=n),
    "skewed": lambda rng, n: rng.exponential(size=n) - math.log(2),
    "two humps": lambda rng, n: rng.choice([-1, 1], n) + 0.1 * rng.normal(size=n),
    "correlated 0.3": correlated(0.3),
    "correlated 0.5": correlated(0.5),
}


def coverage(noise: str | float, rounds: int, sessions: int) -> float:
    rng = np.random.default_rng(rounds)
    draw = NOISES[noise] if isinstance(noise, str) else correlated(noise)
    held = 0
    for _ in range(sessions):
        ratio = paired_ratio(1.05 * np.exp(0.1 * draw(rng, rounds)), np.ones(rounds))
        held += ratio.low <= 1.05 <= ratio.high
    return held / sessions


@pytest.mark.parametrize("rounds", [20, 50, 200])
@pytest.mark.parametrize("noise", NOISES)
def test_intervals_hold_the_truth_as_often_as_they_say(noise, rounds):
    # Correlation can only be estimated from the rounds themselves, which costs up to 2 points.
    nominal = 0.93 if noise.startswith("correlated") else 0.95
    assert coverage(noise, rounds, 400) >= stats.binom.ppf(0.01, 400, nominal) / 400


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [20, 50, 200])
@pytest.mark.parametrize("noise", NOISES)
def test_coverage_is_at_least_93_percent(noise, rounds):
    assert coverage(noise, rounds, 5000) >= stats.binom.ppf(0.001, 5000, 0.93) / 5000


@pytest.mark.slow
@pytest.mark.parametrize(("rounds", "stated"), [(20, 0.75), (200, 0.91)])
def test_strong_correlation_costs_the_coverage_that_the_docstring_states(rounds, stated):
    assert coverage(0.9, rounds, 3000) == pytest.approx(stated, abs=0.02)


@given(paired_times, st.floats(1e-3, 1e3))
def test_the_unit_of_time_does_not_matter(pair, unit):
    a, b = paired_ratio(*pair), paired_ratio(*unit * pair)
    assert [b.low, b.estimate, b.high] == pytest.approx([a.low, a.estimate, a.high])


@given(paired_times)
def test_the_estimate_is_inside_and_repeats_to_the_last_bit(pair):
    ratio = paired_ratio(*pair)
    assert 0 <= ratio.low <= ratio.estimate <= ratio.high
    assert 0 < ratio.effective_rounds <= ratio.rounds == pair.shape[1]
    assert paired_ratio(*pair) == ratio


@given(paired_times)
def test_more_confidence_never_narrows_an_interval(pair):
    narrow, wide = (paired_ratio(*pair, confidence=c) for c in (0.9, 0.99))
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@pytest.mark.parametrize("rounds", range(1, 6))
def test_fewer_than_six_rounds_say_nothing(rounds):
    ratio = paired_ratio([2.0] * rounds, [1.0] * rounds)
    assert (ratio.low, ratio.estimate, ratio.high) == (0, 2, math.inf)
    assert ratio.halfwidth == math.inf
    assert verdict(ratio) is Verdict.CANT_TELL


def test_six_rounds_that_agree_say_something():
    assert verdict(paired_ratio([2.0] * 6, [1.0] * 6)) is Verdict.FASTER
    assert verdict(paired_ratio([1.0] * 6, [1.0] * 6)) is Verdict.SAME


def test_rounds_that_err_alike_are_worth_fewer():
    rng = np.random.default_rng(0)
    worth = [
        np.mean(
            [
                paired_ratio(np.exp(correlated(rho)(rng, 200)), np.ones(200)).effective_rounds
                for _ in range(50)
            ]
        )
        for rho in (0.0, 0.5, 0.9)
    ]
    assert 200 > worth[0] > 160 > worth[1] > 60 > worth[2]


def test_alternating_rounds_are_never_worth_more_than_they_are():
    ratio = paired_ratio(np.tile([1.0, 1.1], 50) + np.linspace(0, 0.01, 100), np.ones(100))
    assert ratio.effective_rounds == 100


@pytest.mark.alone
def test_an_interval_is_fast_enough_to_ask_for_every_few_rounds():
    pair = session(np.random.default_rng(0), 300)
    started = time.perf_counter()
    for _ in range(20):
        paired_ratio(*pair)
    assert (time.perf_counter() - started) / 20 < 0.02


def test_rounds_needed_follows_the_square_root_law():
    ratio = Ratio(1 / 1.04, 1.0, 1.04, 100, 100.0)
    assert rounds_needed(ratio, 0.02) == pytest.approx(300, abs=1)
    assert rounds_needed(ratio, 0.041) == rounds_needed(ratio, 1.0) == 0
    assert [rounds_needed(Ratio(0, 1, math.inf, n, n), 0.01) for n in (1, 5, 8)] == [5, 5, 8]


def test_rounds_needed_is_about_right():
    rng = np.random.default_rng(5)
    seconds = session(rng, 2000, noise=0.05)
    ratio = paired_ratio(*seconds[:, :100])
    total = 100 + rounds_needed(ratio, ratio.halfwidth / 3)
    assert total == pytest.approx(900, abs=1)
    assert paired_ratio(*seconds[:, :total]).halfwidth == pytest.approx(
        ratio.halfwidth / 3, rel=0.35
    )


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("arm", ["reference", "arm"])
def test_a_time_that_is_none_is_refused_by_name_and_place(bad, arm):
    good = [1.0, 1.0]
    pair = ([1.0, bad], good) if arm == "reference" else (good, [1.0, bad])
    rule = rf"^`{arm}` must be positive and finite\. Received: {arm}\[1\]={bad}$"
    with pytest.raises(ValueError, match=rule):
        paired_ratio(*pair)


def test_the_examples_run():
    assert doctest.testmod(bench.ratios).failed == 0
