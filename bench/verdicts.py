"""From the times of interleaved rounds to one of four words: faster, same, slower, can't tell.

A round gives one time per arm. What slows the machine slows the arms of a round alike, so arms are
compared within rounds: one log-ratio of speed, ``log(t_reference / t_arm)``, per round. Their
median, its rank interval and the sign test are one method seen from three sides: the 95 % interval
excludes a value just when the test rejects it at 5 %. Nothing is assumed about the shape of the
noise, nothing is drawn at random, and an interval costs less than a millisecond.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]


class Verdict(StrEnum):
    """What one may say of an arm against the reference arm."""

    FASTER = "faster"
    SAME = "same"
    SLOWER = "slower"
    CANT_TELL = "can't tell"


@dataclass(frozen=True)
class Ratio:
    """Speed of an arm over speed of the reference, with its interval; above 1 the arm is faster.

    ``effective_rounds`` is how many independent rounds these are worth (see `paired_ratio`).
    """

    low: float
    estimate: float
    high: float
    rounds: int
    effective_rounds: float

    @property
    def halfwidth(self) -> float:
        """Relative half-width ``sqrt(high / low) - 1``: the interval is about estimate */ (1 + h).

        Taken in logs, so that swapping the arms leaves it as it is, and `same` needs h < margin.
        Stop measuring on this, at half the margin and after 20 rounds or more: an interval of
        fixed width keeps its coverage (Chow & Robbins 1965). Never stop on the verdict: asked
        every ten rounds until it says something, it is wrong in 19 % of noisy A/A sessions, not 2.
        """
        return math.inf if self.low == 0 else math.sqrt(self.high / self.low) - 1


@dataclass(frozen=True)
class Judgement:
    """A member of a family: its verdict alone and after correction, and the corrected p-values."""

    ratio: Ratio
    alone: Verdict
    verdict: Verdict
    p_differ: float
    p_same: float


@dataclass(frozen=True)
class Difference:
    """Mean of arm minus reference over paired seeds, with its interval, in the units given."""

    low: float
    estimate: float
    high: float
    seeds: int


def paired_ratio(reference: ArrayLike, arm: ArrayLike, *, confidence: float = 0.95) -> Ratio:
    """How many times as fast as the reference the arm is, from paired rounds.

    With d(1) <= ... <= d(n) the paired log-ratios, the estimate is exp(median d) and the interval
    [exp d(k), exp d(n + 1 - k)], k the largest rank with P(Binomial(n, 1/2) < k) <= (1 -
    confidence) / 2: it holds for noise of any shape (Le Boudec 2010, ch. 2; advised by Hoefler &
    Belli, SC15; a ratio with its interval is what Kalibera & Jones, ISMM 2013, ask for). Five
    rounds admit no such k at 95 %: the interval is then (0, inf).

    Successive rounds may err alike even after pairing. The number of rounds above the median then
    varies f = 1 + 2 sum rho_j times as much, rho being the autocorrelation of sign(d - median)
    (Gastwirth & Rubin, JASA 1971): the ranks move out by sqrt(f), never in. The sum ends with the
    initial monotone sequence (Geyer 1992). For 200 independent rounds this widens the interval by
    8 %. A bootstrap of the median (Efron & Tibshirani 1993; blocks of n^(1/3) rounds) holds the
    truth in 93 % of sessions of 200 independent rounds, 90 % of 20: hence ranks.

    Under normal noise the Hodges-Lehmann estimate would need a third fewer rounds; under the heavy
    tails of a shared machine the median is the more precise, and spikes in one arm shift it less.

    It does not help against errors that all rounds share, such as a lucky memory layout: measure in
    fresh processes. At a correlation of 0.9 between successive rounds, "95 %" means 91 % for 200
    rounds and 75 % for 20. Where its place in the round slows an arm more than the noise does,
    the median lies between two humps: the interval is right but wide.

    Args:
        reference: seconds (per example, or per sample) of the reference arm, one per round.
        arm: the same for the arm, in the same rounds.
        confidence: how often such intervals hold the true ratio.

    Raises:
        ValueError: a time that is not positive and finite, unequal or no rounds, bad `confidence`.

    >>> paired_ratio([2.0, 2.2, 2.1, 4.4, 2.0, 2.1], [1.0, 1.1, 1.0, 2.2, 1.0, 1.0])
    Ratio(low=2.0, estimate=2.0, high=2.1, rounds=6, effective_rounds=6.0)
    """
    _check(0 < confidence < 1, "`confidence` must be in (0, 1)", f"confidence={confidence}")
    logs = _log_ratios(reference, arm)
    n, f = logs.size, _inflation(logs)
    k = stats.binom.ppf((1 - confidence) / 2, n, 0.5)
    # Moved out so that the interval excludes just what `_p_above` rejects; 1e-9 is for rounding.
    k = math.floor(n / 2 + 1 - math.sqrt(f) * (n / 2 + 1 - k) + 1e-9)
    low, high = np.exp(np.sort(logs)[[k - 1, n - k]]) if k > 0 else (0.0, math.inf)
    return Ratio(float(low), float(np.exp(np.median(logs))), float(high), n, n / f)


def verdict(ratio: Ratio, *, margin: float = 0.02) -> Verdict:
    """Read the interval: `can't tell`, unless two keys turn, evidence and practical size.

    - `faster`: the whole interval is above 1, and the estimate is at least 1 + margin;
    - `slower`: the whole interval is below 1, and the estimate is at most 1 / (1 + margin);
    - `same`: the whole interval is inside (1 / (1 + margin), 1 + margin): two one-sided tests
      (Schuirmann 1987), each at (1 - confidence) / 2.

    At a true ratio of 1, `faster` or `slower` comes in at most 1 - confidence of the comparisons;
    at a true ratio on the margin, `same` in at most (1 - confidence) / 2. The size key is on the
    estimate, as in asv: `faster` says that the arm is faster and that the likeliest gain is worth
    having, not that the gain surely exceeds the margin. For that claim read `low`. Wanting
    low >= 1 + margin, as criterion.rs does, needs about three times the rounds for a gain of 5 %.

    Raises:
        ValueError: `margin` is not positive.

    >>> str(verdict(Ratio(1.01, 1.05, 1.09, rounds=200, effective_rounds=200.0)))
    'faster'
    """
    _check(0 < margin < math.inf, "`margin` must be positive and finite", f"margin={margin}")
    if ratio.low > 1 and ratio.estimate >= 1 + margin:
        return Verdict.FASTER
    if ratio.high < 1 and ratio.estimate <= 1 / (1 + margin):
        return Verdict.SLOWER
    if 1 / (1 + margin) < ratio.low and ratio.high < 1 + margin:
        return Verdict.SAME
    return Verdict.CANT_TELL


def judge_family(
    comparisons: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    margin: float = 0.02,
    alpha: float = 0.05,
) -> list[Judgement]:
    """Verdicts on many comparisons, such that one wrong word among them all is unlikely.

    Each comparison has two sign-test p-values: that the ratio is 1, and that it is outside the
    margin (twice the larger of two one-sided ones, so that it agrees with the interval). Each kind
    is adjusted over the family by `holm`; a verdict whose p-value then exceeds `alpha` becomes
    `can't tell`. The chance that any comparison with a true ratio of 1 is called faster or slower
    is at most `alpha`, and so is, apart, the chance that any with a true ratio outside the margin
    is called the same. `same` is a claim too, and most of what a benchmark like this one has to
    say, so it is not exempt. Measured to a half-width of half the margin, 98 % of A/A comparisons
    are the same when alone and 95 % in a family of 25; at two thirds of it, 90 % and 45 %.

    The intervals shown stay those of single comparisons. Leave out A/A controls: they are not
    claims, and would make the correction harsher.

    Args:
        comparisons: pairs (times of the reference, times of the arm), as for `paired_ratio`.
        margin: as for `verdict`.
        alpha: chance of a wrong verdict in the family; intervals have confidence 1 - alpha.

    Raises:
        ValueError: as `paired_ratio` and `verdict` do, or `alpha` is not in (0, 1).

    >>> fast = ([2.0] * 8, [1.0] * 8)
    >>> [str(j.verdict) for j in judge_family([fast] * 5)], str(judge_family([fast] * 9)[0].verdict)
    (['faster', 'faster', 'faster', 'faster', 'faster'], "can't tell")
    """
    _check(0 < alpha < 1, "`alpha` must be in (0, 1)", f"alpha={alpha}")
    ratios = [paired_ratio(old, new, confidence=1 - alpha) for old, new in comparisons]
    logs = [_log_ratios(old, new) for old, new in comparisons]
    words = [verdict(ratio, margin=margin) for ratio in ratios]
    edge = -math.log1p(margin)
    p_differ = holm([2 * min(_p_above(d, 0.0), _p_above(-d, 0.0)) for d in logs])
    p_same = holm([2 * max(_p_above(d, edge), _p_above(-d, edge)) for d in logs])
    judgements = []
    for ratio, alone, differ, same in zip(ratios, words, p_differ, p_same, strict=True):
        holds = (same if alone is Verdict.SAME else differ) <= alpha
        word = alone if holds else Verdict.CANT_TELL
        judgements.append(Judgement(ratio, alone, word, float(differ), float(same)))
    return judgements


def holm(p_values: ArrayLike) -> Array:
    """Adjust p-values for their number, so that rejecting those <= alpha errs at most alpha often.

    Sorted, the i-th of m becomes max over j <= i of min(1, (m - j + 1) p(j)); no independence is
    needed (Holm, Scand. J. Statist. 6, 1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)).clip(max=1)
    return adjusted


def family_rate(members: int, alpha: float = 0.05) -> float:
    """Chance of at least one wrong verdict in a family without correction: 1 - (1 - alpha)^m.

    For independent comparisons with true ratios of 1, each wrong at a rate of `alpha`.

    >>> round(family_rate(25), 3)
    0.723
    """
    return 1 - (1 - alpha) ** members


def rounds_needed(ratio: Ratio, target_halfwidth: float) -> int:
    """About how many more rounds bring the half-width to the target: it shrinks as 1 / sqrt(n).

    With no finite interval yet there is nothing to go by: twice the rounds, and six at least.

    Raises:
        ValueError: `target_halfwidth` is not positive.

    >>> rounds_needed(Ratio(0.98, 1.0, 1 / 0.98, rounds=100, effective_rounds=100.0), 0.01)
    317
    """
    received = f"target_halfwidth={target_halfwidth}"
    _check(target_halfwidth > 0, "`target_halfwidth` must be positive", received)
    if math.isinf(ratio.halfwidth):
        return max(ratio.rounds, 6 - ratio.rounds)
    return max(0, math.ceil(ratio.rounds * ((ratio.halfwidth / target_halfwidth) ** 2 - 1)))


def accuracy_difference(
    reference: ArrayLike, arm: ArrayLike, *, confidence: float = 0.95
) -> Difference:
    """Mean of arm minus reference over seeds that both arms share, and its Student t interval.

    Pairing removes what a seed does to both arms (Bouthillier et al., MLSys 2021). One seed says
    nothing about its own spread: the interval is then (-inf, inf). Equal differences, which few
    seeds on a small test set may show by chance, make an interval of no width. The spread of the
    test set itself, the same for every seed, is not in the interval.

    Args:
        reference: accuracy (a share, or per cent) of the reference arm, one per seed.
        arm: the same for the arm, with the same seeds in the same order.
        confidence: how often such intervals hold the true difference.

    Raises:
        ValueError: a value that is not finite, unequal or no seeds, bad `confidence`.

    >>> accuracy_difference([0.97, 0.98], [0.96, 0.97]).estimate.__round__(3)
    -0.01
    """
    _check(0 < confidence < 1, "`confidence` must be in (0, 1)", f"confidence={confidence}")
    old, new = _paired(reference, arm, "seed", above=-math.inf)
    difference, seeds = new - old, old.size
    mean, half = float(difference.mean()), math.inf
    if seeds > 1:
        half = float(stats.t.ppf((1 + confidence) / 2, seeds - 1) * stats.sem(difference))
    return Difference(mean - half, mean, mean + half, seeds)


def outliers(values: ArrayLike) -> int:
    """Count the values far from the rest, to be shown; none is ever dropped.

    Far is a modified z-score 0.6745 |x - median| / MAD above 3.5 (Iglewicz & Hoaglin 1993). When
    more than half of the values are equal the MAD is 0, and every other value counts.

    Raises:
        ValueError: a value is not finite.

    >>> outliers([1.0, 1.1, 0.9, 1.0, 1.2, 9.0])
    1
    """
    x = np.asarray(values, float)
    _check(bool(np.isfinite(x).all()), "`values` must be finite", f"values={x.tolist()}")
    if x.size == 0:
        return 0
    distance = np.abs(x - np.median(x))
    return int(np.sum(0.6745 * distance > 3.5 * np.median(distance)))


def _log_ratios(reference: ArrayLike, arm: ArrayLike) -> Array:
    old, new = _paired(reference, arm, "round", above=0)
    return np.log(old) - np.log(new)  # not log(old / new): swapping the arms must only flip signs


def _p_above(logs: Array, floor: float) -> float:
    """One-sided sign test: how likely so many log-ratios above `floor`, were it their median."""
    n = logs.size
    excess = (np.sum(logs > floor) - n / 2) / math.sqrt(_inflation(logs))
    # Rounded down, to the larger p-value; 1e-9 is for rounding.
    return float(stats.binom.sf(math.floor(n / 2 + excess + 1e-9) - 1, n, 0.5))


def _inflation(logs: Array) -> float:
    """The factor f of `paired_ratio`, at least 1."""
    signs = np.sign(logs - np.median(logs))
    if not signs.any():
        return 1.0
    n = signs.size
    rho = np.correlate(signs, signs, "full")[n - 1 :] / (signs @ signs)
    pairs = np.minimum.accumulate(rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1))
    return max(1.0, float(2 * pairs[pairs > 0].sum() - 1))


def _paired(reference: ArrayLike, arm: ArrayLike, unit: str, above: float) -> tuple[Array, Array]:
    """Both as arrays, once they are known to match and to be finite and greater than `above`."""
    old, new = np.asarray(reference, float), np.asarray(arm, float)
    _check(
        old.ndim == 1 and old.shape == new.shape and old.size > 0,
        f"`reference` and `arm` must hold one number each per {unit}, for at least one {unit}",
        f"reference.shape={old.shape}, arm.shape={new.shape}",
    )
    rule = "must be positive and finite" if above == 0 else "must be finite"
    for name, values in (("reference", old), ("arm", new)):
        good = (values > above) & (values < math.inf)
        first = int(np.argmin(good))
        _check(bool(good.all()), f"`{name}` {rule}", f"{name}[{first}]={values[first]}")
    return old, new


def _check(holds: bool, rule: str, received: str) -> None:
    if not holds:
        raise ValueError(f"{rule}. Received: {received}")
