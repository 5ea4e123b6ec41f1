"""Verdicts on many comparisons: the correction by hand, as a law, and on simulated families."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import bench.families
from bench.families import MANY, correction, family_rate, holm, judge_family
from bench.ratios import p_values, paired_ratio
from bench.verdicts import Verdict, verdict
from tests.bench.sessions import WRONG, in_builds, paired_times, session

lists_of_p = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def test_holm_by_hand():
    # Sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and none below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1, 1]
    assert holm([]).tolist() == []


@given(lists_of_p, st.randoms(use_true_random=False))
def test_holm_keeps_order_lies_between_p_and_bonferroni_and_ignores_position(p, random):
    raw, adjusted = np.array(p), holm(p)
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * raw.size)).all()
    order = list(range(raw.size))
    random.shuffle(order)
    assert holm(raw[order]) == pytest.approx(adjusted[order])


@given(lists_of_p, st.data())
def test_holm_never_falls_when_a_p_value_rises_or_one_more_joins(p, data):
    i = data.draw(st.integers(0, len(p) - 1))
    higher = [*p[:i], data.draw(st.floats(p[i], 1)), *p[i + 1 :]]
    assert (holm(higher) >= holm(p) - 1e-12).all()
    assert (holm([*p, data.draw(st.floats(0, 1))])[:-1] >= holm(p) - 1e-12).all()


@given(paired_times)
def test_a_family_of_one_is_the_verdict_alone(pair):
    (judged,) = judge_family([tuple(pair)])
    assert judged.ratio == paired_ratio(*pair)
    assert judged.verdict == judged.alone == verdict(judged.ratio)
    low, high = judged.ratio.low, judged.ratio.high
    assert (judged.p_differ <= 0.05) == (low > 1 or high < 1)
    assert (judged.p_same <= 0.05) == (low > 1 / 1.02 and high < 1.02)


@pytest.mark.parametrize(("speedup", "word"), [(1.05, "faster"), (1 / 1.05, "slower"), (1, "same")])
def test_a_word_that_few_rounds_earn_alone_is_lost_in_a_crowd(speedup, word):
    few = (np.full(8, speedup), np.ones(8))  # p = 2 / 2^8
    many = (np.full(20, speedup), np.ones(20))
    assert [j.verdict for j in judge_family([few] * 6)] == [word] * 6
    crowd = judge_family([few] * 10 + [many] * 2)
    assert [j.alone for j in crowd] == [word] * 12
    assert [j.verdict for j in crowd] == ["can't tell"] * 10 + [word] * 2


def test_the_correction_goes_by_builds_and_not_by_rounds():
    # Three builds, faster by 4, 5 and 6 %: Student's t gives p = 0.013. Of 60 rounds that all
    # agree, were they of one build, p would be 2 / 2^60.
    times = np.repeat([1.04, 1.05, 1.06], 20)
    pair, builds = (times, np.ones(60)), (0, 20, 40)
    (alone,) = judge_family([pair], builds=[builds])
    assert alone.verdict == "faster"
    assert (alone.p_differ, alone.p_same) == p_values(*pair, builds=builds)
    assert 0.005 < alone.p_differ < 0.05
    assert {j.verdict for j in judge_family([pair] * 10, builds=[builds] * 10)} == {"can't tell"}


def test_a_large_family_is_corrected_for_the_share_that_is_wrong():
    few = (np.full(8, 1.05), np.ones(8))  # p = 2 / 2^8
    equal = (np.ones(8), np.ones(8))
    assert {j.verdict for j in judge_family([few] * MANY)} == {"can't tell"}
    assert {j.verdict for j in judge_family([few] * (MANY + 1))} == {"faster"}
    judged = judge_family([few] * 10 + [equal] * MANY)  # 10 of 110: 0.0078 * 11 > 0.05
    assert {j.verdict for j in judged[:10]} == {"can't tell"}
    assert "Holm" in correction(MANY)
    assert "Hochberg" in correction(MANY + 1)


def test_a_family_may_be_empty():
    assert judge_family([]) == []


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "bad"), [(1.0, WRONG), (1.02, (Verdict.SAME,))])
def test_a_family_errs_no_more_often_than_stated_where_single_verdicts_do(truth, bad):
    rng = np.random.default_rng(3)
    noise, families = (0.1 if truth == 1 else 0.03), 150
    alone = corrected = 0
    for _ in range(families):
        judged = judge_family([tuple(session(rng, 100, truth, noise)) for _ in range(25)])
        alone += any(j.alone in bad for j in judged)
        corrected += any(j.verdict in bad for j in judged)
    assert corrected <= stats.binom.ppf(0.999, families, 0.05)
    assert alone > corrected


def test_family_rate():
    assert family_rate(1) == pytest.approx(0.05)
    assert family_rate(25) == pytest.approx(1 - 0.95**25)
    assert family_rate(0) == 0


def test_a_family_knows_the_builds_of_its_members():
    rng = np.random.default_rng(0)
    times, builds = in_builds(rng, 8, 10, speedup=1.05)
    (judged,) = judge_family([tuple(times)], builds=[builds])
    assert judged.ratio == paired_ratio(*times, builds=builds)
    assert judged.verdict == verdict(judged.ratio)
    assert judge_family([tuple(times)])[0].ratio.builds == 1


def test_margin_and_alpha_are_those_of_every_member():
    rng = np.random.default_rng(1)
    pairs = [tuple(session(rng, 60, speedup, noise=0.05)) for speedup in (1, 1.05, 1.2)]
    for judged, pair in zip(judge_family(pairs, margin=0.1, alpha=0.2), pairs, strict=True):
        assert judged.ratio == paired_ratio(*pair, confidence=0.8)
        assert judged.alone == verdict(judged.ratio, margin=0.1)
    (judged,) = judge_family(pairs[:1], margin=0.1)
    assert (judged.p_differ, judged.p_same) == p_values(*pairs[0], margin=0.1)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: judge_family([], alpha=0), r"^`alpha` must be in \(0, 1\)\. Received: alpha=0$"),
        (lambda: judge_family([], alpha=1), "Received: alpha=1"),
        (lambda: judge_family([], builds=[[0]]), "longer than argument 1"),
        (lambda: judge_family([([1.0], [-1.0])]), r"Received: arm\[0\]=-1.0"),
    ],
)
def test_errors_state_the_rule_and_what_was_received(call, rule):
    with pytest.raises(ValueError, match=rule):
        call()


def test_the_examples_run():
    assert doctest.testmod(bench.families).failed == 0
