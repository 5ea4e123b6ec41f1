"""Verdicts on simulated sessions whose truth is known: error rates, power, coverage, correction."""

import doctest
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bench.verdicts
from bench.ratios import Ratio, paired_ratio, rounds_needed
from bench.verdicts import Verdict, accuracy_difference, outliers, verdict
from tests.bench.sessions import WRONG, paired_times, session

REVERSE = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}


@pytest.mark.parametrize("rounds", [20, 100, 300])
def test_an_arm_against_itself_is_called_different_no_more_often_than_stated(rounds):
    rng = np.random.default_rng(rounds)
    words = [verdict(paired_ratio(*session(rng, rounds))) for _ in range(1000)]
    # What a true rate of 5 % exceeds once in a thousand such tests.
    assert sum(word in WRONG for word in words) <= stats.binom.ppf(0.999, 1000, 0.05)


def test_a_planted_5_percent_is_found_in_95_percent_of_sessions():
    rng = np.random.default_rng(1)
    words = [verdict(paired_ratio(*session(rng, 300, speedup=1.05))) for _ in range(1000)]
    assert words.count(Verdict.FASTER) >= 950
    assert Verdict.SLOWER not in words


def test_one_arm_after_the_other_would_have_misled():
    """The same samples in blocks, judged as is usual: a rank test, and medians 2 % apart."""
    rng = np.random.default_rng(2)
    naive = paired = 0
    for _ in range(300):
        a, b = session(rng, 200, interleaved=False)
        ratio = np.median(a) / np.median(b)
        naive += stats.mannwhitneyu(a, b).pvalue < 0.05 and abs(math.log(ratio)) > math.log(1.02)
        paired += verdict(paired_ratio(*session(rng, 200))) in WRONG
    assert naive > 0.5 * 300
    assert paired <= stats.binom.ppf(0.999, 300, 0.05)


@given(paired_times)
def test_swapping_the_arms_inverts_the_ratio_and_the_verdict(pair):
    there, back = paired_ratio(*pair), paired_ratio(*pair[::-1])
    assert back.estimate == pytest.approx(1 / there.estimate)
    assert back.low == pytest.approx(1 / there.high if there.high < math.inf else 0)
    assert back.halfwidth == pytest.approx(there.halfwidth)
    assert back.effective_rounds == there.effective_rounds
    assert verdict(back) == REVERSE.get(verdict(there), verdict(there))


def test_identical_samples_are_the_same_in_every_way():
    a = np.random.default_rng(0).lognormal(size=40)
    assert paired_ratio(a, a) == Ratio(1, 1, 1, 40, 40)
    assert paired_ratio(a, a).halfwidth == 0


@pytest.mark.parametrize(
    ("low", "estimate", "high", "word"),
    [
        (1.001, 1.02, 1.2, "faster"),
        (0.999, 1.05, 1.2, "can't tell"),
        (1.001, 1.015, 1.03, "can't tell"),
        (1.001, 1.01, 1.015, "same"),  # surely faster, and by too little to matter
        (0.99, 1.0, 1.01, "same"),
        (0.98, 1.0, 1.01, "can't tell"),
        (0.99, 1.0, 1.02, "can't tell"),
        (0.5, 0.9, 0.999, "slower"),
        (0.5, 0.99, 0.999, "can't tell"),
        (0.0, 2.0, math.inf, "can't tell"),
        (1.0, 1.05, 1.2, "can't tell"),
        (0.5, 0.9, 1.0, "can't tell"),
        (0.5, 1 / 1.02, 0.999, "slower"),
        (1 / 1.02, 1.0, 1.01, "can't tell"),
    ],
)
def test_the_rule_turns_both_keys(low, estimate, high, word):
    assert verdict(Ratio(low, estimate, high, 100, 100.0), margin=0.02) == word


@pytest.mark.slow
def test_stopping_on_precision_is_honest_and_on_the_verdict_is_not():
    rng = np.random.default_rng(4)
    held = wrong = ever = 0
    for noise in [0.02] * 200 + [0.1] * 200:
        seconds, seen = session(rng, 400, noise=noise), []
        for rounds in range(20, 401, 10):
            ratio = paired_ratio(*seconds[:, :rounds])
            seen.append(verdict(ratio) in WRONG)
            if ratio.halfwidth <= 0.01:
                break
        held += ratio.low <= 1 <= ratio.high
        wrong += seen[-1]
        ever += noise == 0.1 and any(seen)
    assert held >= stats.binom.ppf(0.001, 400, 0.95)
    assert wrong <= stats.binom.ppf(0.999, 400, 0.05)
    assert ever > stats.binom.ppf(0.999, 200, 0.05)


def test_accuracy_difference_is_the_paired_t_interval():
    rng = np.random.default_rng(6)
    seed = rng.normal(0.97, 0.01, 8)
    a, b = seed + rng.normal(0, 0.001, 8), seed + 0.002 + rng.normal(0, 0.001, 8)
    found = accuracy_difference(a, b)
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.estimate == pytest.approx(np.mean(b) - np.mean(a))
    assert found.seeds == 8
    assert found.high - found.low < 0.01  # the spread between seeds is gone


def test_accuracy_difference_at_its_ends():
    one = accuracy_difference([0.97], [0.96])
    assert (one.low, one.high, one.seeds) == (-math.inf, math.inf, 1)
    none = accuracy_difference([0.5, 0.75], [0.5, 0.75])
    assert (none.low, none.estimate, none.high) == (0, 0, 0)


def test_outliers_are_counted():
    assert outliers([]) == outliers([1.0] * 9) == 0
    # Median 5, MAD 2: far is more than 3.5 * 2 / 0.6745 = 10.38 from 5.
    assert outliers([1, 2, 3, 4, 5, 6, 7, 8, 15.3]) == 0
    assert outliers([1, 2, 3, 4, 5, 6, 7, 8, 15.5]) == 1
    assert outliers([*[5] * 9, 6]) == 1
    assert outliers([*map(Fraction, [1, 2, 3, 4, 5, 6, 7, 8, "15.5"])]) == 1


@given(st.lists(st.integers(1, 1000), min_size=1), st.integers(-1000, 1000))
def test_outliers_do_not_depend_on_unit_or_origin(values, shift):
    assert outliers(np.array(values) * 4 + shift) == outliers(values) < max(2, len(values))


PAIRS = "`reference` and `arm` must hold one number each per round, for at least one round"
CONFIDENCE = "`confidence` must be in (0, 1)"
MARGIN = "`margin` must be positive and finite"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: paired_ratio([1.0], [1.0, 2.0]),
            f"{PAIRS}. Received: reference.shape=(1,), arm.shape=(2,)",
        ),
        (lambda: paired_ratio([], []), f"{PAIRS}. Received: reference.shape=(0,), arm.shape=(0,)"),
        (
            lambda: paired_ratio([[1.0]], [[1.0]]),
            f"{PAIRS}. Received: reference.shape=(1, 1), arm.shape=(1, 1)",
        ),
        (
            lambda: paired_ratio([1.0, 1.0, 0.0], [1.0] * 3),
            "`reference` must be positive and finite. Received: reference[2]=0.0",
        ),
        (lambda: paired_ratio([1.0], [1.0], confidence=1), f"{CONFIDENCE}. Received: confidence=1"),
        (lambda: paired_ratio([1.0], [1.0], confidence=0), f"{CONFIDENCE}. Received: confidence=0"),
        (lambda: verdict(Ratio(1, 1, 1, 9, 9), margin=0), f"{MARGIN}. Received: margin=0"),
        (
            lambda: verdict(Ratio(1, 1, 1, 9, 9), margin=math.inf),
            f"{MARGIN}. Received: margin=inf",
        ),
        (
            lambda: rounds_needed(Ratio(1, 1, 1, 9, 9), 0),
            "`target_halfwidth` must be positive. Received: target_halfwidth=0",
        ),
        (
            lambda: accuracy_difference([0.9], [math.nan]),
            "`arm` must be finite. Received: arm[0]=nan",
        ),
        (
            lambda: accuracy_difference([0.9, -math.inf], [0.9, 0.9]),
            "`reference` must be finite. Received: reference[1]=-inf",
        ),
        (
            lambda: accuracy_difference([], []),
            f"{PAIRS.replace('round', 'seed')}. Received: reference.shape=(0,), arm.shape=(0,)",
        ),
        (
            lambda: accuracy_difference([1.0], [1.0], confidence=0),
            f"{CONFIDENCE}. Received: confidence=0",
        ),
        (
            lambda: accuracy_difference([1.0], [1.0], confidence=1),
            f"{CONFIDENCE}. Received: confidence=1",
        ),
        (
            lambda: outliers([1.0, math.nan]),
            "`values` must be finite. Received: values=[1.0, nan]",
        ),
    ],
)
def test_errors_state_the_rule_and_what_was_received(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        call()


def test_samples_of_half_precision_are_judged_in_double():
    times = np.float16([0.3, 0.31, 0.32]), np.float16([0.25, 0.26, 0.27])
    assert paired_ratio(*times) == paired_ratio(*np.float64(times))
    assert accuracy_difference(*times) == accuracy_difference(*np.float64(times))


def test_the_examples_run():
    assert doctest.testmod(bench.verdicts).failed == 0
