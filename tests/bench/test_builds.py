"""Verdicts over several builds of the arms, whose speeds scatter for as long as they live."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.ratios import p_values, paired_ratio
from bench.verdicts import Verdict, verdict
from tests.bench.sessions import WRONG, in_builds, paired_times


def test_with_several_builds_an_arm_against_itself_is_called_different_as_often_as_stated():
    rng = np.random.default_rng(7)
    words = []
    for _ in range(1000):
        times, builds = in_builds(rng, 10, 15, noise=0.02)
        words.append(verdict(paired_ratio(*times, builds=builds)))
    assert sum(word in WRONG for word in words) <= stats.binom.ppf(0.999, 1000, 0.05)
    assert words.count(Verdict.SAME) > 500


def test_one_build_misleads_where_several_do_not():
    """The same number of rounds: what varies between builds is then a bias, and looks like none."""
    rng = np.random.default_rng(8)
    one = sum(verdict(paired_ratio(*in_builds(rng, 1, 150)[0])) in WRONG for _ in range(400))
    several = 0
    for _ in range(400):
        times, builds = in_builds(rng, 10, 15)
        several += verdict(paired_ratio(*times, builds=builds)) in WRONG
    assert one > stats.binom.ppf(0.999, 400, 0.05)
    assert several <= stats.binom.ppf(0.999, 400, 0.05)


def test_a_planted_5_percent_is_found_across_builds():
    rng = np.random.default_rng(9)
    words = []
    for _ in range(1000):
        times, builds = in_builds(rng, 20, 15, speedup=1.05, noise=0.1)
        words.append(verdict(paired_ratio(*times, builds=builds)))
    assert words.count(Verdict.FASTER) >= 950
    assert Verdict.SLOWER not in words


@pytest.mark.parametrize("noise", [0.02, pytest.param(0.1, marks=pytest.mark.slow)])
def test_stopping_on_the_precision_of_builds_keeps_the_coverage(noise):
    rng = np.random.default_rng(10)
    held, sessions = 0, 300
    for _ in range(sessions):
        times, builds = in_builds(rng, 40, 15, noise=noise)
        for n in range(8, 41):
            part = times[:, : builds[n] if n < 40 else None]
            ratio = paired_ratio(*part, builds=builds[:n])
            if ratio.halfwidth <= 0.01:
                break
        held += ratio.low <= 1 <= ratio.high
    assert held / sessions >= 0.93 - 2.3 * math.sqrt(0.93 * 0.07 / sessions)


def test_the_interval_over_builds_is_students():
    rng = np.random.default_rng(11)
    times, builds = in_builds(rng, 6, 9)
    ratio = paired_ratio(*times, builds=builds, confidence=0.9)
    fast = np.sort(np.log(times).reshape(2, 6, 9))[..., :3].mean(axis=2)
    expected = stats.ttest_rel(*fast)
    interval = expected.confidence_interval(0.9)
    assert np.log([ratio.low, ratio.high]) == pytest.approx([interval.low, interval.high])
    assert (ratio.rounds, ratio.builds, ratio.effective_rounds) == (54, 6, 6)
    assert p_values(*times, builds=builds)[0] == pytest.approx(expected.pvalue)


@given(paired_times, st.data())
def test_with_builds_too_swapping_the_arms_inverts_the_ratio_and_p_values_agree(pair, data):
    cuts = data.draw(st.sets(st.integers(1, pair.shape[1] - 1), min_size=1, max_size=5))
    builds = [0, *sorted(cuts)]
    there, back = paired_ratio(*pair, builds=builds), paired_ratio(*pair[::-1], builds=builds)
    assert back.estimate == pytest.approx(1 / there.estimate)
    assert back.low == pytest.approx(1 / there.high)
    assert p_values(*pair, builds=builds) == pytest.approx(p_values(*pair[::-1], builds=builds))
    differ, same = p_values(*pair, builds=builds)
    if abs(differ - 0.05) > 1e-9:
        assert (differ < 0.05) == (there.low > 1 or there.high < 1)
    if abs(same - 0.05) > 1e-9:
        assert (same < 0.05) == (there.low > 1 / 1.02 and there.high < 1.02)


def test_builds_that_agree_to_the_last_bit():
    pair, builds = ([1.1] * 4, [1.0] * 4), [0, 2]
    ratio = paired_ratio(*pair, builds=builds)
    assert ratio.low == ratio.estimate == ratio.high == pytest.approx(1.1)
    assert p_values(*pair, builds=builds) == (0, 1)
    assert p_values(pair[0], pair[0], builds=builds) == (1, 0)
    equal = paired_ratio(pair[1], pair[1], builds=builds)
    assert (equal.low, equal.estimate, equal.high) == (1, 1, 1)


@pytest.mark.parametrize("builds", [[], [1], [0, 0], [0, 3], [0, 2, 1]])
def test_builds_that_cannot_be_are_refused(builds):
    rule = "`builds` must rise from 0, each with a round at least"
    message = f"{rule}. Received: builds={builds} of 3 rounds"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        paired_ratio([1.0] * 3, [1.0] * 3, builds=builds)
